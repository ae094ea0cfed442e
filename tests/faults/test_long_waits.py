"""A worker that has nothing to fetch for a long time keeps its place in its group."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from streams.local.postgres import PostgresServer
from streams.settings import Settings
from tests.integration.system import fresh, running

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]
AILING = str(Path(__file__).with_name("ailing"))
IDLE_TIMES = 1_000
"""A second without a fetch counts as a quarter of an hour: what Faust has aiokafka wait for before it leaves the group."""
LOTS, POSTS = 12, 40
"""More lots than a sink fetches ahead, each with posts for all partitions."""


async def test_a_sink_that_waits_for_postgresql_for_long_stays_in_its_group(settings: Settings, tmp_path: Path, postgres: PostgresServer):
    """With all that it may fetch ahead in hand it fetches nothing: then aiokafka would leave the group after 1,000 s, and never come back."""
    async with running(settings, tmp_path, PYTHONPATH=AILING, IDLE_TIMES=str(IDLE_TIMES)) as system:
        names = [fresh("waits") for _ in range(LOTS * POSTS)]
        postgres.stop()
        try:
            for start in range(0, len(names), POSTS):
                await asyncio.gather(*(system.post(name) for name in names[start : start + POSTS]))
                await asyncio.sleep(0.4)
            await asyncio.sleep(8)
        finally:
            postgres.start()
            postgres.wait_ready()
        await system.until(lambda: system.query("SELECT count(*) AS n FROM variant_monitoring")[0]["n"] == len(names), 20)


async def test_a_monitor_without_a_partition_takes_over_all_the_same(settings: Settings, tmp_path: Path):
    """Where there are more monitors than partitions one has nothing to fetch, for as long as all others live."""
    one = settings.model_copy(update={"partitions": 1})
    async with running(one, tmp_path, 2, EARLY_KILL_PARTITIONS="1", PYTHONPATH=AILING, IDLE_TIMES=str(IDLE_TIMES)) as system:
        await asyncio.sleep(6)
        pages = [str((await system.call(monitor, "GET", "/metrics"))[1]) for monitor in system.monitors]
        [owner] = [monitor for monitor, page in zip(system.monitors, pages, strict=True) if f'topic="{system.topic("interaction")}"' in page]
        owner.kill()
        name = fresh("bad")
        await system.post(name)
        await system.interact(name, "view", 1, count=500)
        await system.interact(name, "like", 10)
        rows = await system.until_ended([name], 30)
        assert rows[name]["outcome"] == "killed"

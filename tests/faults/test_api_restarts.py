"""The API dies while callers wait for a stop, and they repeat it."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from random import Random

import aiohttp
import pytest

from tests.faults.ordeal import only_on_demand
from tests.faults.stage import Servers, Stage, staged
from tests.integration.system import Worker

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(300), only_on_demand]
LAPS, AT_ONCE = 6, 12
REPEATS_SECONDS = 60.0
DONE = (200, 404)
"""As the call's description has it: repeated after a 503, or none, both mean that monitoring has ended."""


async def ask(stage: Stage, worker: Worker, name: str, key: str) -> int:
    """Ask a worker for a stop; 0 if there is no answer."""
    try:
        status, _ = await stage.system.call(worker, "POST", f"/performance-monitor/stop/{name}", headers={"Idempotency-Key": key})
    except (aiohttp.ClientError, OSError, TimeoutError):
        return 0
    return status


async def insist(stage: Stage, workers: list[Worker], name: str, key: str) -> int:
    """Ask one worker after the other until one says that it is done."""
    async with asyncio.timeout(REPEATS_SECONDS):
        while True:
            for worker in workers:
                status = await ask(stage, worker, name, key)
                assert status in (0, 503, *DONE), status
                if status in DONE:
                    return status
                await asyncio.sleep(0.3)


async def test_a_stop_that_is_repeated_after_a_crash_ends_each_session_once(servers: Servers, tmp_path: Path):
    """A monitor is killed 0 to 150 ms after 12 callers have asked it, six times; they repeat themselves with the same key, at it or the other one (P39).

    One end and one audit row of it for each session. The request that ended it has its audit row; one that was published and came too late has none if the worker
    died before it had written it.
    """
    chance, firsts, lasts = Random(39), Counter[int](), Counter[int]()
    async with staged(servers, tmp_path / "home", monitors=2) as stage:
        stage.keep()
        names = [f"stopped-{number}" for number in range(LAPS * AT_ONCE)]
        stage.fill(names)
        for lap in range(LAPS):
            victim, other = stage.system.monitors[lap % 2], stage.system.monitors[1 - lap % 2]
            part = names[lap * AT_ONCE : (lap + 1) * AT_ONCE]
            for name in part:
                await stage.system.post(name, timeout_minutes=30)
            await stage.system.until(lambda part=part: stage.system.query("SELECT count(*) AS n FROM variant_monitoring WHERE variant_id = ANY(%s)", part)[0]["n"] == len(part), 30)  # type: ignore[misc]
            asked = [asyncio.create_task(ask(stage, victim, name, f"key-{name}")) for name in part]
            await asyncio.sleep(chance.uniform(0, 0.15))
            victim.kill()
            await asyncio.sleep(0.5)  # until it has been started again
            firsts.update(await asyncio.gather(*asked))
            lasts.update(await asyncio.gather(*(insist(stage, [victim, other], name, f"key-{name}") for name in part)))
            await stage.system.until(lambda victim=victim: victim._ready_file.exists(), 40)  # type: ignore[misc]
        left = await stage.settle(len(names), 60)
        rows = Counter(row["variant_id"] for row in stage.system.query("SELECT variant_id FROM monitoring_audit WHERE action = 'stop_requested'"))
        published = Counter(value["variant_id"] for value in await stage.system.values("monitoring_control"))
        print(
            f"first answers {dict(firsts)}, last {dict(lasts)}; (published, audited): {dict(Counter((published[name], rows[name]) for name in names))}; ended: {dict(stage.exits)}"
        )
        verdict, wrong = await stage.judged()
        wrong = [*left, *wrong, *await stage.unbalanced(), *await stage.leave()]
        assert not wrong, "\n".join(wrong[:20])
        assert Counter(fate.outcome for fate in verdict.fates.values()) == {"stopped": len(names)}
        assert firsts[0]
        assert all(1 <= rows[name] <= published[name] for name in names)

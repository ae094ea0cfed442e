"""PostgreSQL crashes and stays away for long: decisions go on, records wait in Kafka, and all are written when it is back."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from tests.faults.menu import POSTGRESQL_AWAY
from tests.faults.ordeal import MOST_LINES, answer, lines_since, only_on_demand, ordeal, readiness, sample, until
from tests.faults.schedule import Size
from tests.faults.stage import Servers

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(400), only_on_demand]
AWAY_SECONDS = float(os.environ.get("EARLY_KILL_OUTAGE_SECONDS", "30"))
WRITTEN_SECONDS = 15.0


async def test_postgresql_down_for_long_delays_records_and_no_decision(servers: Servers, tmp_path: Path):
    """``EARLY_KILL_OUTAGE_SECONDS=120`` for longer. Kills are told within 5 s of their events meanwhile; records wait for the sink, and are worked off within 15 s (P17)."""
    async with ordeal(servers, tmp_path / "home", 17, size=Size(200, 5_000, AWAY_SECONDS + 15, 60.0)) as stage:
        system = stage.system
        await asyncio.sleep(5)
        marks = stage.marks()
        await asyncio.to_thread(servers.postgres.child.stop, (signal.SIGQUIT, 5.0))
        killed = len({value["kill_id"] for value in await system.values("variant_killed")})
        await asyncio.sleep(AWAY_SECONDS)
        monitor, sink = await readiness(system.monitors[0]), await readiness(system.sink)
        assert (monitor["status"], monitor["postgresql"], sink["status"], sink["postgresql"]) == ("ready", "away", "not ready", "away")
        told = len({value["kill_id"] for value in await system.values("variant_killed")}) - killed
        lag = sample((await answer(system.sink, "/metrics"))[1], "performance_monitor_consumer_lag")
        metrics = (await answer(system.monitors[0], "/metrics"))[1]
        late = sample(metrics, "performance_monitor_evaluation_latency_seconds_count") - _within(metrics, "5.0")
        waiting, written = await stage.undone("sink"), lines_since(stage, marks)
        print(f"away for {AWAY_SECONDS:.0f} s: {told} kills told, {late:.0f} of all over 5 s after their events, {waiting} records wait (metric: {lag:.0f}); lines {written}")
        assert told
        assert late == 0
        assert waiting >= told
        assert told <= lag <= waiting  # as of a look some seconds ago
        assert stage.said(marks, POSTGRESQL_AWAY)
        assert max(written.values()) <= MOST_LINES
        await asyncio.to_thread(servers.postgres.start)
        await asyncio.to_thread(servers.postgres.wait_ready)
        began = time.monotonic()
        await until(lambda: stage.said(marks, "PostgreSQL takes records again"), WRITTEN_SECONDS, "PostgreSQL takes records again")
        while sample((await answer(system.sink, "/metrics"))[1], "performance_monitor_consumer_lag") > 50:
            assert time.monotonic() - began < WRITTEN_SECONDS
            await asyncio.sleep(0.2)
        print(f"worked off {time.monotonic() - began:.1f} s after PostgreSQL was back")
    assert not stage.exits


def _within(metrics: str, bound: str) -> float:
    [line] = [line for line in metrics.splitlines() if line.startswith(f'performance_monitor_evaluation_latency_seconds_bucket{{le="{bound}"}}')]
    return float(line.rsplit(" ", 1)[1])

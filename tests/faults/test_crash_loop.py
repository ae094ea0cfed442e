"""A monitor that is killed again and again gets further each time (P7)."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest

from tests.faults.ordeal import only_on_demand, ordeal
from tests.faults.schedule import Size
from tests.faults.stage import Servers

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(300), only_on_demand]
LAPS, LIVES_SECONDS = 6, 20.0
"""The group waits for 6 s before it gives a killed monitor's partitions to its successor, which is ready some 2 s later, 5 s on a busy machine."""


async def test_each_life_of_a_monitor_that_is_killed_every_20_seconds_gets_further(servers: Servers, tmp_path: Path):
    """Six lives under traffic: each has committed more than the last."""
    async with ordeal(servers, tmp_path / "home", 27, size=Size(200, 8_000, LAPS * LIVES_SECONDS + 20, 60.0)) as stage:
        done = [await stage.done("monitor")]
        for _ in range(LAPS):
            await asyncio.sleep(LIVES_SECONDS)
            done.append(await stage.done("monitor"))
            stage.system.monitors[0].kill()
        print("records committed at the end of each life:", *done)
        assert all(later > earlier for earlier, later in pairwise(done))

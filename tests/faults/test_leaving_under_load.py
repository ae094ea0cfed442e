"""SIGTERM in the middle of traffic: both workers drain, commit and leave with exit code 0 in time, and what is done is not done again (P6)."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

from tests.faults.schedule import Size, copies
from tests.faults.stage import Servers, staged
from tests.faults.traffic import Sender, make_plan

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(120)]
SIZE = Size(variants=150, events=6_000, seconds=20.0)
LEAVES_SECONDS = 10.0
LAPS = 2


async def test_workers_that_are_told_to_leave_under_load_do_so_in_time(servers: Servers, tmp_path: Path):
    """Twice, with records coming in all the while; started again, they are told again when they are ready.

    All is as it has to be in the end, and no kill and no record was told twice.
    """
    async with staged(servers, tmp_path) as stage:
        plan = make_plan(6, SIZE.variants, SIZE.events, SIZE.seconds)
        stage.fill(plan.variants)
        sender = Sender(stage.system.settings.kafka_bootstrap_servers, stage.system.settings.topic_prefix)
        traffic = asyncio.create_task(sender.send(plan))
        for _ in range(LAPS):
            await asyncio.sleep(2)
            assert not traffic.done()
            began = time.monotonic()
            for worker in stage.workers:
                worker.signal(signal.SIGTERM)
            codes = [await asyncio.to_thread(worker.wait, 2 * LEAVES_SECONDS) for worker in stage.workers]
            took = time.monotonic() - began
            print(f"left after {took:.1f} s")
            assert codes == [0, 0]
            assert took <= LEAVES_SECONDS
            for worker in stage.workers:
                worker.start()
            await asyncio.gather(*(worker.ready() for worker in stage.workers))
        await traffic
        left = await stage.settle(len(plan.variants), SIZE.drain_seconds)
        _, wrong = await stage.judged()
        wrong = [*left, *wrong, *await stage.unbalanced(), *await stage.leave()]
        assert not wrong, "\n".join(wrong[:20])
        assert await copies(stage) == 0

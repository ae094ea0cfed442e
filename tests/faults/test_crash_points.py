"""Every named place at which a worker can die, on real Kafka and PostgreSQL: nothing is missed, invented, doubled, wrong or unclean."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import pytest

from streams.crash_points import MONITOR_POINTS, SINK_POINTS, VARIABLE
from tests.faults.stage import Servers, Stage, staged
from tests.faults.traffic import Sender, make_plan
from tests.integration.system import ROOT, Worker

DIES_SECONDS = 60.0
SYSTEMS = 2
LAPS = 3 if "EARLY_KILL_FAULTS" in os.environ else 1


def test_every_place_is_somewhere_in_the_program():
    """And no other: a name that is nowhere would be a test that never crashes."""
    used = set()
    for path in (ROOT / "streams").glob("**/*.py"):
        used |= set(re.findall(r'crash_point\("(\w+)"\)', path.read_text()))
    assert used == set(MONITOR_POINTS) | set(SINK_POINTS)


@pytest.mark.parametrize("order", ["nowhere:1", "after_read", "after_read:0", "after_read:x"])
def test_an_order_that_names_no_place_is_refused(order: str):
    """In one line, for a test that crashes nowhere proves nothing."""
    command = [sys.executable, "-m", "streams.cli", "worker", "--role", "sink"]
    ended = subprocess.run(command, cwd=ROOT, env={VARIABLE: order, "PATH": ""}, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert f"{VARIABLE}={order}" in ended.stderr.strip().splitlines()[-1]
    assert "Traceback" not in ended.stderr


async def die_at(worker: Worker, points: Sequence[str], died: list[str], lap: int) -> None:
    """Start ``worker`` for each place in turn, and wait until it has died there."""
    worker.stop()
    for number, point in enumerate(points):
        worker._environment[VARIABLE] = f"{point}:{1 + (number + lap) % 2}"
        began = time.monotonic()
        worker.start()
        try:
            code = await asyncio.to_thread(worker.wait, DIES_SECONDS)
        except subprocess.TimeoutExpired:
            pytest.fail(f"never comes to {point}: {worker.log.read_text()[-2000:]}")
        assert code == -signal.SIGKILL, (point, worker.log.read_text()[-2000:])
        print(f"died at {point} after {time.monotonic() - began:.1f} s")
        died.append(point)
    del worker._environment[VARIABLE]
    worker.start()
    await worker.ready()


async def send_until(stage: Stage, done: asyncio.Event, seed: int) -> int:
    """Send one short day after the other; returns how many variants were posted."""
    settings, variants = stage.system.settings, 0
    for day in count(1_000 * seed):
        plan = make_plan(day, variants=60, events=1_200, seconds=8.0)
        stage.fill(plan.variants)
        await Sender(settings.kafka_bootstrap_servers, settings.topic_prefix).send(plan)
        variants += len(plan.variants)
        if done.is_set():
            break
    return variants


async def crash_everywhere(stage: Stage, monitor_points: Sequence[str], sink_points: Sequence[str], lap: int, seed: int) -> list[str]:
    """Let a monitor and a sink die at each of these places under traffic."""
    done, died = asyncio.Event(), list[str]()
    async with asyncio.TaskGroup() as together:
        traffic = together.create_task(send_until(stage, done, seed))
        async with asyncio.TaskGroup() as dying:
            dying.create_task(die_at(stage.system.monitors[0], monitor_points, died, lap))
            dying.create_task(die_at(stage.system.sink, sink_points, died, lap))
        done.set()
    left = await stage.settle(traffic.result(), 60)
    verdict, wrong = await stage.judged()
    wrong = [*left, *wrong, *await stage.unbalanced(), *await stage.leave()]
    assert not wrong, "\n".join(wrong[:20])
    assert {"killed", "timed_out", "stopped"} == {fate.outcome for fate in verdict.fates.values()}
    assert {"counted", "duplicate", "early", "late", "after_end", "dead_letter"} <= set(verdict.results)
    return died


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("lap", range(LAPS))
async def test_a_worker_that_dies_at_any_place_does_no_harm(servers: Servers, tmp_path: Path, lap: int):
    """Two systems at once, each with half of the places; a worker dies the first or second time that it comes to one, and in the next lap the other time."""

    async def part(number: int) -> list[str]:
        async with staged(servers, tmp_path / str(number)) as stage:
            return await crash_everywhere(stage, list(MONITOR_POINTS)[number::SYSTEMS], list(SINK_POINTS)[number::SYSTEMS], lap, seed=number + SYSTEMS * lap)

    died = await asyncio.gather(*(part(number) for number in range(SYSTEMS)))
    assert {point for points in died for point in points} == set(MONITOR_POINTS) | set(SINK_POINTS)

"""A system under traffic while a test breaks something; judged as after a random schedule when the test lets go of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from tests.faults.schedule import Size
from tests.faults.stage import Servers, Stage, staged
from tests.faults.traffic import Sender, make_plan
from tests.integration.system import Worker

only_on_demand = pytest.mark.skipif("EARLY_KILL_FAULTS" not in os.environ, reason="`make faults` runs it")
TRAFFIC = Size(variants=120, events=3_000, seconds=20.0, drain_seconds=60.0)
MOST_LINES = 40
"""Lines that one worker may write while what it needs is away: it says so, and does not flood its log."""
FULL = "No space left on device"


@asynccontextmanager
async def ordeal(servers: Servers, home: Path, seed: int, *, size: Size = TRAFFIC, monitors: int = 1, excused: str = "^$", **environment: str) -> AsyncIterator[Stage]:
    """Yield a system that is sent traffic, and whose workers are started again when they end; whatever is left broken is healed afterwards.

    Args:
        servers: What it runs on.
        home: Where its logs go.
        seed: Of the traffic.
        size: Of the traffic.
        monitors: How many.
        excused: Pattern of traces in a log that the fault leaves by its nature.
        environment: More of it, for the workers.

    Raises:
        AssertionError: Something was missed, invented, doubled, wrong or unclean in the end, did not add up, or left its traces in a log.
    """
    async with staged(servers, home, monitors, **environment) as stage:
        plan = make_plan(seed, size.variants, size.events, size.seconds)
        stage.fill(plan.variants)
        stage.keep()
        traffic = asyncio.create_task(Sender(stage.system.settings.kafka_bootstrap_servers, stage.system.settings.topic_prefix).send(plan))
        try:
            yield stage
            await traffic
        finally:
            traffic.cancel()
            await asyncio.gather(traffic, return_exceptions=True)
        await asyncio.to_thread(servers.heal)
        began = time.monotonic()
        left = await stage.settle(len(plan.variants), size.drain_seconds)
        print(f"settled {time.monotonic() - began:.1f} s after the traffic; workers that ended: {dict(stage.exits) or 'none'}")
        verdict, wrong = await stage.judged()
        print(f"records: {dict(verdict.results)}")
        wrong = [*left, *wrong, *await stage.unbalanced(), *(line for line in await stage.leave() if not re.search(excused, line))]
        assert not wrong, "\n".join(wrong[:20])


async def answer(worker: Worker, path: str, seconds: float = 5) -> tuple[int, str]:
    """Ask a worker by HTTP; status 0 if it does not answer in time."""
    try:
        async with aiohttp.ClientSession() as client, client.get(worker.url + path, timeout=aiohttp.ClientTimeout(seconds)) as got:
            return got.status, await got.text()
    except (aiohttp.ClientError, OSError, TimeoutError):
        return 0, ""


async def readiness(worker: Worker) -> dict[str, object]:
    """What ``GET /ready`` says, whatever the status; nothing if nobody answers."""
    _, text = await answer(worker, "/ready")
    found: dict[str, object] = json.loads(text) if text else {}
    return found


async def until(condition: Callable[[], object], seconds: float, what: str) -> float:
    """Wait for something; returns how long it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.1)
    return time.monotonic() - began


def lines_since(stage: Stage, marks: dict[Path, int]) -> dict[str, int]:
    """How many lines each worker has logged since."""
    return {worker.log.name: worker.log.read_bytes()[marks.get(worker.log, 0) :].count(b"\n") for worker in stage.workers if worker.log.exists()}


def sample(text: str, name: str) -> float:
    """Sum of a metric's samples."""
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """A file system of its own that can be made to be full."""

    at: Path
    size: int

    def fill(self) -> None:
        """Leave no page free."""
        for _ in range(20):
            found = os.statvfs(self.at)
            with contextlib.suppress(subprocess.CalledProcessError):  # it has just grown
                return self._resize((found.f_blocks - found.f_bfree) * found.f_frsize)
        raise AssertionError(f"{self.at} grows too fast to be filled")

    def free(self) -> None:
        """Make all of it usable again."""
        self._resize(self.size)

    def _resize(self, size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.at)], check=True, capture_output=True, timeout=10)  # noqa: S607 - mount is where the system has it


@contextlib.contextmanager
def small_disk(at: Path, size: int) -> Iterator[SmallDisk]:
    """Mount a file system of ``size`` bytes, in memory; skips the test where that is not possible."""
    at.mkdir(parents=True)
    try:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "early-kill-test", str(at)], check=False, capture_output=True, text=True, timeout=10)  # noqa: S607 - as above
    except OSError as error:
        pytest.skip(f"nothing can be mounted here: {error}")
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(at, size)
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=False, capture_output=True, timeout=10)  # noqa: S607 - as above

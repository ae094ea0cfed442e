"""Many seeds at once, on all processors, and all there is to know of one that fails."""

from __future__ import annotations

import gc
import math
import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context

import pytest

import streams.monitoring
import streams.restoring
from models import duplicates, waiting
from tests.simulation.claims import Run
from tests.simulation.history import Shape
from tests.simulation.plan import make_plan
from tests.simulation.safeguards import Safeguard
from tests.simulation.shrink import complaint, describe, shrink
from tests.simulation.simulation import run_plan
from tests.simulation.worker import CHANGELOG_LOOK, COMPACTION_LAG, FLUSH_PAUSE

FAMILIES = {
    "as_its_records_say": Shape(),
    "once_and_for_all": Shape(stops=True),
    "without_post_id": Shape(stops=True, anonymous=0.4),
    "too_late": Shape(late_posts=True, stops=True),
    "does_no_harm": Shape(stops=True, strays=True, quiet=0.1),
}
"""Histories, by a part of the name of the test that runs them."""
AT_ONCE = 20
"""Seeds that a process runs before it tells how it went; those that share a history among them."""

Failure = tuple[int, str]


class Failed(AssertionError):
    """A seed has failed."""


@contextmanager
def small_numbers() -> Iterator[pytest.MonkeyPatch]:
    """Let event ids and waiting interactions fill segments as in a session a hundred times as large, flushes and compaction come soon."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "TAIL", 4)
        patch.setattr(duplicates, "FEW", 6)
        patch.setattr(duplicates, "FEWER", 2)
        patch.setattr(duplicates, "SEGMENT_LIMIT", 8)
        patch.setattr(waiting, "SEGMENT_BYTES", 500)
        patch.setattr(waiting, "SWEPT_IN_ONE_TURN", 3)
        patch.setattr(streams.monitoring, "WAITERS_AT_ONCE", 2)
        patch.setattr(streams.monitoring, "LONGEST_FLUSH_PAUSE", FLUSH_PAUSE)
        patch.setattr(streams.monitoring, "CHANGELOG_LOOK_SECONDS", CHANGELOG_LOOK)
        patch.setattr(streams.restoring, "COMPACTION_LAG_MS", COMPACTION_LAG // 1_000)
        patch.setattr(streams.monitoring.log, "disabled", True)
        patch.setattr(streams.restoring.log, "disabled", True)
        yield patch


def run_some(family: str, seeds: list[int]) -> tuple[Counter[str], Failure | None]:
    """Run seeds one after the other until one fails; return how the faults have bitten, and that one."""
    bites: Counter[str] = Counter()
    with small_numbers():
        gc.disable()  # it costs a tenth of the time, and these few leave little
        try:
            for seed in seeds:
                try:
                    run = run_plan(make_plan(seed, FAMILIES[family]))
                except Exception as error:  # noqa: BLE001 - whatever it is, its seed is wanted
                    return bites, (seed, f"{type(error).__name__}: {error}")
                bites.update(bites_of(run))
        finally:
            gc.enable()
            gc.collect()
    return bites, None


def bites_of(run: Run) -> Counter[str]:
    """Say what has happened in a run: how many records, lives and faults, and what they have led to."""
    return Counter(
        seeds=1,
        events=sum(map(len, run.history.records.values())),
        crashes=run.crashes,
        redelivered=run.redelivered,
        restored=run.restored,
        repeated=run.repeated_ends,
        unacknowledged=run.unacknowledged,
        kills=run.kills,
        time_outs=run.outcomes["timed_out"],
        stopped=run.outcomes["stopped"],
        hung=run.hung,
        lingering=run.lingering,
        overtaken=run.overtaken,
        rebalances=run.rebalances,
        strays=run.strays,
        compacted=run.broker.compacted,
    )


def _settle() -> None:
    """Spare what is loaded, the greater part of all, each search for garbage."""
    gc.collect()
    gc.freeze()


@contextmanager
def processes() -> Iterator[ProcessPoolExecutor]:
    """Start as many processes as there are processors."""
    pool = ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn"), initializer=_settle)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(slots=True)
class Purse:
    """Seconds for several tests together: one that needs less leaves the rest to those after it."""

    seconds: float
    tests: int

    def share(self) -> float:
        """Return how long the next test may take."""
        return self.seconds / max(self.tests, 1)

    def spend(self, seconds: float) -> None:
        """Note how long it has taken."""
        self.seconds, self.tests = max(self.seconds - seconds, 0.0), self.tests - 1


def run_many(pool: ProcessPoolExecutor, family: str, count: int, seconds: float = math.inf) -> Counter[str]:
    """Run the seeds from 0 up to ``count``, or as many of them as go into so many seconds; return how the faults have bitten.

    Raises:
        Failed: One of them fails; says which, and what is left of it when all is left out that it fails without.
    """
    work = [pool.submit(run_some, family, list(range(start, min(start + AT_ONCE, count)))) for start in range(0, count, AT_ONCE)]
    bites: Counter[str] = Counter()
    until = time.monotonic() + seconds
    for some in as_completed(work):
        if some.cancelled():
            continue
        more, failure = some.result()
        if failure is not None:
            _cancel(work)
            raise Failed(tell(family, failure))
        bites.update(more)
        if time.monotonic() > until:
            _cancel(work)
    return bites


def _cancel(work: list[Future[tuple[Counter[str], Failure | None]]]) -> None:
    for some in work:
        some.cancel()


def tell(family: str, failure: Failure) -> str:
    """Say which seed has failed, how to run it again, and what its core is."""
    seed, message = failure
    with small_numbers():
        core = describe(shrink(make_plan(seed, FAMILIES[family])))
    return f"seed {seed}: {message}\n\nagain: EARLY_KILL_SIMULATION_SEED={seed} pytest tests/simulation/test_crashes.py -k {family}\n\nshrunk to {core}"


def find_without(safeguard: Safeguard, seeds: int, *, is_shrunk: bool = False) -> tuple[int, str, str] | None:
    """Take a safeguard out and look for a seed that fails; return it with what is wrong and, if asked for, what it shrinks to."""
    with small_numbers() as patch:
        safeguard.take_out(patch)
        for seed in range(seeds):
            plan = make_plan(seed, safeguard.shape)
            told = complaint(plan)
            if told is not None:
                return seed, told, describe(shrink(plan, 20.0)) if is_shrunk else ""
    return None

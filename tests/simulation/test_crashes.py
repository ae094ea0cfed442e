"""Whatever crashes in between, each session ends once, as the contract says.

The project's own ``Monitoring``, ``PartitionWorker`` and ``PartitionMonitor`` live through seeded histories on a simulated log,
are killed between any two steps, stopped, started again, and held against an oracle that shares no code with them.
Five tests of 2,000 seeds, with some 500 records each; on a slow machine they stop after ``SECONDS`` together. Each says in a line how many seeds it has run.
All 10,000, however long that takes (``EARLY_KILL_SIMULATION_SEEDS`` is the number for each test)::

    EARLY_KILL_SIMULATION_SEEDS=2000 pytest tests/simulation/test_crashes.py

A seed that fails is named, with what is left of it when all is left out that it fails without; alone, and always the same, it runs with::

    EARLY_KILL_SIMULATION_SEED=<seed> pytest tests/simulation/test_crashes.py -k <test>
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import pytest

from tests.simulation.seeds import FAMILIES, Failed, Purse, processes, run_many, run_some, tell

WANTED = os.environ.get("EARLY_KILL_SIMULATION_SEEDS")
SEEDS = int(WANTED or "2000")
SECONDS = math.inf if WANTED else 175.0
"""For all tests together; the pool of processes takes some more to start."""
ONE = os.environ.get("EARLY_KILL_SIMULATION_SEED")
ENOUGH = 300
"""So many seeds, and every fault must have bitten."""

pytestmark = [pytest.mark.timeout(120 + SEEDS), pytest.mark.alone]


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with processes() as pool:
        yield pool


@pytest.fixture(scope="module")
def purse() -> Purse:
    return Purse(SECONDS, len(FAMILIES))


@pytest.fixture
def crowd(pool: ProcessPoolExecutor, purse: Purse, say: Callable[[str], None]) -> Crowd:
    return Crowd(pool, purse, say)


class Crowd(NamedTuple):
    """What many seeds need: processes, time, and a way to say how many were run."""

    pool: ProcessPoolExecutor
    purse: Purse
    say: Callable[[str], None]


def run_seeds(family: str, crowd: Crowd, bitten: tuple[str, ...] = ()) -> None:
    """Run all seeds; then make sure that the faults have bitten, for otherwise nothing is shown."""
    if ONE:
        _, failure = run_some(family, [int(ONE)])
        if failure is not None:
            raise Failed(tell(family, failure))
        return
    began = time.monotonic()
    bites = run_many(crowd.pool, family, SEEDS, crowd.purse.share())
    took = time.monotonic() - began
    crowd.purse.spend(took)
    print(family, dict(bites))
    crowd.say(f"{family}: {bites['seeds']:,} of {SEEDS:,} seeds in {took:.0f} s")
    if SEEDS >= ENOUGH:
        assert bites["seeds"] >= ENOUGH, f"so few show nothing: {bites}"
        for what in ("redelivered", "restored", "repeated", "unacknowledged", "kills", "time_outs", "rebalances", *bitten):
            assert bites[what], f"nothing {what}: {bites}"
        assert bites["crashes"] + bites["lingering"] > bites["seeds"], bites


def test_each_session_ends_once_and_as_its_records_say(crowd: Crowd) -> None:
    """Kills, time-outs, counts, reasons and dead letters are exactly those of the oracle."""
    run_seeds("as_its_records_say", crowd)


def test_a_stop_ends_a_session_once_and_for_all(crowd: Crowd) -> None:
    """Once any end of a session has been told, no other is; sessions that nobody stops end as the oracle says."""
    run_seeds("once_and_for_all", crowd, ("stopped",))


def test_records_without_post_id_never_make_a_session_end_twice(crowd: Crowd) -> None:
    """Which session they belong to depends on the order of two topics; that a session has one end does not."""
    run_seeds("without_post_id", crowd, ("stopped",))


def test_a_post_that_comes_too_late_for_some_interactions_still_gets_one_end(crowd: Crowd) -> None:
    """Whether they still wait for it is open; that the session ends once is not."""
    run_seeds("too_late", crowd, ("stopped",))


def test_what_a_worker_sends_that_lost_its_partitions_does_no_harm(crowd: Crowd) -> None:
    """It arrives before, while and after their new owner reads the changelogs, from a worker that hangs or one that goes on and does not know."""
    run_seeds("does_no_harm", crowd, ("hung", "lingering", "overtaken", "strays", "compacted"))


def test_every_kind_of_history_has_its_test() -> None:
    """So that ``-k`` finds it by the name that a failure gives."""
    tests = [name for name in globals() if name.startswith("test_")]
    assert all(any(family in name for name in tests) for family in FAMILIES)

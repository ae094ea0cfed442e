"""Patience: what is tried again, what waits by itself, what is given back. PostgreSQL is scripted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import psycopg
import pytest
from psycopg import errors

from models.errors import Stop
from models.monitoring_record import MonitoringRecord
from streams.persistence import Persisted
from streams.persister import LONGEST_PAUSE_SECONDS, Persister, Written, pause_seconds
from tests.records import start_of


class Database:
    """Takes records, unless a lock, a time-out or a script says otherwise; keeps each transaction that was committed."""

    def __init__(self) -> None:
        self.script: list[Exception] = []
        self.locked: set[str] = set()
        self.slow: set[str] = set()
        self.refused: set[str] = set()
        self.committed: list[list[str]] = []
        self.attempts = 0

    async def write(self, records: Sequence[MonitoringRecord]) -> Persisted:
        """One transaction."""
        self.attempts += 1
        await asyncio.sleep(0)
        if self.script:
            raise self.script.pop(0)
        if any(record.variant_id in self.locked for record in records):
            raise errors.LockNotAvailable("canceling statement due to lock timeout")
        if any(record.variant_id in self.slow for record in records):
            raise errors.QueryCanceled("canceling statement due to statement timeout")
        if any(record.variant_id in self.refused for record in records):
            raise errors.CheckViolation("violates check constraint")
        self.committed.append([f"{record.variant_id}/{record.post_id}" for record in records])
        return Persisted(started=len(records))


class Clock:
    """Time passes only while somebody pauses."""

    def __init__(self) -> None:
        self.now_us = 0
        self.pauses: list[float] = []

    def __call__(self) -> int:
        return self.now_us

    async def sleep(self, seconds: float) -> None:
        """Let that much pass."""
        self.pauses.append(seconds)
        self.now_us += round(seconds * 1e6)
        await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    """Let the others go on until it holds."""
    while not condition():
        await asyncio.sleep(0)


def persister_on(database: Database, clock: Clock) -> Persister:
    """With the longest pauses that the back-off allows."""
    return Persister(database.write, clock_us=clock, sleep=clock.sleep, jitter=lambda: 1.0)


async def test_a_batch_is_one_transaction():
    """And its effect is reported."""
    database = Database()
    written = await persister_on(database, Clock()).persist([start_of("a"), start_of("b")])
    assert (written.persisted, written.rejected, database.committed) == (Persisted(started=2), [], [["a/p", "b/p"]])


async def test_an_outage_is_waited_for_with_one_line_each_way(caplog: pytest.LogCaptureFixture):
    """The same batch, for as long as it takes; pauses grow to 10 s and no further."""
    caplog.set_level(logging.INFO)
    database, clock = Database(), Clock()
    database.script = [psycopg.OperationalError("connection refused")] * 12
    persister = persister_on(database, clock)
    written = await persister.persist([start_of("a")])
    assert written.persisted == Persisted(started=1)
    assert clock.pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10, 10, 10, 10])
    assert [record.getMessage() for record in caplog.records] == [
        "PostgreSQL takes no records, they wait until it does: PostgreSQL: connection refused",
        "PostgreSQL takes records again, after 62.7 s",
    ]
    assert persister.away_since_us is None


async def test_readiness_can_see_the_outage():
    """Since when, while it lasts."""
    database, clock = Database(), Clock()
    clock.now_us = 5
    database.script = [errors.ReadOnlySqlTransaction("read-only"), errors.AdminShutdown("shutting down")]
    seen: list[int | None] = []

    async def sleep(seconds: float) -> None:
        seen.append(persister.away_since_us)
        await clock.sleep(seconds)

    persister = Persister(database.write, clock_us=clock, sleep=sleep, jitter=lambda: 1.0)
    await persister.persist([start_of("a")])
    assert seen == [5, 5]


async def test_a_deadlock_is_no_outage(caplog: pytest.LogCaptureFixture):
    """It is tried again without a word."""
    database = Database()
    database.script = [errors.DeadlockDetected("deadlock detected"), errors.SerializationFailure("could not serialize")]
    written = await persister_on(database, Clock()).persist([start_of("a")])
    assert written.persisted == Persisted(started=1)
    assert caplog.records == []


async def test_a_wrong_set_up_stops():
    """With one clear line, and without another attempt."""
    database = Database()
    database.script = [errors.UndefinedTable('relation "variant_monitoring" does not exist')]
    with pytest.raises(Stop, match=r'PostgreSQL: relation "variant_monitoring" does not exist'):
        await persister_on(database, Clock()).persist([start_of("a")])
    assert database.attempts == 1


async def test_a_mistake_of_this_program_is_let_through():
    """It is neither an outage nor bad data."""
    database = Database()
    database.script = [KeyError("oops")]
    with pytest.raises(KeyError, match="oops"):
        await persister_on(database, Clock()).persist([start_of("a")])


async def test_a_refused_record_is_given_back_after_three_tries_by_itself():
    """The others of the batch are written, those of its own variant too."""
    database = Database()
    database.refused = {"bad"}
    batch = [start_of("a"), start_of("bad"), start_of("b")]
    written = await persister_on(database, Clock()).persist(batch)
    assert [(rejected.record, rejected.reason) for rejected in written.rejected] == [(batch[1], "PostgreSQL: violates check constraint")]
    assert database.committed == [["a/p"], ["b/p"]]
    assert database.attempts == 1 + 1 + 3 + 1


async def test_a_record_that_is_taken_at_the_third_try_is_not_given_back():
    """Three tries are three."""
    database = Database()
    database.script = [errors.CheckViolation("no")] * 3
    written = await persister_on(database, Clock()).persist([start_of("a")])
    assert (written.rejected, written.persisted) == ([], Persisted(started=1))


async def test_an_outage_among_the_tries_rejects_nothing():
    """Only answers count as tries."""
    database = Database()
    database.script = [errors.CheckViolation("no"), errors.CheckViolation("no"), *[psycopg.OperationalError("gone")] * 9, errors.CheckViolation("no")]
    written = await persister_on(database, Clock()).persist([start_of("a")])
    assert (written.rejected, written.persisted) == ([], Persisted(started=1))


async def test_locked_rows_hold_up_only_their_variant(caplog: pytest.LogCaptureFixture):
    """Others of the same call and of later calls are written; the locked variant's records keep the order of the calls."""
    database, clock = Database(), Clock()
    database.locked = {"a"}
    persister = persister_on(database, clock)
    first = asyncio.create_task(persister.persist([start_of("a", "1"), start_of("b", "1"), start_of("a", "2")]))
    second = asyncio.create_task(persister.persist([start_of("c", "1"), start_of("a", "3")]))
    third = await persister.persist([start_of("d", "1")])
    assert third.persisted == Persisted(started=1)
    await until(lambda: len(database.committed) == 3)
    assert (first.done(), second.done(), persister.held_variants, persister.away_since_us) == (False, False, 1, None)
    assert sorted(database.committed) == [["b/1"], ["c/1"], ["d/1"]]
    database.locked.clear()
    assert ((await first).persisted, (await second).persisted) == (Persisted(started=3), Persisted(started=2))
    assert database.committed[3:] == [["a/1"], ["a/2"], ["a/3"]]
    assert persister.held_variants == 0
    assert len(caplog.records) == 1


async def test_a_later_call_does_not_overtake_an_earlier_one_that_pauses():
    """The lock is gone and the second call could write at once, but the first end has to win."""
    database, gate = Database(), asyncio.Event()
    database.locked = {"a"}
    pauses = 0

    async def sleep(seconds: float) -> None:
        nonlocal pauses
        pauses += 1
        await (gate.wait() if pauses == 1 else asyncio.sleep(seconds * 0))

    persister = Persister(database.write, clock_us=Clock(), sleep=sleep, jitter=lambda: 1.0)
    first = asyncio.create_task(persister.persist([start_of("a", "1")]))
    await until(lambda: pauses)
    second = asyncio.create_task(persister.persist([start_of("a", "2")]))
    database.locked.clear()
    for _ in range(20):
        await asyncio.sleep(0)
    assert database.committed == []
    gate.set()
    await asyncio.gather(first, second)
    assert database.committed == [["a/1"], ["a/2"]]


async def test_a_lock_on_everything_is_not_probed_row_by_row():
    """Each probe takes as long as a lock time-out: after three in a row the rest waits."""
    database = Database()
    variants = [f"v{number}" for number in range(100)]
    database.locked = set(variants)
    persister = persister_on(database, Clock())
    call = asyncio.create_task(persister.persist([start_of(variant) for variant in variants]))
    await until(lambda: persister.held_variants)
    assert database.attempts == 1 + 3
    database.locked.clear()
    assert (await call).persisted == Persisted(started=100)


async def test_a_record_that_takes_too_long_holds_up_only_its_variant(caplog: pytest.LogCaptureFixture):
    """As the kill of a variant with very many posts. The batch is tried twice, then one by one; nothing is given back, and the order stays."""
    database, clock = Database(), Clock()
    database.slow = {"a"}
    persister = persister_on(database, clock)
    first = asyncio.create_task(persister.persist([start_of("b", "1"), start_of("a", "1"), start_of("c", "1"), start_of("a", "2")]))
    await until(lambda: persister.held_variants)
    assert database.attempts == 2 + 3
    second = asyncio.create_task(persister.persist([start_of("a", "3"), start_of("d", "1")]))
    third = await persister.persist([start_of("e", "1")])
    assert third.persisted == Persisted(started=1)
    await until(lambda: max(clock.pauses) == 10)
    assert (first.done(), second.done(), persister.held_variants, persister.away_since_us) == (False, False, 1, None)
    assert sorted(database.committed) == [["b/1"], ["c/1"], ["d/1"], ["e/1"]]
    database.slow.clear()
    assert [await first, await second] == [Written(Persisted(started=4)), Written(Persisted(started=2))]
    assert database.committed[4:] == [["a/1"], ["a/2"], ["a/3"]]
    assert persister.held_variants == 0
    assert "records of 1 variant(s) wait and are tried again, the others go on: PostgreSQL: canceling statement due to statement timeout" in caplog.messages


@pytest.mark.parametrize("error", [errors.QueryCanceled("canceling statement due to statement timeout"), TimeoutError()])
async def test_one_time_out_splits_no_batch(error: Exception):
    """PostgreSQL may be slow for a moment; it may also answer nothing at all for a moment."""
    database, clock = Database(), Clock()
    database.script = [error]
    assert (await persister_on(database, clock).persist([start_of("a"), start_of("b")])).persisted == Persisted(started=2)
    assert (database.committed, clock.pauses) == ([["a/p", "b/p"]], [0.1])


async def test_a_postgresql_that_answers_nothing_takes_no_records():
    """Also when it was asked for one only, who then waits by itself."""
    database = Database()
    database.script = [TimeoutError()] * 2
    persister = persister_on(database, Clock())
    call = asyncio.create_task(persister.persist([start_of("a")]))
    await until(lambda: persister.held_variants)
    assert persister.away_since_us == 0
    assert (await call, persister.away_since_us) == (Written(Persisted(started=1)), None)


async def test_a_postgresql_that_is_slow_with_everything_is_asked_rarely():
    """However many variants wait: a few tries, and then long pauses between any two, until it takes a record again."""
    database, gate = Database(), asyncio.Event()
    variants = [f"v{number}" for number in range(100)]
    database.slow = set(variants)

    async def sleep(seconds: float) -> None:
        await (gate.wait() if seconds >= LONGEST_PAUSE_SECONDS else asyncio.sleep(0))

    persister = Persister(database.write, clock_us=Clock(), sleep=sleep, jitter=lambda: 1.0)
    call = asyncio.create_task(persister.persist([start_of(variant) for variant in variants]))
    for _ in range(1_000):
        await asyncio.sleep(0)
    assert (persister.held_variants, database.committed, persister.away_since_us) == (100, [], 0)
    assert database.attempts < 2 + 3 + 2 * 3
    database.slow.clear()
    gate.set()
    assert await call == Written(Persisted(started=100))
    assert persister.away_since_us is None


async def test_a_cancelled_call_does_not_block_its_variant():
    """As when partitions are taken away: the records come again, and what follows must not wait for ever."""
    database = Database()
    database.locked = {"a"}
    persister = persister_on(database, Clock())
    call = asyncio.create_task(persister.persist([start_of("a", "1")]))
    await until(lambda: persister.held_variants)
    follower = asyncio.create_task(persister.persist([start_of("a", "2")]))
    for _ in range(5):
        await asyncio.sleep(0)
    call.cancel()
    database.locked.clear()
    assert (await follower).persisted == Persisted(started=1)
    assert call.cancelled()


async def test_a_wrong_set_up_found_while_waiting_for_a_lock_stops_the_call():
    """The one exception comes out, not a group."""
    database = Database()
    database.locked = {"a"}
    persister = persister_on(database, Clock())
    call = asyncio.create_task(persister.persist([start_of("a")]))
    await until(lambda: persister.held_variants)
    database.script = [errors.InsufficientPrivilege("permission denied")]
    with pytest.raises(Stop, match="permission denied"):
        await call


@pytest.mark.parametrize(("attempt", "jitter", "seconds"), [(0, 1.0, 0.1), (0, 0.0, 0.0), (6, 1.0, 6.4), (7, 1.0, 10.0), (10_000, 1.0, 10.0), (10_000, 0.5, 5.0)])
def test_pauses_grow_from_a_tenth_to_ten_seconds(attempt: int, jitter: float, seconds: float):
    """Doubling, with full jitter; also after a weekend of attempts."""
    assert pause_seconds(attempt, jitter) == pytest.approx(seconds)

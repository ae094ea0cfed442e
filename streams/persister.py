"""Gets every monitoring record into PostgreSQL, however long it takes; says which ones it will never take."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from models.errors import Reject, Stop
from models.monitoring_record import MonitoringRecord
from streams.database import DRIVER_ERRORS, PATIENCE_SECONDS, classify, explain, sqlstate
from streams.persistence import Persisted

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 10.0
TRIES_OF_REFUSED_RECORD = 3
TRIES_OF_LATE_BATCH = 2
"""After so many time-outs in a row its variants are tried one by one: it may be one record that takes so long."""
MOST_BLOCKED_IN_A_ROW = 3
"""After so many the cause is likely one lock on all, or a PostgreSQL that is slow with all: the rest is not tried one by one, each for the length of a time-out."""

_LOCKED = "55P03"
_LATE = "57014"
_COLLISION = "40"  # class of deadlocks and serialization failures: PostgreSQL is there, and the next attempt will do

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that PostgreSQL refuses: for the dead letters, before its chunk is acknowledged."""

    record: MonitoringRecord
    reason: str


@dataclass(slots=True)
class Written:
    """What became of a batch: each record is in the database, or among ``rejected``."""

    persisted: Persisted = field(default_factory=Persisted)
    rejected: list[Rejected] = field(default_factory=list)

    def add(self, persisted: Persisted) -> None:
        """Count one more transaction; ``+=`` around an ``await`` would lose what others add meanwhile."""
        self.persisted += persisted


class _Blocked(Exception):
    """Another session holds a row or table."""


class _Late(_Blocked):
    """It takes longer than it may."""


class _Refused(Exception):
    """PostgreSQL will not have the batch as it is."""


def pause_seconds(attempt: int, jitter: float) -> float:
    """Back-off with full jitter.

    Args:
        attempt: Of failures so far, from 0.
        jitter: Random, in [0, 1).
    """
    return jitter * min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(attempt, 16))


class Persister:
    """Writes batches with patience. Calls may overlap: those of one variant are written in the order of the calls.

    Away, starting, full, read-only: the same batch is tried for ever. Rows that another session locks, records that take longer than
    they may: their variants wait by themselves, and the others, also of later calls, go on. So let a few calls run at once, and
    acknowledge each as it returns.

    Args:
        write: ``streams.persistence.persist`` on an engine.
        clock_us: Wall clock in microseconds since the epoch.
        sleep: Pauses for seconds.
        jitter: Random numbers in [0, 1).

    Attributes:
        away_since_us: Since when PostgreSQL has taken no records, or None: for readiness.
    """

    def __init__(
        self,
        write: Callable[[Sequence[MonitoringRecord]], Awaitable[Persisted]],
        *,
        clock_us: Callable[[], int],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.away_since_us: int | None = None
        self._write = write
        self._clock_us = clock_us
        self._sleep = sleep
        self._jitter = jitter
        self._turn = asyncio.Lock()
        self._held: dict[str, asyncio.Task[None]] = {}  # the last that waits, for each variant that waits by itself
        self._slots = asyncio.Semaphore(2)  # leaves connections of the pool to the batches
        self._late_in_a_row = 0

    @property
    def held_variants(self) -> int:
        """How many variants wait by themselves: another session has locked their rows, or PostgreSQL is too slow with them."""
        return len(self._held)

    async def persist(self, records: Sequence[MonitoringRecord], waits: Callable[[], None] = lambda: None) -> Written:
        """Return when each record is written, or was refused three times by itself. Nothing is dropped, and nothing written twice.

        Args:
            records: In their order.
            waits: Called when all that is left are records of variants that wait by themselves.

        Raises:
            Stop: The set-up is wrong (password, database, schema, rights): exit, and acknowledge nothing of this call.
        """
        written = Written()
        try:
            async with asyncio.TaskGroup() as waiting, self._turn:  # others get their turn while this call waits
                blocked = await self._write_what_goes(records, written)
                for variant_id, queue in blocked.items():
                    task = waiting.create_task(self._catch_up(queue, written, self._held.get(variant_id)))
                    self._held[variant_id] = task
                    task.add_done_callback(partial(self._let_go, variant_id))
                if blocked:
                    waits()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        return written

    async def _write_what_goes(self, records: Sequence[MonitoringRecord], written: Written) -> dict[str, deque[MonitoringRecord]]:
        """Write the records of all variants that nothing blocks; return the others', in order."""
        blocked = _by_variant(record for record in records if record.variant_id in self._held)
        free = [record for record in records if record.variant_id not in self._held]
        try:
            if free:
                written.add(await self._persevere(free))
        except (_Blocked, _Refused):
            blocked |= await self._write_singly(free, written)
        return blocked

    async def _write_singly(self, records: Sequence[MonitoringRecord], written: Written) -> dict[str, deque[MonitoringRecord]]:
        blocked: dict[str, deque[MonitoringRecord]] = {}
        blocked_in_a_row, reason = 0, ""
        for variant_id, queue in _by_variant(records).items():
            if blocked_in_a_row == MOST_BLOCKED_IN_A_ROW:
                blocked[variant_id] = queue
                continue
            try:
                await self._advance(queue, written)
                blocked_in_a_row = 0
            except _Blocked as error:
                blocked[variant_id] = queue
                blocked_in_a_row, reason = blocked_in_a_row + 1, str(error)
        if blocked:
            log.warning("records of %d variant(s) wait and are tried again, the others go on: %s", len(blocked), reason)
        return blocked

    async def _catch_up(self, queue: deque[MonitoringRecord], written: Written, before: asyncio.Task[None] | None) -> None:
        """Write one variant's records when those that wait before them are done and nothing blocks them any more."""
        if before is not None:
            await asyncio.wait([before])
        attempt = 0
        while queue:
            await self._sleep(pause_seconds(attempt, self._jitter()))
            async with self._slots:
                try:
                    await self._advance(queue, written)
                except _Blocked as error:
                    attempt += 1
                    if isinstance(error, _Late):  # pauses with its slot: however many are late, a slow PostgreSQL is asked no more often
                        await self._sleep(pause_seconds(self._late_in_a_row, self._jitter()))

    def _let_go(self, variant_id: str, done: asyncio.Task[None]) -> None:
        if self._held.get(variant_id) is done:
            del self._held[variant_id]

    async def _advance(self, queue: deque[MonitoringRecord], written: Written) -> None:
        """Write from the front, a transaction each; stops with ``_Blocked`` at the first that is."""
        while queue:
            await self._write_one(queue[0], written)
            queue.popleft()

    async def _write_one(self, record: MonitoringRecord, written: Written) -> None:
        reason = ""
        for _ in range(TRIES_OF_REFUSED_RECORD):
            try:
                written.add(await self._persevere([record]))
            except _Refused as refused:
                reason = str(refused)
            else:
                return
        written.rejected.append(Rejected(record, reason))

    async def _persevere(self, records: Sequence[MonitoringRecord]) -> Persisted:
        """Try until PostgreSQL has answered.

        Raises:
            _Blocked: With the reason: a lock time-out, or too little time for one record, or again and again for several.
            _Refused: With the reason.
            Stop: The set-up is wrong.
        """
        attempt = 0
        while True:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    persisted = await self._write(records)
            except DRIVER_ERRORS as error:
                self._judge(error, is_one=len(records) == 1)
            else:
                self._is_back()
                return persisted
            await self._sleep(pause_seconds(attempt, self._jitter()))
            attempt += 1

    def _judge(self, error: Exception, *, is_one: bool) -> None:
        """Return if the same is to be tried again."""
        kind = classify(error)
        if kind is Stop:
            raise Stop(explain(error)) from error
        code = sqlstate(error)
        if code == _LOCKED:
            self._is_back()
            raise _Blocked(explain(error)) from error
        if kind is Reject:
            self._is_back()
            raise _Refused(explain(error)) from error
        is_its_own = is_one and code == _LATE  # says nothing of others
        if self.away_since_us is None and not (is_its_own or (code or "").startswith(_COLLISION)):
            self.away_since_us = self._clock_us()
            log.error("PostgreSQL takes no records, they wait until it does: %s", explain(error))
        if code == _LATE or isinstance(error, TimeoutError):
            self._late_in_a_row += 1
            if is_one or self._late_in_a_row >= TRIES_OF_LATE_BATCH:
                raise _Late(explain(error)) from error

    def _is_back(self) -> None:
        self._late_in_a_row = 0
        if self.away_since_us is not None:
            log.info("PostgreSQL takes records again, after %.1f s", (self._clock_us() - self.away_since_us) / 1e6)
            self.away_since_us = None


def _by_variant(records: Iterable[MonitoringRecord]) -> dict[str, deque[MonitoringRecord]]:
    queues: dict[str, deque[MonitoringRecord]] = {}
    for record in records:
        queues.setdefault(record.variant_id, deque()).append(record)
    return queues

"""What outlives a worker: the log. Source topics are given; everything else is appended by the worker under test."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from faust.types import TP

from streams.ports import Place
from streams.tables import Recovered
from tests.simulation.loop import SimulatedLoop


class Record(NamedTuple):
    """A record of a source topic, as a consumer sees it; ``timestamp`` is its append time in milliseconds."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class Appended(NamedTuple):
    """A record that the worker has appended."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


SECOND = 1_000_000
Name = tuple[str, int]
"""A topic and a partition that workers write to."""


Straying = tuple[int, Name, list["Ticket"]]
"""When records arrive at last, where, and which."""


@dataclass(slots=True)
class Broker:
    """Topics and committed offsets. A source record can be read from its append time plus ``visible_after`` (microseconds) on.

    Attributes:
        appended: What workers have written. Where compaction has taken a record away there is None.
        straying: What workers had sent that lost their partitions, and when it arrives.
    """

    sources: Mapping[TP, list[Record]]
    visible_after: int = 0
    appended: dict[Name, list[Appended | None]] = field(default_factory=lambda: defaultdict(list))
    committed: dict[TP, int] = field(default_factory=dict)
    straying: list[Straying] = field(default_factory=list)
    compacted: int = 0
    _timestamps: dict[TP, list[int]] = field(default_factory=dict)
    _recovered: dict[Name, Recovered] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._timestamps = {tp: [record.timestamp for record in records] for tp, records in self.sources.items()}

    @property
    def partitions(self) -> set[int]:
        """All there are."""
        return {tp.partition for tp in self.sources}

    def end(self, tp: TP, now: int) -> int:
        """Return the end offset of a source partition at ``now``."""
        return bisect_right(self._timestamps[tp], (now - self.visible_after) // 1_000)

    def append(self, name: Name, ticket: Ticket, now: int) -> int:
        """Append a record; returns its offset."""
        log = self.appended[name]
        log.append(Appended(len(log), now // 1_000, ticket.key, ticket.value, ticket.headers))
        return len(log) - 1

    def told(self, topic: str) -> Iterator[Appended]:
        """Yield all records of a topic, partition by partition."""
        for (name, _), records in list(self.appended.items()):
            if name == topic:
                yield from (record for record in records if record is not None)

    def count_told(self, topics: Collection[str]) -> int:
        """Return how many records there are on these topics."""
        return sum(len(records) for (name, _), records in self.appended.items() if name in topics)

    def recovered(self, topic: str, partition: int, end: int | None = None) -> Recovered:
        """Return what a changelog says up to the offset ``end``; by default, all of it."""
        log = self.appended[topic, partition]
        end = len(log) if end is None else end
        known = self._recovered.get((topic, partition))
        if known is None or known.end > end:
            known = self._recovered[topic, partition] = Recovered({})
        records: Any = (record for record in log[known.end : end] if record is not None)
        known.apply(records)
        known.end = end
        return Recovered(dict(known.content), known.furthest, end, dict(known.hidden), start=0)

    def compact(self, topic: str, partition: int, before: int) -> None:
        """Take away all records appended before the moment ``before`` that another one of these stands behind, as a broker may at any time."""
        log = self.appended[topic, partition]
        for offset in _outdated(log, before):
            log[offset] = None
            self.compacted += 1
        self._recovered.pop((topic, partition), None)

    def content_if_compacted(self, topic: str, partition: int, before: int) -> dict[bytes, bytes]:
        """Return what a changelog would say if ``compact`` were called."""
        log = self.appended[topic, partition]
        outdated, recovered = _outdated(log, before), Recovered({})
        records: Any = (record for record in log if record is not None and record.offset not in outdated)
        recovered.apply(records)
        return recovered.content


def _outdated(log: list[Appended | None], before: int) -> set[int]:
    old = [record for record in log if record is not None and record.timestamp * 1_000 < before]
    last = {record.key: record.offset for record in old}
    return {record.offset for record in old if last[record.key] != record.offset}


@dataclass(slots=True, eq=False)
class Sent:
    """Records on their way, and what came of them.

    Attributes:
        course: Records of one course follow one another, and none has got lost in between.
    """

    arrival: asyncio.Future[bool]
    course: object = None
    left: int = 0
    has_failed: bool = False
    first: int = -1
    last: int = -1


@dataclass(slots=True, eq=False)
class Ticket:
    """One of the records that were sent together."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    sent: Sent


class SimulatedLog:
    """The way to the broker of one life of the worker. Records of one partition arrive in order, some time after they were sent.

    Where a record gets lost, those sent after it to the same partition do too: that is what an idempotent producer sees to.
    """

    def __init__(self, broker: Broker, loop: SimulatedLoop, rng: Random, failures: float, *, strays: bool = False) -> None:
        self._broker, self._loop, self._rng, self._failures, self._strays = broker, loop, rng, failures, strays
        self._queues: dict[Name, deque[Ticket]] = defaultdict(deque)
        self._courses: dict[Name, object] = {}
        self._busy: set[Name] = set()
        self.failed = self.strayed = 0
        self._expected: list[Straying] = []
        self.expect_strays()

    def expect_strays(self) -> None:
        """Let what others have sent arrive in this life, if it lasts so long."""
        for entry in self._broker.straying:
            if entry not in self._expected:
                self._expected.append(entry)
                self._loop.at(max(entry[0], self._loop.now), self._let_arrive, entry)

    async def send(self, topic: str, key: bytes | None, value: bytes | None, partition: int | None = None) -> Sent:
        """Append a record, some time."""
        sent = await self.send_all(topic, partition or 0, [(key, value)])
        assert sent is not None
        return sent

    async def send_all(
        self, topic: str, partition: int, records: Iterable[tuple[bytes | None, bytes | None]], headers: Sequence[tuple[str, bytes]] = (), on: object | None = None
    ) -> Sent | None:
        """Append records, one after the other: any number of them may be there after a crash."""
        rng, name = self._rng, (topic, partition)
        course = self._courses.setdefault(name, object())
        if on is not None and course is not on:
            return None
        queue, common = self._queues[name], list(headers)
        sent = Sent(self._loop.create_future(), course)
        records = list(records)
        sent.left = len(records)
        for key, value in records:
            if rng.random() < 0.2:
                await asyncio.sleep(rng.choice((0, 0, 0.002)))  # the producer's buffer is full
            queue.append(Ticket(key, value, common, sent))
            if name not in self._busy:
                self._busy.add(name)
                self._later(self._append, name)
        return sent

    async def delivered(self, sent: Sent) -> bool:
        """Wait for the acknowledgement; False if there will be none, whether it has arrived or not."""
        return await sent.arrival

    def course(self, sent: Sent) -> object:
        """Return what is the same as long as nothing gets lost."""
        return sent.course

    def place(self, sent: Sent) -> Place:
        """Return where the records have arrived."""
        return Place(sent.first, sent.last + 1)

    async def read(self, topic: str, partition: int, first: int, end: int) -> list[Any]:
        """Read what has been appended."""
        await asyncio.sleep(self._rng.choice((0, 0.005)))
        return [record for record in self._broker.appended[topic, partition][first:end] if record is not None]

    def _later(self, work: Any, *args: Any) -> None:
        rng = self._rng
        delay = rng.randrange(200, 3_000) if rng.random() < 0.95 else rng.randrange(3_000, 300_000)
        self._loop.at(self._loop.now + delay, work, *args)

    def _append(self, name: Name) -> None:
        queue, rng = self._queues[name], self._rng
        batch = [queue.popleft() for _ in range(rng.randint(1, len(queue)))]
        fails = rng.random() < self._failures
        if fails and rng.random() < 0.5:
            batch += queue
            queue.clear()
            self._courses[name] = object()
            if self._strays and rng.random() < 0.5:  # it had been handed to the network
                self._stray(self._loop.now + rng.randrange(SECOND), name, batch)
                self.expect_strays()
        else:
            self._arrive(name, batch)
        self.failed += fails
        self._later(self._acknowledge, name, batch, not fails)

    def _arrive(self, name: Name, tickets: Iterable[Ticket]) -> None:
        now = self._loop.now
        for ticket in tickets:
            sent = ticket.sent
            sent.last = self._broker.append(name, ticket, now)
            if sent.first < 0:
                sent.first = sent.last

    def _acknowledge(self, name: Name, batch: list[Ticket], arrived: bool) -> None:
        for ticket in batch:
            sent = ticket.sent
            sent.left -= 1
            sent.has_failed = sent.has_failed or not arrived
            if not sent.left and not sent.arrival.done():
                sent.arrival.set_result(not sent.has_failed)
        if self._queues[name]:
            self._later(self._append, name)
        else:
            self._busy.discard(name)

    def crash(self, *, strays: bool = False) -> None:
        """Of what was under way, the first few records of each partition arrive, and the others never do; if ``strays``, all do later."""
        rng = self._rng
        for name, queue in self._queues.items():
            if not queue:
                continue
            self._arrive(name, [queue.popleft() for _ in range(rng.randint(0, len(queue)))])
            at = self._loop.now
            while strays and queue:
                at += rng.choice((0, rng.randrange(3_000), rng.randrange(100_000), rng.randrange(2_000_000), rng.randrange(20_000_000)))
                self._stray(at, name, [queue.popleft() for _ in range(rng.randint(1, len(queue)))])
            queue.clear()

    def _stray(self, at: int, name: Name, tickets: list[Ticket]) -> None:
        self._broker.straying.append((at, name, tickets))

    def _let_arrive(self, entry: Straying) -> None:
        if entry in self._broker.straying:  # another worker, living at the same time, may have let it
            self._broker.straying.remove(entry)
            self.strayed += len(entry[2])
            self._arrive(*entry[1:])

"""What outlives a worker: the log. Source topics are given; everything else is appended by the worker under test."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from faust.types import TP

from tests.simulation.loop import SimulatedLoop


@dataclass(frozen=True, slots=True)
class Record:
    """A record of a source topic, as a consumer sees it; ``timestamp`` is its append time in milliseconds."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Appended:
    """A record that the worker has appended, in its ``life``."""

    key: bytes | None
    value: bytes | None
    life: int


@dataclass(slots=True)
class Broker:
    """Topics and committed offsets. A source record can be read from its append time plus ``visible_after`` (microseconds) on.

    Attributes:
        straying: What a worker had sent that lost its partitions while it hung, and that arrives later.
    """

    sources: Mapping[TP, list[Record]]
    visible_after: int = 0
    appended: dict[tuple[str, int], list[Appended]] = field(default_factory=lambda: defaultdict(list))
    committed: dict[TP, int] = field(default_factory=dict)
    straying: list[tuple[tuple[str, int], list[Appended]]] = field(default_factory=list)
    _timestamps: dict[TP, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._timestamps = {tp: [record.timestamp for record in records] for tp, records in self.sources.items()}

    def end(self, tp: TP, now: int) -> int:
        """Return the end offset of a source partition at ``now``."""
        return bisect_right(self._timestamps[tp], (now - self.visible_after) // 1_000)

    def table(self, topic: str, partition: int) -> dict[bytes, bytes]:
        """Return the last value of each key of a changelog."""
        content: dict[bytes, bytes] = {}
        for record in self.appended[topic, partition]:
            assert record.key is not None
            if record.value is None:
                content.pop(record.key, None)
            else:
                content[record.key] = record.value
        return content


@dataclass(slots=True, eq=False)
class Ticket:
    """A record on its way."""

    record: Appended
    arrival: asyncio.Future[bool]


class SimulatedLog:
    """The way to the broker of one life of the worker. Records of one partition arrive in order, some time after they were sent."""

    def __init__(self, broker: Broker, loop: SimulatedLoop, rng: Random, life: int, failures: float) -> None:
        self._broker, self._loop, self._rng, self._life, self._failures = broker, loop, rng, life, failures
        self._queues: dict[tuple[str, int], deque[Ticket]] = defaultdict(deque)
        self._busy: set[tuple[str, int]] = set()
        self.failed = 0

    async def send(self, topic: str, key: bytes | None, value: bytes | None, partition: int | None = None) -> Ticket:
        """Append a record, some time."""
        if self._rng.random() < 0.2:
            await asyncio.sleep(self._rng.choice((0, 0, 0.002)))  # the producer's buffer is full
        ticket = Ticket(Appended(key, value, self._life), self._loop.create_future())
        name = topic, partition or 0
        self._queues[name].append(ticket)
        if name not in self._busy:
            self._busy.add(name)
            self._later(self._append, name)
        return ticket

    async def send_all(self, topic: str, partition: int, records: Iterable[tuple[bytes, bytes | None]]) -> list[Ticket]:
        """Append records, one after the other: any number of them may be there after a crash."""
        return [await self.send(topic, key, value, partition) for key, value in records]

    async def delivered(self, sent: Ticket | list[Ticket]) -> bool:
        """Wait for the acknowledgement; False if there will be none, whether it has arrived or not."""
        tickets = sent if isinstance(sent, list) else [sent]
        return all([await ticket.arrival for ticket in tickets])

    def _later(self, work: Any, *args: Any) -> None:
        rng = self._rng
        delay = rng.randrange(200, 3_000) if rng.random() < 0.95 else rng.randrange(3_000, 300_000)
        self._loop.at(self._loop.now + delay, work, *args)

    def _append(self, name: tuple[str, int]) -> None:
        queue = self._queues[name]
        batch = [queue.popleft() for _ in range(self._rng.randint(1, len(queue)))]
        fails = self._rng.random() < self._failures
        if not fails or self._rng.random() < 0.5:
            self._broker.appended[name].extend(ticket.record for ticket in batch)
        self.failed += fails
        self._later(self._acknowledge, name, batch, not fails)

    def _acknowledge(self, name: tuple[str, int], batch: list[Ticket], arrived: bool) -> None:
        for ticket in batch:
            if not ticket.arrival.done():
                ticket.arrival.set_result(arrived)
        if self._queues[name]:
            self._later(self._append, name)
        else:
            self._busy.discard(name)

    def crash(self, *, strays: bool = False) -> None:
        """Of what was under way, the first few records of each partition arrive, and the others never do; if ``strays``, all do later."""
        for name, queue in self._queues.items():
            arriving = 0 if strays else self._rng.randint(0, len(queue))
            self._broker.appended[name].extend(queue.popleft().record for _ in range(arriving))
            if strays and queue:
                self._broker.straying.append((name, [ticket.record for ticket in queue]))
            queue.clear()

    def let_strays_arrive(self) -> None:
        """Let what a hanging worker had sent come in, some time."""
        for name, records in self._broker.straying:
            self._loop.at(self._loop.now + self._rng.choice((300_000, 1_000_000, 2_000_000)), self._broker.appended[name].extend, records)
        self._broker.straying.clear()

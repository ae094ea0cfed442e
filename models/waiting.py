"""Interactions that came before their ``variant_posted``: held, in order, until it comes or their time is up."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from models.events import Interaction

FOREVER = 2**63
SWEPT_AT_ONCE = 4
"""Entries that are looked at for each waiter that comes or goes, while most have gone: so at most four times as many are held as wait."""
SWEPT_IN_ONE_TURN = 1_000
"""Entries that are looked at when many go together: then more are held for a while."""
SEGMENT_BYTES = 256 * 1024
"""Most bytes of keys and values in one segment, the first of which may be larger: Kafka takes records of up to 1 MiB."""


@dataclass(slots=True, eq=False)
class Waiter:
    """One interaction that waits, with its record as it came (for the dead letter, and for the table).

    Attributes:
        until: When everything appended before this moment (microseconds) has been read, the wait is over.
        segment: Offset that names the durable segment it is part of; None while it is in none.
        restored: It was read by an earlier process.
    """

    event: Interaction
    offset: int
    append_us: int
    key: bytes
    value: bytes
    until: int
    segment: int | None = None
    restored: bool = False
    gone: bool = False


Due = tuple[int, int, Waiter]


def _arrival(waiter: Waiter) -> int:
    return waiter.offset


@dataclass(slots=True)
class Waiting:
    """All that wait in one partition.

    Attributes:
        count: How many wait now.
    """

    _by_variant: dict[str, dict[Waiter, None]] = field(default_factory=dict)  # each in order of arrival
    _due: list[Due] = field(default_factory=list)  # a heap, as is the next: each waiter is in one of them
    _unswept: list[Due] = field(default_factory=list)
    _fresh: dict[str, list[Waiter]] = field(default_factory=dict)
    _segments: dict[tuple[str, int], list[Waiter]] = field(default_factory=dict)
    _changed: dict[tuple[str, int], None] = field(default_factory=dict)  # in order: a set of strings has another one in each process
    _restored: set[int] = field(default_factory=set)
    count: int = 0

    def add(self, waiter: Waiter) -> None:
        """Let ``waiter`` wait, behind those already there."""
        variant_id = waiter.event.variant_id
        self._by_variant.setdefault(variant_id, {})[waiter] = None
        heapq.heappush(self._due, (waiter.until, waiter.offset, waiter))
        self.count += 1
        if waiter.segment is None:
            self._fresh.setdefault(variant_id, []).append(waiter)
        else:
            self._segments.setdefault((variant_id, waiter.segment), []).append(waiter)
        if waiter.restored:
            self._restored.add(waiter.offset)
        self.sweep(SWEPT_AT_ONCE)

    def leave_out(self, waiter: Waiter) -> None:
        """Do not take in a waiter that an earlier process had made durable: its segment is written without it."""
        if waiter.segment is not None:
            name = (waiter.event.variant_id, waiter.segment)
            self._segments.setdefault(name, [])
            self._changed[name] = None

    def holds(self, offset: int) -> bool:
        """Tell whether the record at ``offset`` was waiting already when this process took over."""
        return offset in self._restored

    def of(self, variant_id: str) -> Iterator[Waiter]:
        """Yield the variant's waiters in order of arrival."""
        return iter(self._by_variant.get(variant_id, ()))

    def count_of(self, variant_id: str) -> int:
        """Return how many wait for the variant."""
        return len(self._by_variant.get(variant_id, ()))

    def find(self, variant_id: str, wanted: Callable[[Waiter], bool]) -> list[Waiter]:
        """Return the variant's waiters that are ``wanted``, in order of arrival."""
        return sorted((waiter for waiter in self.of(variant_id) if wanted(waiter)), key=_arrival)  # one that was delivered again came last

    def remove(self, waiters: Sequence[Waiter]) -> None:
        """Remove waiters that are here; some of the memory of very many is left to ``sweep``."""
        for waiter in waiters:
            waiter.gone = True
            variant_id = waiter.event.variant_id
            if waiter.segment is not None:
                self._changed[variant_id, waiter.segment] = None
            there = self._by_variant[variant_id]
            del there[waiter]
            if not there:
                del self._by_variant[variant_id]
        self.count -= len(waiters)
        self.sweep(min(SWEPT_AT_ONCE * len(waiters), SWEPT_IN_ONE_TURN))

    def expired(self, read_through: int) -> Iterator[Waiter | None]:
        """Remove and yield those whose wait is over once all appended before ``read_through`` has been read, oldest first; None for each that had gone before."""
        while (due := self._first()) and (due[0][2].gone or due[0][0] <= read_through):
            waiter = heapq.heappop(due)[2]
            if waiter.gone:
                yield None
            else:
                self.remove((waiter,))
                yield waiter

    def pushed_out(self) -> Waiter | None:
        """Remove and return the one whose wait would end first, to make room; None if none waits."""
        return next((waiter for waiter in self.expired(FOREVER) if waiter is not None), None)

    def _first(self) -> list[Due]:
        """Return the heap that begins with the wait that ends first; an empty one if nobody waits."""
        if self._due and self._unswept:
            return self._due if self._due[0][:2] <= self._unswept[0][:2] else self._unswept
        return self._due or self._unswept

    def sweep(self, steps: int = SWEPT_IN_ONE_TURN) -> bool:
        """While most have gone, free some: a few at a time, for there may be a million. A heap that has lost its last entry is a heap still.

        Returns:
            True if there is more to free.
        """
        for _ in range(steps):
            if len(self._due) + len(self._unswept) <= 2 * self.count:
                return False
            if not self._unswept:
                self._due, self._unswept = self._unswept, self._due
            entry = self._unswept.pop()
            if not entry[2].gone:
                heapq.heappush(self._due, entry)
        return len(self._due) + len(self._unswept) > 2 * self.count

    def changed_segments(self) -> list[tuple[str, int, list[Waiter]]]:
        """Gather new waiters into segments; return (variant, segment, its waiters now) of each to write, or to delete if it is empty."""
        for variant_id, fresh in self._fresh.items():
            size, name = SEGMENT_BYTES, (variant_id, 0)
            for waiter in fresh:
                if waiter.gone:
                    continue
                size += len(waiter.key) + len(waiter.value)
                if size > SEGMENT_BYTES:
                    size, name = len(waiter.key) + len(waiter.value), (variant_id, waiter.offset)
                    self._changed[name] = None
                waiter.segment = name[1]
                self._segments.setdefault(name, []).append(waiter)  # it may exist: its first one was given up, and delivered again
        self._fresh.clear()
        changes = []
        for name in self._changed:
            staying = [waiter for waiter in self._segments[name] if not waiter.gone]
            if staying:
                self._segments[name] = staying
            else:
                del self._segments[name]
            changes.append((*name, staying))
        self._changed.clear()
        return changes

"""Event ids that have counted: each counts once, also across a crash, without rewriting 100,000 ids at each flush."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

REMEMBERED = 100_000
"""A session remembers at least this many of its last event ids. Source: contract, section 3.2."""
TAIL = 32
"""This many ids still travel inside the session's own state; more become a segment, written once."""
SEGMENT_LIMIT = 8_192
"""Most ids in one segment (64 KiB)."""
FEW = 16
"""Up to so many ids are searched one by one: most sessions never have more, and a set costs each of them 700 bytes."""


class EventIds:
    """The last event ids of one session, as 64-bit hashes: a set to ask, and segments to persist.

    Attributes:
        tail: Hashes that no segment holds yet, oldest first.
        first: Number of the oldest segment still needed.
        segments: Packed hashes of segment ``first``, ``first + 1``, …, oldest first.
        known: All of them; None while there are at most ``FEW``, all of which are in the tail then.
    """

    __slots__ = ("first", "known", "segments", "tail")

    def __init__(self, tail: Iterable[int] = (), first: int = 0, segments: Iterable[bytes] = ()) -> None:
        self.tail = array("Q", tail)  # a list of numbers takes five times as much
        self.first = first
        self.segments = tuple(segments)
        self.known: set[int] | None = None
        if self.segments or len(self.tail) > FEW:
            self.known = set(self.tail)
            for packed in self.segments:
                self.known.update(_unpacked(packed))

    def __len__(self) -> int:
        return len(self.tail if self.known is None else self.known)

    def reserve(self, value: int) -> bool:
        """Remember the ``event_hash`` of an event id; return False if it was known already."""
        known = self.known
        if known is None:
            if value in self.tail:
                return False
            if len(self.tail) == FEW:
                self.known = {*self.tail, value}
        elif value in known:
            return False
        else:
            known.add(value)
        self.tail.append(value)
        return True

    def packed_tail(self) -> bytes:
        """Return the hashes that no segment holds, 8 bytes each."""
        return self.tail.tobytes()

    def seal(self) -> tuple[list[tuple[int, bytes]], list[int]]:
        """Move a tail that has grown beyond ``TAIL`` into segments, and forget the oldest segments beyond ``REMEMBERED``.

        Returns:
            (number, packed hashes) of each new segment, to be written before the state that counts on it; and the
            numbers of segments that may go once that state is written.
        """
        written: list[tuple[int, bytes]] = []
        dropped: list[int] = []
        if len(self.tail) > TAIL:
            self.known = self.known or set(self.tail)
            for start in range(0, len(self.tail), SEGMENT_LIMIT):
                packed = self.tail[start : start + SEGMENT_LIMIT].tobytes()
                written.append((self.first + len(self.segments), packed))
                self.segments += (packed,)
            self.tail = array("Q")
        known = self.known
        while known is not None and self.segments and len(known) - len(self.segments[0]) // 8 >= REMEMBERED:
            oldest, *rest = self.segments
            known.difference_update(_unpacked(oldest))
            self.segments = tuple(rest)
            dropped.append(self.first)
            self.first += 1
        return written, dropped


def _unpacked(packed: bytes) -> memoryview:
    return memoryview(packed).cast("Q")

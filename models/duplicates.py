"""Event ids that have counted: each counts once, also across a crash, without rewriting 100,000 ids at each flush."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable
from typing import Literal

REMEMBERED = 100_000
"""A session remembers at least this many of its last event ids. Source: contract, section 3.2."""
TAIL = 32
"""This many ids still travel inside the session's own state; more become a segment, written once."""
SEGMENT_LIMIT = 8_192
"""Most ids in one segment (64 KiB)."""
WIDTH = 8
"""Bytes of a hash."""
FEW = 64
"""Up to so many ids in segments, and as many in the tail, are searched as packed as they are: as quick as a set, which takes 90 to 170 bytes for each. Few sessions have more."""
FEWER = 8
"""Up to so many numbers are compared sooner than packed."""
_ORDER: Literal["little", "big"] = sys.byteorder  # of ``array.tobytes``


class EventIds:
    """The last event ids of one session, as 64-bit hashes: segments to persist, and a set to ask once they are many.

    Attributes:
        tail: Hashes that no segment holds yet, oldest first.
        first: Number of the oldest segment still needed.
        segments: Packed hashes of segment ``first``, ``first + 1``, …, oldest first.
        known: All of them; None while at most ``FEW`` are in segments, and as many in the tail.
    """

    __slots__ = ("_reported", "first", "known", "segments", "tail")

    def __init__(self, tail: Iterable[int] = (), first: int = 0, segments: Iterable[bytes] = ()) -> None:
        self.tail = array("Q", tail)  # a list of numbers takes five times as much
        self.first = first
        self.segments = tuple(segments)
        self._reported = 0
        self.known: set[int] | None = None
        if len(self) > FEW:
            self.known = self._all()

    def __len__(self) -> int:
        return len(self.tail) + sum(map(len, self.segments)) // WIDTH if self.known is None else len(self.known)

    def _all(self) -> set[int]:
        return set(self.tail).union(*map(_unpacked, self.segments))

    def reserve(self, value: int) -> bool:
        """Remember the ``event_hash`` of an event id; return False if it was known already."""
        known = self.known
        if known is None:
            tail = self.tail
            if value in tail if len(tail) <= FEWER else _holds(tail.tobytes(), value.to_bytes(WIDTH, _ORDER)):
                return False
            for segment in self.segments:
                if _holds(segment, value.to_bytes(WIDTH, _ORDER)):
                    return False
            if len(tail) == FEW:
                self.known = self._all()
                self.known.add(value)
        elif value in known:
            return False
        else:
            known.add(value)
        self.tail.append(value)
        return True

    def growth(self) -> int:
        """Return how many more there are than at the last call."""
        grown = len(self) - self._reported
        self._reported += grown
        return grown

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
            for start in range(0, len(self.tail), SEGMENT_LIMIT):
                packed = self.tail[start : start + SEGMENT_LIMIT].tobytes()
                written.append((self.first + len(self.segments), packed))
                self.segments += (packed,)
            self.tail = array("Q")
            if self.known is None and len(self) > FEW:
                self.known = self._all()
        known = self.known
        while known is not None and self.segments and len(known) - len(self.segments[0]) // WIDTH >= REMEMBERED:
            oldest, *rest = self.segments
            known.difference_update(_unpacked(oldest))
            self.segments = tuple(rest)
            dropped.append(self.first)
            self.first += 1
        return written, dropped


def _unpacked(packed: bytes) -> memoryview:
    return memoryview(packed).cast("Q")


def _holds(packed: bytes, value: bytes) -> bool:
    """Tell whether ``value`` stands there as one of the hashes, and not only as the end of one and the beginning of the next."""
    at = packed.find(value)
    while at >= 0 and at % WIDTH:
        at = packed.find(value, at + 1)
    return at >= 0

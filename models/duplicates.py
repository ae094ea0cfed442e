"""Event ids that have counted: each counts once, also across a crash, without rewriting 100,000 ids at each flush."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable

from models.ids import event_hash

REMEMBERED = 100_000
"""A session remembers at least this many of its last event ids. Source: contract, section 3.2."""
TAIL = 32
"""This many ids still travel inside the session's own state; more become a segment, written once."""
SEGMENT_LIMIT = 8_192
"""Most ids in one segment (64 KiB)."""


class EventIds:
    """The last event ids of one session, as 64-bit hashes: a set to ask, and segments to persist.

    Attributes:
        tail: Hashes that no segment holds yet, oldest first.
        first: Number of the oldest segment still needed.
        segments: Hashes of segment ``first``, ``first + 1``, …, oldest first.
    """

    __slots__ = ("_known", "first", "segments", "tail")

    def __init__(self, tail: Iterable[int] = (), first: int = 0, segments: Iterable[bytes] = ()) -> None:
        self.tail = array("Q", tail)
        self.first = first
        self.segments: deque[array[int]] = deque()
        self._known = set(self.tail)
        for packed in segments:
            hashes = array("Q")
            hashes.frombytes(packed)
            self.segments.append(hashes)
            self._known.update(hashes)

    def __len__(self) -> int:
        return len(self._known)

    def reserve(self, event_id: str) -> bool:
        """Remember ``event_id``; return False if it was known already."""
        value = event_hash(event_id)
        if value in self._known:
            return False
        self._known.add(value)
        self.tail.append(value)
        return True

    def knows(self, event_id: str) -> bool:
        """Tell whether ``event_id`` has counted."""
        return event_hash(event_id) in self._known

    def seal(self) -> tuple[list[tuple[int, bytes]], list[int]]:
        """Move a tail that has grown beyond ``TAIL`` into segments, and forget the oldest segments beyond ``REMEMBERED``.

        Returns:
            (number, packed hashes) of each new segment, to be written before the state that counts on it; and the
            numbers of segments that may go once that state is written.
        """
        written: list[tuple[int, bytes]] = []
        if len(self.tail) > TAIL:
            for start in range(0, len(self.tail), SEGMENT_LIMIT):
                hashes = self.tail[start : start + SEGMENT_LIMIT]
                written.append((self.first + len(self.segments), hashes.tobytes()))
                self.segments.append(hashes)
            self.tail = array("Q")
        dropped: list[int] = []
        while self.segments and len(self._known) - len(self.segments[0]) >= REMEMBERED:
            self._known.difference_update(self.segments.popleft())
            dropped.append(self.first)
            self.first += 1
        return written, dropped

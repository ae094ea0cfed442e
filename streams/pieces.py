"""From where to where a log was read that is fetched piece by piece, so that whoever puts it together sees if a piece is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

P = TypeVar("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Piece(Generic[R]):
    """What one fetch has found in a partition.

    Attributes:
        start: Offset from which on it was read. The first record may come later: compaction leaves gaps.
        records: The records, in order; at least one.
        end: Offset up to which it was read.
    """

    start: int
    records: list[R]
    end: int


class Reach(Generic[P]):
    """How far each partition has been read, and told of."""

    def __init__(self) -> None:
        self._read: dict[P, int] = {}
        self._told: dict[P, int] = {}

    def piece(self, partition: P, before: int, records: list[R], after: int) -> Piece[R] | None:
        """Return what a fetch has found; None if that was nothing.

        Offsets that it has passed over then belong to the next piece. A position that has changed since the last fetch was sought, and the next piece begins there.

        Args:
            partition: Where it has read.
            before: The position at its beginning.
            records: What it has returned.
            after: The position at its end.
        """
        start = self._told.get(partition, before) if self._read.get(partition) == before else before
        self._read[partition] = after
        self._told[partition] = after if records else start
        return Piece(start, records, after) if records else None

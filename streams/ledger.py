"""Which chunks of a partition are done, and how far its offset may be committed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Span:
    """The offsets ``first`` to ``last`` (inclusive, gaps allowed) that were handed out together."""

    first: int
    last: int
    is_done: bool = False


@dataclass(slots=True)
class Ledger:
    """What was handed out of one partition, in order, and what of it is done.

    Gaps between and inside spans (compaction, transaction markers) need no care: only the ends of spans count.

    Attributes:
        committable: Offset to commit: of the first record not known to be done; None if nothing is done yet.
    """

    committable: int | None = None
    _open: deque[Span] = field(default_factory=deque)

    def hand_out(self, first: int, last: int) -> Span:
        """Note that the records from ``first`` to ``last`` were handed out, after all earlier ones."""
        span = Span(first, last)
        self._open.append(span)
        return span

    def done(self, span: Span) -> None:
        """Note that nothing of ``span`` has to be delivered again; spans may be done in any order."""
        span.is_done = True
        while self._open and self._open[0].is_done:
            self.committable = self._open.popleft().last + 1

    @property
    def open_count(self) -> int:
        """How many spans are handed out and not done, or behind one that is not."""
        return len(self._open)

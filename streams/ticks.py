"""How far a partition has been read, on the clock: what deadlines wait for.

A deadline may only pass once everything appended before it has been folded, and the consumer's own high watermark is only
as fresh as its last fetch. So the broker is asked for the end offsets, the moment of asking is noted, and once the
partition has been folded up to those ends, everything appended before that moment has been read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Offsets = Mapping[str, int]
"""An offset for each source topic of a partition."""


@dataclass(slots=True)
class Progress:
    """Turns end offsets into a moment before which everything has been passed.

    Attributes:
        through: Everything appended before this moment (microseconds) has been passed; 0 until that is known of any.
    """

    through: int = 0
    _asked_at: int | None = None
    _ends: Offsets = field(default_factory=dict)

    def ask(self, asked_at: int, ends: Offsets) -> None:
        """Note the end offsets, as they were at ``asked_at`` or later, unless earlier ones are still to be passed."""
        if self._asked_at is None:
            self._asked_at, self._ends = asked_at, ends

    def check(self, passed: Callable[[str, int], bool]) -> int:
        """Return ``through``, moved on if ``passed(topic, end)`` holds for every topic asked about."""
        if self._asked_at is not None and all(passed(topic, end) for topic, end in self._ends.items()):
            self.through, self._asked_at = self._asked_at, None
        return self.through

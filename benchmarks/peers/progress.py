"""How every Python peer tells when it did what, and what it came to. Nothing but the standard library, so that it runs in each peer's environment."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable


class Progress:
    """Notes time and CPU time at three moments: the first event is taken up, a third is done, all are done.

    Args:
        events: How many there are to do.

    Attributes:
        done: How many are.
        marks: (seconds of a monotonic clock, events done, CPU seconds of this process) at those moments.
    """

    def __init__(self, events: int) -> None:
        self.events = events
        self.done = 0
        self.marks: list[tuple[float, int, float]] = []
        self._next = 0

    def begin(self) -> None:
        """To be called when the first event, or batch of events, is at hand; further calls do nothing."""
        if not self.marks:
            self._mark()
            self._next = self.events // 3

    def add(self, events: int = 1) -> bool:
        """Note that so many more are done; tell whether all are."""
        self.done += events
        if self.done >= self._next and self.marks:
            self._mark()
            self._next = self.events
        return self.done >= self.events

    def tell(self, counts: Iterable[tuple[str, int, int, int, bool]]) -> None:
        """Print marks and counts as JSON: variant, start of the window in seconds since the epoch, views, interactions, whether it was killed."""
        stdout = sys.__stdout__ or sys.stdout  # Faust turns sys.stdout into a log
        json.dump({"marks": self.marks, "counts": list(counts)}, stdout)
        stdout.flush()

    def _mark(self) -> None:
        self.marks.append((time.monotonic(), self.done, time.process_time()))

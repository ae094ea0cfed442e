"""An optional brake: stop when nearly everything that comes in is unusable, as after a bad deploy upstream."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from models.errors import Stop

SECONDS = 60
"""Length of the window looked at."""
AT_LEAST = 10_000
"""Fewer records within the window are too few to say."""
SHARE = 0.99
"""So much of them has to be bad, inclusive. Source of all three: contract, section 8."""


class BadInputLimit:
    """Counts good and bad records of the last ``SECONDS``, by the second.

    Args:
        clock: Seconds, never going back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds: deque[list[int]] = deque()  # second, records, bad ones
        self._records = self._bad = 0

    def note(self, records: int, bad: int) -> None:
        """Note ``records`` read just now, ``bad`` of them dead-lettered.

        Raises:
            Stop: At least ``AT_LEAST`` records came within the window, and at least ``SHARE`` of them were bad.
        """
        now = int(self._clock())
        while self._seconds and self._seconds[0][0] <= now - SECONDS:
            _, old, old_bad = self._seconds.popleft()
            self._records -= old
            self._bad -= old_bad
        if not self._seconds or self._seconds[-1][0] != now:
            self._seconds.append([now, 0, 0])
        self._seconds[-1][1] += records
        self._seconds[-1][2] += bad
        self._records += records
        self._bad += bad
        if self._records >= AT_LEAST and self._bad >= SHARE * self._records:
            raise Stop(f"{self._bad} of {self._records} records of the last {SECONDS} s cannot be used; stopped, as EARLY_KILL_STOP_ON_BAD_INPUT asks")

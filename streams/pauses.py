"""How long this process stands still: its event loop, and Python's garbage collector, which stops everything else.

What is on the event loop waits for its turn: records to fold, kills to tell, heartbeats of the consumer, requests. How late
a timer fires there is how long any of them would have had to wait.
"""

from __future__ import annotations

import asyncio
import gc
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import Literal

BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds in seconds, inclusive."""
BEAT_SECONDS = 0.02
"""Pause between two looks at the event loop; of a longer stand-still it misses at most this much."""
TURN_SECONDS = 30.0
"""``Durations.longest`` looks back this far at least, and twice as far at most."""
GENERATIONS = 3


class Durations:
    """How often something took how long. Takes no lock, for it is added to from within garbage collections.

    Attributes:
        counts: How many fell into each of ``BUCKETS``, and last those above them.
        total: Their sum in seconds.
    """

    __slots__ = ("_before", "_longest", "_turn_at", "counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0.0
        self._longest = self._before = 0.0
        self._turn_at = 0.0

    def add(self, seconds: float, now: float) -> None:
        """Note one that took ``seconds`` and ended ``now`` (monotonic seconds)."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds
        self._turn(now)
        self._longest = max(self._longest, seconds)

    def longest(self, now: float) -> float:
        """Return the longest of the last ``TURN_SECONDS``, or of up to twice that time; 0 without any."""
        self._turn(now)
        return max(self._longest, self._before)

    def _turn(self, now: float) -> None:
        if now >= self._turn_at:
            self._before = self._longest if now < self._turn_at + TURN_SECONDS else 0.0
            self._longest = 0.0
            self._turn_at = now + TURN_SECONDS


class Pauses:
    """Watches one process, from ``start`` to ``stop``.

    Args:
        clock: Monotonic seconds.

    Attributes:
        event_loop: How late the event loop came to a timer, looked at every ``BEAT_SECONDS``.
        collections: How long each garbage collection took, by generation.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.event_loop = Durations()
        self.collections = tuple(Durations() for _ in range(GENERATIONS))
        self._clock = clock
        self._collecting_since = 0.0
        self._beating: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch, on the running event loop, unless that has begun."""
        if self._beating is None:
            gc.callbacks.append(self._collected)
            self._beating = asyncio.get_running_loop().create_task(self._beat_on())

    def stop(self) -> None:
        """Watch no longer."""
        if self._beating is not None:
            gc.callbacks.remove(self._collected)
            self._beating.cancel()
            self._beating = None

    def longest(self) -> dict[str, float]:
        """Return the longest pauses of the last half minute to minute, in seconds: ``event_loop`` and ``gc``."""
        now = self._clock()
        return {"event_loop": self.event_loop.longest(now), "gc": max(durations.longest(now) for durations in self.collections)}

    async def _beat_on(self) -> None:
        while True:
            due = self._clock() + BEAT_SECONDS
            await asyncio.sleep(BEAT_SECONDS)
            now = self._clock()
            self.event_loop.add(max(0.0, now - due), now)

    def _collected(self, phase: Literal["start", "stop"], info: Mapping[str, int]) -> None:
        now = self._clock()
        if phase == "start":
            self._collecting_since = now
        else:
            self.collections[info["generation"]].add(now - self._collecting_since, now)

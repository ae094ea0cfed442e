"""A worker that stood still may have lost its partitions without knowing: it must not write another word."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

from models.errors import Stop

BEAT_SECONDS = 0.25


def _seconds() -> float:
    """Return seconds that go on while the process is stopped and, on Linux, while the machine is suspended: ``time.monotonic`` stands still then."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Watchdog:
    """Notices that this process, or its event loop, stood still for longer than its group waits for it.

    It beats on the event loop, as the consumer's heartbeats do; a thread of its own looks whether it does. Such a worker
    would go on as if it owned its partitions still, until its consumer hears otherwise. Kafka cannot fence what it writes to
    changelogs meanwhile, so it has to end before it does; the next start restores what the new owner has made of it.

    Args:
        limit_seconds: How long the group waits for a silent worker.
        fail: Called when it took longer; must not return to business.
        clock: Seconds that go on while the process is stopped, or its machine suspended.
    """

    def __init__(self, limit_seconds: float, fail: Callable[[BaseException], None], clock: Callable[[], float] = _seconds) -> None:
        self._limit, self._fail, self._clock = limit_seconds, fail, clock
        self._last: float | None = None
        self._beating: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Beat on the running event loop until the process ends, unless that has begun."""
        if self._beating is None:
            self.beat()
            self._beating = asyncio.get_running_loop().create_task(self._beat_on())
            threading.Thread(target=self._check_on, name="watchdog", daemon=True).start()

    async def _beat_on(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            self.beat()

    def _check_on(self) -> None:
        while True:
            time.sleep(BEAT_SECONDS)
            self.check()

    def beat(self) -> None:
        """Note that the event loop is alive; to be called several times within the limit, from the first time on."""
        self.check()
        self._last = self._clock()

    def check(self) -> None:
        """Fail if the last beat is too long ago. The limit itself is not too long."""
        stood = 0.0 if self._last is None else self._clock() - self._last
        if stood > self._limit:
            self._fail(Stop(f"this worker stood still for {stood:.1f} s; its partitions may be another's by now, so it starts anew"))

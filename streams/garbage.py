"""Garbage collection that never has to look at all sessions: they live long, and none is part of a cycle.

Python's collector goes through every object that could be part of a cycle each time these have grown by a quarter: with a
million sessions, for seconds. Here what has survived is set aside (``gc.freeze``) in small portions, after a last search
for cycles in it. What is set aside is freed as soon as nothing refers to it, like everything else.
"""

from __future__ import annotations

import asyncio
import gc

YOUNG = 20_000
"""New objects, net of those freed, until the young ones are searched."""
OLDER = 5
"""Times that, until those that survived are searched too."""
NEVER = 1_000_000_000
PAUSE_SECONDS = 0.1


class Freezer:
    """Sets survivors aside, from ``start`` to ``stop``. There is one collector in a process, so one of these is enough."""

    def __init__(self) -> None:
        self._freezing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Set aside all there is, and begin to watch for more, on the running event loop, unless that has begun."""
        if self._freezing is None:
            gc.collect()
            gc.freeze()
            gc.set_threshold(YOUNG, OLDER, NEVER)
            self._freezing = asyncio.get_running_loop().create_task(self._freeze_on())

    def stop(self) -> None:
        """Set nothing more aside."""
        if self._freezing is not None:
            self._freezing.cancel()
            self._freezing = None

    async def _freeze_on(self) -> None:
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            freeze_survivors()


def freeze_survivors() -> bool:
    """Search what has become old since the last time, and set aside what is left of it; False if there is nothing."""
    if gc.get_count()[2] == 0:
        return False
    gc.collect()
    gc.freeze()
    return True

"""Garbage collection that never has to look at all sessions, nor at the records of the moment: the first live long, the others short, and neither is part of a cycle.

Python's collector goes through every object that could be part of a cycle each time these have grown by a quarter: with a
million sessions, for seconds. And it begins as soon as some thousands are new, which a fetch full of records is as well as a
hundred sessions. Here it is told when: if new objects have stayed for a second. What has survived is set aside
(``gc.freeze``) in small portions, after a last search for cycles in it. What is set aside is freed as soon as nothing
refers to it, like everything else.
"""

from __future__ import annotations

import asyncio
import gc

PAUSE_SECONDS = 0.1
"""Between two looks at how many objects are new."""
LOOKS = 10
"""Records of a fetch are gone at one look of so many in a row; what was new at each of them stays."""
FEW = 2_000
"""New objects, net of those freed, that are not worth a search."""
MANY = 20_000
"""So many are searched at once, at some 0.5 us each, before they become more."""
ASIDE = 4_000
"""Survivors that are set aside; fewer are searched once more, with the next ones, for some may yet turn out to be a cycle."""
YOUNG = 200_000
"""New objects until Python searches by itself, should the event loop stand still."""
OLDER = 5
"""Times that, until those that survived are searched too."""
NEVER = 1_000_000_000


class Growth:
    """Tells objects that stay from those that come and go, by how many are new at each look."""

    def __init__(self) -> None:
        self._least, self._looks = MANY, 0

    def is_due(self, young: int) -> bool:
        """Return whether to search now.

        Args:
            young: New objects since the last search, net of those freed.
        """
        self._least, self._looks = min(self._least, young), self._looks + 1
        due = young >= MANY or (self._looks == LOOKS and self._least > FEW)
        if due or self._looks == LOOKS:
            self._least, self._looks = MANY, 0
        return due


class Freezer:
    """Searches, and sets survivors aside, from ``start`` to ``stop``. There is one collector in a process, so one of these is enough."""

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
        growth = Growth()
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            if growth.is_due(gc.get_count()[0]):
                search()


def search() -> None:
    """Free all cycles among what is not set aside, and set aside what is left, if it is much."""
    gc.collect()
    if len(gc.get_objects(generation=2)) >= ASIDE:
        gc.freeze()

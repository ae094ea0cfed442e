"""How much is folded before all other work on the event loop has its turn.

What counts is records, not chunks: at some thousand events a second each chunk has a few dozen, and one turn for each would
make the last partition's wait for as many turns as there are partitions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turn:
    """Shared by the partitions of a worker: one of them folds at a time.

    Args:
        records: Folded in one turn of the event loop at most, unless a single slice has more.
    """

    def __init__(self, records: int) -> None:
        self._most, self._folded, self._folding = records, 0, asyncio.Lock()

    @asynccontextmanager
    async def of(self, records: int) -> AsyncIterator[None]:
        """Wait until so many records may be folded, and keep others from it meanwhile."""
        async with self._folding:
            if self._folded + records > self._most:
                self._folded = 0
                await asyncio.sleep(0)
            self._folded += records
            yield

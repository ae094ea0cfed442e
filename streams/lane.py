"""What has been fetched of one topic of one partition, folded in order and beside all others."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from streams.transport import Chunk


class Lane:
    """Chunks in a queue of their own: the agent of their topic gets those of all its partitions, and none of them may wait for another's.

    Args:
        fold: Folds one chunk, and never raises. How many may wait is up to whoever fetches (``Monitoring.may_fetch``).
    """

    def __init__(self, fold: Callable[[Chunk], Awaitable[None]]) -> None:
        self._fold = fold
        self._chunks: deque[Chunk] = deque()
        self._task: asyncio.Task[None] | None = None

    def put(self, chunk: Chunk) -> None:
        """Have a chunk folded after those that are here."""
        self._chunks.append(chunk)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        while self._chunks:
            await self._fold(self._chunks.popleft())
        self._task = None

    def close(self) -> None:
        """Fold no more, not even the rest of the chunk at hand."""
        self._chunks.clear()
        if self._task is not None:
            self._task.cancel()

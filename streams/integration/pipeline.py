"""Many events on their way at once, and the first failure remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from streams.integration.landing import Landed

IN_FLIGHT = 5_000
"""Events that are on their way at once."""


class Sender(Protocol):
    """What ``EventPublisher`` is here."""

    async def send(self, topic: str, value: Mapping[str, Any]) -> asyncio.Future[Landed]:
        """Check an event and put it on its way."""


class Pipeline:
    """Keeps a bounded number of events on their way and remembers the first that failed."""

    def __init__(self, publisher: Sender, limit: int = IN_FLIGHT) -> None:
        self._publisher = publisher
        self._free = asyncio.Semaphore(limit)
        self._limit = limit
        self._failure: BaseException | None = None

    async def send(self, topic: str, value: Mapping[str, Any]) -> asyncio.Future[Landed]:
        """Send an event, after waiting for room; raises as the publisher does, or what an earlier event failed with."""
        await self._free.acquire()
        if self._failure is not None:
            self._free.release()
            raise self._failure
        try:
            landed = await self._publisher.send(topic, value)
        except BaseException:
            self._free.release()
            raise
        landed.add_done_callback(self._done)
        return landed

    def _done(self, landed: asyncio.Future[Landed]) -> None:
        self._free.release()
        if not landed.cancelled() and (error := landed.exception()) is not None and self._failure is None:
            self._failure = error

    async def drain(self) -> None:
        """Wait until nothing is on its way; raises what the first failed event failed with."""
        for _ in range(self._limit):
            await self._free.acquire()
        for _ in range(self._limit):
            self._free.release()
        if self._failure is not None:
            raise self._failure

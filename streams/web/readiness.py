"""Whether this worker can do its work now, and what it waits for."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from streams.web.ports import LiveSessions

logger = logging.getLogger(__name__)

Ping = Callable[[], Awaitable[None]]

_PATIENCE_SECONDS = 2.0
_FRESH_SECONDS = 1.0


class Probe:
    """Asks a dependency for a sign of life, at most once a second however many ask. Logs when its state changes."""

    def __init__(
        self, name: str, ping: Ping, *, patience_seconds: float = _PATIENCE_SECONDS, fresh_seconds: float = _FRESH_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name = name
        self._ping = ping
        self._patience_seconds = patience_seconds
        self._fresh_seconds = fresh_seconds
        self._clock = clock
        self._asking = asyncio.Lock()
        self._asked_at = float("-inf")
        self._is_up: bool | None = None
        self._question: asyncio.Future[None] | None = None

    async def is_up(self) -> bool:
        """Say whether the dependency answered within the last second, or answers now."""
        async with self._asking:
            if self._is_up is None or self._clock() - self._asked_at >= self._fresh_seconds:
                is_up, why = await self._ask()
                if is_up != self._is_up and not (is_up and self._is_up is None):
                    logger.log(logging.INFO if is_up else logging.WARNING, "%s %s", self._name, "answers again" if is_up else f"does not answer: {why}")
                self._is_up, self._asked_at = is_up, self._clock()
            return self._is_up

    async def _ask(self) -> tuple[bool, str]:
        """Ask, and answer in time even if the question cannot be called off at once: a driver may take seconds over that."""
        too_late = f"nothing within {self._patience_seconds:g} s"
        await asyncio.sleep(0)  # for an earlier question to come to its end
        if self._question is not None and not self._question.done():
            return False, too_late
        self._question = asyncio.ensure_future(self._ping())
        self._question.add_done_callback(lambda question: question.cancelled() or question.exception())  # or asyncio complains of one that ends late
        await asyncio.wait({self._question}, timeout=self._patience_seconds)
        if not self._question.done():
            self._question.cancel()
        if not self._question.done() or self._question.cancelled():
            return False, too_late
        error = self._question.exception()
        return error is None, "" if error is None else " ".join(str(error).split()) or type(error).__name__


class Readiness:
    """Puts together what ``GET /ready`` says.

    Args:
        kafka: Is Kafka there?
        postgresql: Is PostgreSQL there? Reported only: a monitor goes on deciding without it.
        live: The sessions of this worker.
        is_rebalancing: Whether partitions are being dealt out, or have not been yet.
        is_stopping: Whether this worker is going down.
    """

    def __init__(self, kafka: Probe, postgresql: Probe, live: LiveSessions, is_rebalancing: Callable[[], bool], is_stopping: Callable[[], bool] = lambda: False) -> None:
        self._kafka = kafka
        self._postgresql = postgresql
        self._live = live
        self._is_rebalancing = is_rebalancing
        self._is_stopping = is_stopping

    async def report(self) -> tuple[bool, dict[str, Any]]:
        """Return whether this worker is ready, and the state of each thing it needs."""
        kafka, postgresql = await asyncio.gather(self._kafka.is_up(), self._postgresql.is_up())
        recovering, rebalancing, stopping = self._live.is_recovering(), self._is_rebalancing(), self._is_stopping()
        is_ready = kafka and not recovering and not rebalancing and not stopping
        return is_ready, {
            "status": "ready" if is_ready else "not ready",
            "kafka": "up" if kafka else "away",
            "postgresql": "up" if postgresql else "away",
            "recovering": recovering,
            "rebalancing": rebalancing,
            "stopping": stopping,
            "assigned": sorted(self._live.assigned()),
            "active_sessions": self._live.active_count(),
        }

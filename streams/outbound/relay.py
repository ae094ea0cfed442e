"""Sends the outbound calls that are due, a few at once, and again until they are answered or given up."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from models.errors import Reject, Retry
from streams.outbound.pending import Backlog, Claimed, Outcome, State
from streams.outbound.sending import AT_ONCE

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 300.0
LONGEST_RETRY_AFTER_SECONDS = 3_600.0
"""What a receiver may ask for at most."""
LOOK_SECONDS = 0.5
"""Pause between two looks for calls that are due, unless somebody wakes the relay."""
LEASE_MARGIN_SECONDS = 15.0
"""A lease outlives an attempt by this, for looking up and writing down."""
SETTLE_PAUSE_SECONDS = 1.0
SILENT_SECONDS = 60.0
"""Pause between two lines in the log that say that calls fail."""

log = logging.getLogger(__name__)


class Calls(Protocol):
    """Whose calls; ``streams.outbound.pending.PendingCalls``."""

    lease_seconds: float

    async def claim(self, most: int) -> list[Claimed]:
        """Take some that are due."""

    async def settle(self, call: Claimed, outcome: Outcome, pause_seconds: float) -> State | None:
        """Write down what came of one."""

    async def backlog(self) -> Backlog:
        """Return how much there is to do."""


class Counts(Protocol):
    """Who counts; ``streams.metrics.Metrics``."""

    def called(self, result: str, duration_seconds: float) -> None:
        """Count an attempt."""

    def outbound_backlog(self, pending: int, given_up: int, oldest_seconds: float) -> None:
        """Note how much there is to do."""


def pause_seconds(attempt: int, jitter: float, retry_after_seconds: float | None = None) -> float:
    """Return how long to wait after a failure: exponential, with full jitter, and no less than what the receiver asks for.

    Args:
        attempt: Number of the attempt that failed, from 1.
        jitter: Random, in [0, 1).
        retry_after_seconds: What the receiver asks for; heeded up to an hour.
    """
    pause = jitter * min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(attempt - 1, 16))
    return pause + min(retry_after_seconds or 0.0, LONGEST_RETRY_AFTER_SECONDS)


class Relay:
    """Makes the calls of one table, as one of any number of relays.

    Args:
        calls: The table.
        send: Makes an attempt.
        send_seconds: Longest that takes.
        metrics: Who counts.
        fail: Called with what makes it impossible to go on.
        jitter: Random numbers in [0, 1).
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        calls: Calls,
        send: Callable[[Claimed], Awaitable[Outcome]],
        *,
        send_seconds: float,
        metrics: Counts,
        fail: Callable[[BaseException], None],
        jitter: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._calls, self._send, self._send_seconds = calls, send, send_seconds
        self._metrics, self._fail, self._jitter, self._clock = metrics, fail, jitter, clock
        self._under_way: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()
        self._complained_at = float("-inf")

    def wake(self) -> None:
        """Say that there is a new call."""
        self._woken.set()

    async def step(self) -> float:
        """Begin what is due and there is room for; returns the seconds until the next step is worth it.

        Raises:
            Retry: PostgreSQL is away.
            Stop: It will never let us.
        """
        room = AT_ONCE - len(self._under_way)
        if room == 0:
            await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
            return 0.0
        self._woken.clear()
        claimed_at = self._clock()
        claimed = await self._calls.claim(room)
        for call in claimed:
            task = asyncio.create_task(self._make(call, claimed_at))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        if len(claimed) < room:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), LOOK_SECONDS)
        return 0.0

    async def watch(self) -> float:
        """Note how much there is to do; returns the seconds until that is worth it again. Errors as ``step``."""
        backlog = await self._calls.backlog()
        self._metrics.outbound_backlog(backlog.pending, backlog.given_up, backlog.oldest_seconds)
        return 5.0

    async def drain(self, seconds: float) -> None:
        """Wait for the calls under way, at most so long; what is cut off is made again when its lease is over."""
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _make(self, call: Claimed, claimed_at: float) -> None:
        try:
            until = claimed_at + self._calls.lease_seconds
            if self._clock() + self._send_seconds >= until:
                return  # this process stood still: by the time of an answer the call may be another relay's
            began = self._clock()
            outcome = await self._send(call)
            seconds = self._clock() - began
            self._tell(call, outcome, await self._settle(call, outcome, until), seconds)
        except Exception as error:  # noqa: BLE001 - handed to whoever stops the worker
            self._fail(error)

    async def _settle(self, call: Claimed, outcome: Outcome, until: float) -> State | None:
        """Write it down, for as long as the lease lasts; after that it is another's, and is made again with the same key."""
        pause = pause_seconds(call.attempt, self._jitter(), outcome.retry_after_seconds)
        while True:
            try:
                return await self._calls.settle(call, outcome, pause)
            except (Retry, Reject) as error:
                if self._clock() + SETTLE_PAUSE_SECONDS >= until:
                    log.warning("outbound call %d (%s) is made again, its outcome cannot be written down: %s", call.id, call.idempotency_key, error)
                    return None
                await asyncio.sleep(SETTLE_PAUSE_SECONDS)

    def _tell(self, call: Claimed, outcome: Outcome, state: State | None, seconds: float) -> None:
        self._metrics.called("given_up" if state == "given_up" else outcome.verdict, seconds)
        if state == "given_up":
            log.error(
                "outbound call %d (%s of %s) is given up after %d attempts, HTTP status %s", call.id, call.event, ascii(call.variant_id), call.attempt, outcome.status or "none"
            )
        elif outcome.verdict != "confirmed" and self._clock() - self._complained_at >= SILENT_SECONDS:
            self._complained_at = self._clock()
            log.warning("outbound calls fail and are tried again, the last one with HTTP status %s; `early-kill outbound list` tells more", outcome.status or "none")

"""``on_variant_posted``: for callers that are not asynchronous, such as threads_adaptor."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from models.errors import Reject, Retry
from streams.environment import load_settings
from streams.integration.landing import Landed, NotPublished
from streams.integration.publisher import EventPublisher

if TYPE_CHECKING:
    from streams.settings import Settings

EXPECTED_ENGAGEMENT_RATE = 0.06
"""What to expect of a variant whose poster does not say. Source: contract, section 7."""
TIMEOUT_SECONDS = 30.0
"""How long an event may take to be acknowledged, after connecting."""


def on_variant_posted(monitoring_data: Mapping[str, Any], *, settings: Settings | None = None) -> Landed:
    """Tell the monitor that a variant went live; returns once Kafka has acknowledged it, usually within milliseconds.

    May be called from any thread, with or without a running event loop (which waits meanwhile), and after a fork. The first
    call connects; the connection is kept until the process ends. Calling it again for the same posting changes nothing.

    Args:
        monitoring_data: A ``variant_posted`` event: ``variant_id``, ``persona_id``, ``post_id`` and whatever else the contract has;
            a missing ``expected_engagement_rate`` is 0.06.
        settings: Which Kafka; from the environment when None.

    Returns:
        Where Kafka put the event.

    Raises:
        Reject: The event breaks the contract; names the field. Nothing was sent.
        Retry: Kafka was not reached, or did not acknowledge the event (``NotPublished``). Call again.
        Stop: The topic does not exist, or may not be written to.
    """
    if not isinstance(monitoring_data, Mapping):
        raise Reject("monitoring_data has to be a dict")
    value = dict(monitoring_data)
    if value.get("expected_engagement_rate") is None:
        value["expected_engagement_rate"] = EXPECTED_ENGAGEMENT_RATE
    return _background.publish(load_settings() if settings is None else settings, value)


class _Background:
    """A thread with an event loop of its own, and in it one publisher for each Kafka that was asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._publishers: dict[Settings, asyncio.Future[EventPublisher]] = {}

    def publish(self, settings: Settings, value: dict[str, Any]) -> Landed:
        return asyncio.run_coroutine_threadsafe(self._publish(settings, value), self._running_loop()).result()

    def close(self) -> None:
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is None or thread is None or not thread.is_alive():
            return
        with suppress(TimeoutError, Retry):  # whatever was acknowledged has been reported; nothing else is promised
            asyncio.run_coroutine_threadsafe(self._stop_all(), loop).result(timeout=5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=2)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="early-kill-publisher", daemon=True)
                self._thread.start()
            return self._loop

    async def _publish(self, settings: Settings, value: dict[str, Any]) -> Landed:
        publisher = await self._publisher(settings)
        try:
            return await publisher.publish_variant_posted(value)
        except NotPublished:
            await self._drop(settings, publisher)
            raise

    async def _publisher(self, settings: Settings) -> EventPublisher:
        """Return the publisher for these settings; callers that come while it connects share it, or its failure."""
        future = self._publishers.get(settings)
        if future is None:
            future = self._publishers[settings] = asyncio.get_running_loop().create_future()
            publisher = EventPublisher(settings, timeout_seconds=TIMEOUT_SECONDS)
            try:
                await publisher.start()
            except BaseException as error:  # noqa: BLE001 - whoever waits for the future has to hear of it
                del self._publishers[settings]
                future.set_exception(error)
            else:
                future.set_result(publisher)
        return await asyncio.shield(future)

    async def _drop(self, settings: Settings, publisher: EventPublisher) -> None:
        """Let the next call connect afresh: a producer that failed may have failed for good."""
        future = self._publishers.get(settings)
        if future is not None and future.done() and future.exception() is None and future.result() is publisher:
            del self._publishers[settings]
            self._closing = asyncio.ensure_future(publisher.stop())

    async def _stop_all(self) -> None:
        futures, self._publishers = list(self._publishers.values()), {}
        for future in futures:
            if future.done() and future.exception() is None:
                await future.result().stop()


_background = _Background()
_left_to_parent: list[_Background] = []
"""In a forked child, what belongs to the parent: kept, so that nothing closes its sockets."""


def _start_afresh() -> None:
    global _background  # noqa: PLW0603 - the one connection of this process
    _left_to_parent.append(_background)
    _background = _Background()


def _close() -> None:
    _background.close()  # of this process: after a fork it is another one


atexit.register(_close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_afresh)

"""The end of a consumer: aiokafka's own way out, ``stop``, waits for Kafka, for ever while that is away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

log = logging.getLogger(__name__)

CUT_SECONDS = 1.0
"""How long the tasks of a consumer may take to end once they are cancelled, and its connections to close."""


async def leave(consumer: AIOKafkaConsumer, seconds: float) -> None:
    """Stop a consumer, and leave its group, within so many seconds; then take away what it still has. Its errors are only logged."""
    leaving = asyncio.ensure_future(consumer.stop())
    try:
        await asyncio.wait([leaving], timeout=seconds)
    finally:
        if not leaving.done() or leaving.cancelled() or leaving.exception() is not None:
            await _cut(consumer, leaving)


async def _cut(consumer: AIOKafkaConsumer, leaving: asyncio.Future[None]) -> None:
    error = leaving.exception() if leaving.done() and not leaving.cancelled() else None
    log.info("a subscriber did not close by itself (%s): its connections are cut", "no answer" if error is None else type(error).__name__)
    tasks = [leaving, *_tasks(consumer)]
    for task in tasks:
        task.cancel()
    _, left = await asyncio.wait(tasks, timeout=CUT_SECONDS)
    if left:
        log.warning("%d tasks of a subscriber do not end", len(left))
    with contextlib.suppress(KafkaError, OSError, TimeoutError):
        async with asyncio.timeout(CUT_SECONDS):
            await consumer._client.close()  # noqa: SLF001 - there is no public way to leave without Kafka's answer; likewise below


def _tasks(consumer: AIOKafkaConsumer) -> list[asyncio.Task[Any]]:
    """What a consumer has at work in the background, with and without a group."""
    coordinator, fetcher = consumer._coordinator, consumer._fetcher  # noqa: SLF001
    named = [getattr(coordinator, name, None) for name in ("_coordination_task", "_heartbeat_task", "_commit_refresh_task", "_reset_committed_task")]
    fetching = [] if fetcher is None else [fetcher._fetch_task, *fetcher._pending_tasks]  # noqa: SLF001
    return [task for task in [*named, *fetching] if task is not None and not task.done()]

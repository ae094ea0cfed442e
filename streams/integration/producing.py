"""An idempotent producer that starts and stops in time: aiokafka's own asks for its id, and tries to send, for ever while no broker answers."""

from __future__ import annotations

import asyncio
import contextlib

from aiokafka import AIOKafkaProducer

from streams.disarming import close_disarmed, disarm

START_SECONDS = 15.0
"""How long one try to start may take: longer than the 10 s that one of several brokers which says nothing holds it up."""
STOP_SECONDS = 5.0
"""How long ``stop`` waits for what is on its way, and how long connections may take to close that Kafka does not answer on."""


async def start(producer: AIOKafkaProducer) -> None:
    """Start a producer, or leave nothing of it behind.

    Raises:
        TimeoutError: It was not done within 15 s.
        KafkaError: As aiokafka says.
    """
    try:
        async with asyncio.timeout(START_SECONDS):
            await producer.start()
    except BaseException:
        await _abandon(producer)
        raise


async def stop(producer: AIOKafkaProducer) -> None:
    """Stop a producer after what is on its way has been acknowledged; at most 5 s are left to that, and as many to closing without."""
    try:
        await asyncio.wait_for(producer.stop(), STOP_SECONDS)
    except TimeoutError:
        await _abandon(producer)


async def _abandon(producer: AIOKafkaProducer) -> None:
    """Let a producer send nothing more, and close what it has open."""
    disarm(producer)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_SECONDS):
            await close_disarmed(producer)

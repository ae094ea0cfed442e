"""The end of a producer that has failed: nothing that it still holds may arrive behind what its successor sends.

aiokafka's own way out, ``stop``, first waits until all has been sent. An idempotent producer tries that for ever while
Kafka is away, and goes on when it is back; given up in the middle, it leaves its sender and its connections behind.
"""

from __future__ import annotations

import contextlib
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.conn import CloseReason
from aiokafka.errors import KafkaError, NodeNotReadyError, ProducerClosed


class _NoConnections(dict[Any, Any]):
    """In place of a client's connections: there are none, and one that is just being made is closed as soon as it is there."""

    def __setitem__(self, _node: object, connection: Any) -> None:
        connection.close(reason=CloseReason.SHUTDOWN)

    def __getitem__(self, _node: object) -> Any:
        raise NodeNotReadyError("this client has been given up")


def disarm(producer: AIOKafkaProducer) -> None:
    """Take a producer's connections away, those to come too: from here on it sends nothing, and who waits for it is told so.

    What it has handed to the network may still arrive.
    """
    client = producer.client
    connections, client._conns = client._conns, _NoConnections()  # noqa: SLF001 - there is no public way to leave without sending all
    for connection in connections.values():
        connection.close(reason=CloseReason.SHUTDOWN)
    producer._closed = producer._message_accumulator._closed = True  # noqa: SLF001 - see above
    _fail_what_is_held(producer)


async def close_disarmed(producer: AIOKafkaProducer) -> None:
    """Free what a disarmed producer holds. It may take as long as a request: one may be waiting for a connection to be made."""
    with contextlib.suppress(KafkaError, OSError):
        await producer._sender.close()  # noqa: SLF001 - see above
    _fail_what_is_held(producer)  # what was under way has come back
    with contextlib.suppress(KafkaError, OSError):
        await producer.client.close()


def _fail_what_is_held(producer: AIOKafkaProducer) -> None:
    """Tell those who wait for batches that are not under way; the sender, if it still runs, must not meet them again."""
    accumulator = producer._message_accumulator  # noqa: SLF001 - see above; likewise below
    batches = [batch for of_partition in accumulator._batches.values() for batch in of_partition]  # noqa: SLF001
    accumulator._batches.clear()  # noqa: SLF001
    accumulator._pending_batches.update(batch for batch in batches if batch.retry_count)  # noqa: SLF001 - from where one that was sent before takes itself when it fails
    for batch in batches:
        batch.failure(ProducerClosed())
        batch._drain_waiter.exception()  # noqa: SLF001 - looked at, so that asyncio does not complain that nobody did

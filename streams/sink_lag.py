"""How much the sink has still to write. Kafka is asked for it: a consumer that waits for PostgreSQL fetches nothing, and so learns of nothing new."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import faust
from aiokafka.errors import KafkaError
from faust.exceptions import FaustError
from faust.types import TP

from models.errors import Retry
from streams.transport import ChunkedConsumer

ASK_SECONDS = 5.0
"""Pause between two looks at the ends of partitions, and the longest that Kafka may take for an answer."""


class SinkLag:
    """The records of each partition that are not in PostgreSQL yet.

    Args:
        app: Knows the consumer.
        is_assigned: Whether partitions are assigned, and records flow.
    """

    def __init__(self, app: faust.App, is_assigned: Callable[[], bool]) -> None:
        self._app, self._is_assigned = app, is_assigned
        self._ends: dict[TP, int] = {}

    async def look(self) -> float:
        """Ask where the partitions end; returns the pause until the next look.

        Raises:
            Retry: Kafka does not answer. What it said last holds until it does.
        """
        consumer = self._consumer
        tps = () if consumer is None else consumer.assignment()
        if consumer is None or not tps:
            return ASK_SECONDS
        try:
            async with asyncio.timeout(ASK_SECONDS):
                ends = await consumer.highwaters(*tps)
        except (KafkaError, FaustError, TimeoutError) as error:
            raise Retry(f"Kafka does not say where partitions end: {str(error) or 'no answer in time'}") from None
        self._ends = {TP(tp.topic, tp.partition): end for tp, end in ends.items()}
        return ASK_SECONDS

    def now(self) -> Mapping[tuple[str, int], int]:
        """Return the records not written yet, by (topic, partition), as of the last look or a later fetch."""
        consumer = self._consumer
        if consumer is None:
            return {}
        ends = {tp: max(consumer.highwater(tp) or 0, self._ends.get(tp, 0)) for tp in consumer.assignment()}
        return {(tp.topic, tp.partition): max(0, end - _written(consumer, tp)) for tp, end in ends.items()}

    @property
    def _consumer(self) -> ChunkedConsumer | None:
        """Who fetches; None while nothing is assigned."""
        consumer = self._app.consumer
        return consumer if self._is_assigned() and isinstance(consumer, ChunkedConsumer) and not self._app.should_stop else None


def _written(consumer: ChunkedConsumer, tp: TP) -> int:
    """The offset up to which a partition is in PostgreSQL."""
    ledger = consumer.ledgers.get(tp)
    written = None if ledger is None else ledger.committable
    return (consumer.committed(tp) or 0) if written is None else written

"""Parts of Faust that wait for a Kafka which goes away while a worker starts. The stock ones end with a traceback, or stand still for ever."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerT

from streams.transport import ChunkedConsumer, ChunkedTransport, InlineConsumer

log = logging.getLogger(__name__)

PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 4.0
"""Until Kafka is asked again: the first time, then twice as long each time, up to the longest."""

T = TypeVar("T")


async def until_it_answers(ask: Callable[[], Awaitable[T]], is_over: Callable[[], bool] = lambda: False) -> T | None:
    """Ask Kafka until it answers, however long it is away; with one line in the log at its first refusal.

    Args:
        ask: Called once, and again after each failure that passes. Others are raised.
        is_over: Asked after each failure: whether nobody wants the answer any more. It is None then.
    """
    pause = 0.0
    while True:
        try:
            return await ask()
        except KafkaError as error:
            if not (error.retriable or isinstance(error, KafkaTimeoutError)):
                raise
            if is_over():
                return None
            if not pause:
                log.warning("waiting for Kafka: %s", error)
        pause = min(2 * pause or PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        await asyncio.sleep(pause)


class _Client(AIOKafkaProducer):  # type: ignore[misc]
    async def start(self) -> None:
        await until_it_answers(super().start)


class WaitingProducer(driver.Producer):  # type: ignore[misc]
    """Faust's producer; nothing is done with it but to create changelogs."""

    @property
    def _producer_type(self) -> type[AIOKafkaProducer]:
        return _Client

    async def create_topic(self, topic: str, partitions: int, replication: int, **options: Any) -> None:
        """Create a topic that is not there yet."""

        async def create() -> None:
            client = self._ensure_producer().client
            if not client.cluster.brokers() and not await client.force_metadata_update():
                raise KafkaConnectionError("it knows no broker yet")
            await super(WaitingProducer, self).create_topic(topic, partitions, replication, **options)

        await until_it_answers(create)


class WaitingInlineConsumer(InlineConsumer):
    """The connection to Kafka."""

    async def on_start(self) -> None:
        """Connect."""
        self._consumer = self._create_consumer(loop=self.thread_loop)
        self.time_started = time.monotonic()
        await until_it_answers(self._consumer.start, lambda: self.should_stop)


class WaitingConsumer(ChunkedConsumer):
    """Delivers chunks."""

    def _new_consumer_thread(self) -> WaitingInlineConsumer:
        return WaitingInlineConsumer(self, beacon=self.beacon)


class WaitingTransport(ChunkedTransport):
    """The chunked transport with these clients."""

    Consumer = WaitingConsumer
    Producer = WaitingProducer

    async def _create_topic(self, *arguments: Any, **options: Any) -> None:
        """Create a topic, each caller for itself: of those that Faust lets share one attempt, all others wait for ever once it fails, and one that is cancelled makes it fail."""
        await self._really_create_topic(*arguments, **options)


class WaitingRecovery(Recovery):  # type: ignore[misc]
    """Reads changelogs back."""

    _began_in = 0

    @property
    def is_current(self) -> bool:
        """Whether no rebalance has begun since the assignment that this recovery is for. After one, another follows, while what waits for the end of this one still runs."""
        return bool(self._began_in == self.app.rebalancing_count)

    async def on_rebalance(self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0) -> None:
        """Begin anew with what is assigned now."""
        self._began_in = self.app.rebalancing_count
        await super().on_rebalance(assigned, revoked, newly_assigned, generation_id)

    async def _wait(self, coro: Any, timeout: Any = None) -> None:  # noqa: ARG002, ASYNC109 - Faust's signature
        await super()._wait(coro)  # it takes a time-out for the end of the worker, and never recovers again

    async def _build_highwaters(self, consumer: ConsumerT, tps: set[TP], destination: Counter[TP], title: str) -> None:
        await until_it_answers(partial(super()._build_highwaters, consumer, tps, destination, title))

    async def _build_offsets(self, consumer: ConsumerT, tps: set[TP], destination: Counter[TP], title: str) -> None:
        await until_it_answers(partial(super()._build_offsets, consumer, tps, destination, title))


class WaitingTables(TableManager):  # type: ignore[misc]
    """All tables, with this recovery."""

    _recovery: WaitingRecovery | None = None

    @property
    def recovery(self) -> WaitingRecovery:
        """Who reads changelogs back."""
        if self._recovery is None:
            self._recovery = WaitingRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery

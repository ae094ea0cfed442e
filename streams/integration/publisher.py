"""Publish that a variant was posted and what people did with it; acknowledged by Kafka, or an error."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import ClusterAuthorizationFailedError, KafkaError, UnknownTopicOrPartitionError

from models.errors import Reject, Stop
from streams.event_log import MOMENT_FIELD, TOPICS
from streams.integration import producing
from streams.integration.checking import checked, without_datetimes
from streams.integration.client import Client
from streams.integration.landing import Landed, NotPublished
from streams.integration.pipeline import Pipeline
from streams.integration.refusals import REFUSED
from streams.kafka_access import kafka_client_options, unreachable
from streams.topics import topic_name

if TYPE_CHECKING:
    from aiokafka.structs import RecordMetadata

    from streams.settings import Settings

CONNECT_SECONDS = 5.0
"""How long ``start`` goes on trying to reach a broker, a first send to find its topic, and Kafka may take to say which topics there are."""


class EventPublisher(Client):
    """Writes events to Kafka: ``acks=all``, idempotent, keyed by ``variant_id``, each checked before it is sent.

    Use it as ``async with EventPublisher() as publisher``. One publisher serves any number of tasks of its event loop.
    """

    def __init__(self, settings: Settings | None = None, *, timeout_seconds: float = 30.0) -> None:
        """Prepare; nothing is connected yet.

        Args:
            settings: Which Kafka, and the topics' prefix; from the environment when None.
            timeout_seconds: How long an event may take to be acknowledged.
        """
        super().__init__(settings)
        self._timeout = timeout_seconds
        self._producer: AIOKafkaProducer | None = None
        self._known_topics: set[str] = set()

    async def start(self) -> None:
        """Connect; that it is not possible is told after half a minute at the latest.

        Raises:
            Retry: No broker answers, or none at the address by which the brokers call themselves.
            Stop: Kafka refuses these credentials.
        """
        deadline = time.monotonic() + CONNECT_SECONDS
        while True:
            producer = AIOKafkaProducer(**kafka_client_options(self._settings), acks="all", enable_idempotence=True, request_timeout_ms=10_000, max_batch_size=131_072)
            try:
                await producing.start(producer)
            except TimeoutError as error:
                raise await unreachable(self._settings) from error
            except KafkaError as error:
                if isinstance(error, ClusterAuthorizationFailedError):  # so says Kafka to an idempotent producer that may write nowhere
                    raise Stop(f"Kafka at {self._settings.kafka_bootstrap_servers} does not let user {self._settings.kafka_user} write to any topic") from error
                if isinstance(error, REFUSED):
                    raise Stop(f"Kafka at {self._settings.kafka_bootstrap_servers} refuses access: {error}") from error
                refusal = await unreachable(self._settings)
                if isinstance(refusal, Stop) or time.monotonic() >= deadline:
                    raise refusal from error
                await asyncio.sleep(0.2)
            else:
                self._producer = producer
                return

    async def stop(self) -> None:
        """Disconnect, after what is on its way has been acknowledged; at most 5 s are left to it, and as many to closing without."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producing.stop(producer)

    async def publish_variant_posted(self, message: Mapping[str, Any] | None = None, /, **fields: Any) -> Landed:
        """Publish that a variant went live: a ``variant_posted`` as a mapping, as keywords, or both (keywords win).

        ``posted_at`` may also be an aware ``datetime``. Publishing the same posting twice starts one session.

        Raises:
            Reject: The event breaks the contract; names the field. Nothing was sent.
            NotPublished: Kafka did not acknowledge it in time.
            Stop: The topic does not exist, or may not be written to.
        """
        return await (await self.send("variant_posted", {**(message or {}), **fields}))

    async def publish_interaction(self, message: Mapping[str, Any] | None = None, /, **fields: Any) -> Landed:
        """Publish that somebody saw or acted, or a snapshot of totals; arguments and errors as in ``publish_variant_posted``.

        An event without ``event_id`` gets a random one, so that it can be told apart when it is sent again. To retry,
        send what ``NotPublished.value`` holds, or give an ``event_id`` of your own: the same id counts once.
        """
        value = {**(message or {}), **fields}
        if value.get("event_id") is None:
            value["event_id"] = str(uuid.uuid4())
        return await (await self.send("interaction", value))

    async def publish_many(self, events: Iterable[tuple[str, Mapping[str, Any]]] | AsyncIterable[tuple[str, Mapping[str, Any]]]) -> list[Landed]:
        """Publish (topic, value) pairs, many on their way at once; no ids are added.

        Order is kept within a topic and variant.

        Returns:
            Where each landed, in the order given.

        Raises:
            Reject: An event breaks the contract. Those before it are published, none after it.
            NotPublished: Kafka did not acknowledge one of them in time.
            Stop: As in ``publish_variant_posted``.
        """
        pipeline = Pipeline(self)
        landing: list[asyncio.Future[Landed]] = []
        try:
            if isinstance(events, AsyncIterable):
                async for topic, value in events:
                    landing.append(await pipeline.send(topic, value))
            else:
                for topic, value in events:
                    landing.append(await pipeline.send(topic, value))
        finally:
            await pipeline.drain()
        return [future.result() for future in landing]

    async def send(self, topic: str, value: Mapping[str, Any]) -> asyncio.Future[Landed]:
        """Check an event and put it on its way.

        Args:
            topic: ``variant_posted`` or ``interaction``, without the prefix.
            value: The event; sent as it is, except that an aware ``datetime`` becomes a string.

        Returns:
            A future that is done when Kafka has acknowledged the event. It fails with ``NotPublished``, or with ``Stop`` where Kafka
            does not allow the event to be written.

        Raises:
            Reject: The event breaks the contract.
            NotPublished: Kafka does not take the event, or does not say whether the topic is there.
            Stop: The topic does not exist, or may not be written to.
        """
        if topic not in TOPICS:
            raise Reject(f"is not one of {', '.join(TOPICS)}", "topic")
        value = without_datetimes(value, MOMENT_FIELD[topic])
        key, content = checked(topic, value)
        full_name = topic_name(self._settings, topic)
        producer = self._producer
        if producer is None:
            raise RuntimeError("the publisher is not started: use it with `async with`")
        try:
            await self._find_topic(producer, full_name)
            async with asyncio.timeout(self._timeout):
                sent = await producer.send(full_name, value=content, key=key)
        except UnknownTopicOrPartitionError as error:
            raise Stop(f"topic {full_name} is not there; `early-kill topics` creates it") from error
        except REFUSED as error:
            raise Stop(f"Kafka does not allow writing to {full_name}") from error
        except (KafkaError, TimeoutError) as error:
            raise NotPublished(f"Kafka did not take an event for {full_name}: {type(error).__name__}", topic, value) from error
        return self._acknowledgement(sent, topic, value)

    async def _find_topic(self, producer: AIOKafkaProducer, full_name: str) -> None:
        """Wait for the partitions of a topic that was not used yet.

        Raises:
            UnknownTopicOrPartitionError: Kafka says which topics there are, and this is none of them.
            TimeoutError, KafkaError: Kafka does not say so: it may just be away.
        """
        if full_name in self._known_topics:
            return
        try:
            await asyncio.wait_for(producer.partitions_for(full_name), CONNECT_SECONDS)
        except TimeoutError:
            async with asyncio.timeout(CONNECT_SECONDS):
                told = await producer.client.fetch_all_metadata()
            if full_name not in told.topics():
                raise UnknownTopicOrPartitionError from None
            raise
        self._known_topics.add(full_name)

    def _acknowledgement(self, sent: asyncio.Future[RecordMetadata], topic: str, value: Mapping[str, Any]) -> asyncio.Future[Landed]:
        """Turn aiokafka's answer into ours, and into an error when it takes too long: an idempotent producer never gives up by itself."""
        loop = asyncio.get_running_loop()
        landed: asyncio.Future[Landed] = loop.create_future()

        def fail(reason: str) -> None:
            if not landed.done():
                landed.set_exception(NotPublished(f"Kafka did not acknowledge an event for {topic}: {reason}", topic, value))

        def settle(sent: asyncio.Future[RecordMetadata]) -> None:
            timer.cancel()
            error = None if sent.cancelled() else sent.exception()
            if sent.cancelled():
                fail("the connection was closed")
            elif error is not None and not isinstance(error, REFUSED):
                fail(str(error))
            elif landed.done():  # too late, and told so
                return
            elif error is not None:
                refusal = Stop(f"Kafka does not allow writing to {topic_name(self._settings, topic)}")
                refusal.__cause__ = error
                landed.set_exception(refusal)
            else:
                place = sent.result()
                landed.set_result(Landed(place.topic, place.partition, place.offset, place.timestamp, value.get("event_id")))

        timer = loop.call_later(self._timeout, fail, f"no answer within {self._timeout:g} s")
        sent.add_done_callback(settle)
        return landed

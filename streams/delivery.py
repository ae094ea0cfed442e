"""Appending records to Kafka, acknowledged: the one way out for kills, records, dead letters and changelogs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import ClusterAuthorizationFailedError, InvalidTopicError, KafkaConnectionError, KafkaError, MessageSizeTooLargeError, TopicAuthorizationFailedError
from aiokafka.producer.message_accumulator import BatchBuilder

from models.errors import Stop
from streams.disarming import close_disarmed, disarm
from streams.ports import Place
from streams.topics import MAX_MESSAGE_BYTES

log = logging.getLogger(__name__)

BATCH_BYTES = 1 << 18
"""Most bytes in one batch of a partition; what is sent while a request is under way waits for the next."""
HOPELESS = (ClusterAuthorizationFailedError, InvalidTopicError, MessageSizeTooLargeError, TopicAuthorizationFailedError)
"""Answers to a record that come again, however often it is sent: only an operator can change them."""


@dataclass(frozen=True, slots=True, eq=False)
class Sent:
    """Records on their way: what resolves when the brokers have them, who sends them, to which topic, and how many are in each batch.

    A caller that gives up waiting does not take back what is on its way.
    """

    future: asyncio.Future[Any]
    producer: AIOKafkaProducer
    topic: str
    sizes: tuple[int, ...] = ()


class KafkaLog:
    """An idempotent producer (``acks=all``) that starts over when it has failed, so that its callers may simply send again.

    Args:
        options: How to reach Kafka.
        client_id: Name in the brokers' logs.
        may_send: Asked before each record; does not return to let it be sent if it must not.

    Attributes:
        away_since: Monotonic seconds since when nothing could be appended; None while all is well.
    """

    def __init__(self, options: Mapping[str, Any], *, client_id: str, may_send: Callable[[], None] = lambda: None) -> None:
        self._may_send = may_send
        self._client = dict(options)
        self._options = {**options, "client_id": client_id, "acks": "all", "enable_idempotence": True, "max_batch_size": BATCH_BYTES, "request_timeout_ms": 30_000}
        self._producer: AIOKafkaProducer | None = None
        self._changing = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()
        self._is_stopped = False
        self.away_since: float | None = None

    async def start(self) -> None:
        """Connect, unless that is done; waits as long as it takes."""
        async with self._changing:
            await self._connect()

    async def _connect(self) -> None:
        pause = 0.2
        while self._producer is None:
            if self._is_stopped:
                raise asyncio.CancelledError  # the worker leaves, and with it whoever still wants to send
            producer = AIOKafkaProducer(**self._options)
            try:
                await producer.start()
            except ClusterAuthorizationFailedError as error:
                await producer.stop()
                raise Stop(f"Kafka does not let this user write: {error}") from None
            except (KafkaError, OSError) as error:
                await producer.stop()
                self._failed(error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, 5.0)
            except asyncio.CancelledError:
                await producer.stop()
                raise
            else:
                self._producer = producer

    async def ping(self) -> None:
        """Return if Kafka answers; raises ``KafkaError`` if it does not."""
        producer = self._producer
        if producer is None:
            await self.start()
        elif not await producer.client.force_metadata_update():
            raise KafkaConnectionError("no broker answers")

    async def stop(self) -> None:
        """Send what is buffered, and disconnect for good."""
        self._is_stopped = True
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def send(self, topic: str, key: bytes | None, value: bytes | None, partition: int | None = None) -> Sent:
        """Append a record behind those sent before; ask ``delivered`` whether it has arrived.

        Raises:
            Stop: It is larger than Kafka takes, or Kafka does not allow it: sending it again would never end, and dropping it would lose it.
        """
        self._may_send()
        while True:
            producer = self._producer
            if producer is None:
                await self._start_over(None)
                continue
            try:
                return Sent(asyncio.shield(await producer.send(topic, value, key=key, partition=partition)), producer, topic)
            except HOPELESS as error:
                raise _refused(topic, error) from None
            except (KafkaError, OSError) as error:
                self._failed(error)
                await self._start_over(producer)

    async def send_all(
        self, topic: str, partition: int, records: Iterable[tuple[bytes, bytes | None]], headers: Sequence[tuple[str, bytes]] = (), on: object | None = None
    ) -> Sent | None:
        """Append records (key, value) of one partition in order, with the same headers, behind those sent before, in batches packed here.

        That costs a tenth of sending them one by one. With ``on``, None if another course has begun since that one, perhaps after some of them were sent.
        """
        self._may_send()
        records = list(records)
        while True:
            producer = self._producer
            if producer is None:
                await self._start_over(None)
                continue
            if on is not None and producer is not on:
                return None
            futures: list[asyncio.Future[Any]] = []
            sizes: list[int] = []
            try:
                for batch in _packed(producer, records, headers):
                    sizes.append(batch.record_count())
                    futures.append(await producer.send_batch(batch, topic, partition=partition))
                return Sent(futures[0] if len(futures) == 1 else asyncio.gather(*futures), producer, topic, tuple(sizes))  # shielded by aiokafka
            except HOPELESS as error:
                raise _refused(topic, error) from None
            except (KafkaError, OSError) as error:
                for future in futures:
                    future.cancel()  # what becomes of these does not matter: all are sent again
                self._failed(error)
                await self._start_over(producer)

    async def delivered(self, sent: Sent) -> bool:
        """Wait until all in-sync replicas have what was sent; False if that could not be had and it has to be sent again.

        Raises:
            Stop: The topic takes no records, or batches, of this size, or none of this user's.
        """
        try:
            await sent.future
        except HOPELESS as error:
            raise _refused(sent.topic, error) from None
        except (KafkaError, OSError) as error:
            self._failed(error)
            await self._start_over(sent.producer)
            return False
        if self.away_since is not None:
            log.info("Kafka takes records again, after %.1f s", time.monotonic() - self.away_since)
            self.away_since = None
        return True

    def course(self, sent: Sent) -> object:
        """Tell on which course records were sent: what an idempotent producer has sent stays in order, and nothing gets lost, until it fails."""
        return sent.producer

    def place(self, sent: Sent) -> Place | None:
        """Tell where records that ``send_all`` has sent have arrived; None if the brokers no longer knew, after a repetition."""
        result = sent.future.result()
        offsets = [metadata.offset for metadata in (result if len(sent.sizes) > 1 else [result])]
        return None if min(offsets) < 0 else Place(offsets[0], offsets[-1] + sent.sizes[-1])

    async def read(self, topic: str, partition: int, first: int, end: int) -> list[Any]:
        """Read the records of a partition from the offset ``first`` up to ``end``, all of which have been appended; however long that takes."""
        while True:
            try:
                return await self._read(TopicPartition(topic, partition), first, end) if first < end else []
            except (KafkaError, OSError) as error:
                self._failed(error)
                await asyncio.sleep(1)

    async def _read(self, tp: TopicPartition, first: int, end: int) -> list[Any]:
        consumer = AIOKafkaConsumer(**self._client, group_id=None, auto_offset_reset="earliest")
        consumer.assign([tp])
        try:
            await consumer.start()
            consumer.seek(tp, first)
            records: list[Any] = []
            while await consumer.position(tp) < end:
                for fetched in (await consumer.getmany(tp, timeout_ms=200)).values():
                    records += fetched
            return [record for record in records if record.offset < end]
        finally:
            await consumer.stop()

    async def append(self, topic: str, key: bytes | None, value: bytes | None, partition: int | None = None) -> int | None:
        """Append a record and wait until it is acknowledged, however long that takes.

        Returns:
            Its offset. None if it was sent again, and so may be there twice, or if the brokers no longer knew.
        """
        sent = await self.send(topic, key, value, partition)
        if await self.delivered(sent):
            offset: int = sent.future.result().offset
            return offset if offset >= 0 else None
        while not await self.delivered(await self.send(topic, key, value, partition)):
            pass
        return None

    def _failed(self, error: BaseException) -> None:
        if self.away_since is None:
            self.away_since = time.monotonic()
            log.warning("Kafka does not take records: %s", error)

    async def _start_over(self, failed: AIOKafkaProducer | None) -> None:
        """Replace a producer that has failed; sequence numbers that were given up with a batch would block it for good."""
        async with self._changing:
            if self._producer is not failed:
                return
            self._producer = None
            if failed is not None:
                disarm(failed)
                closing = asyncio.get_running_loop().create_task(close_disarmed(failed))
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
            await self._connect()


def _refused(topic: str, error: KafkaError) -> Stop:
    if isinstance(error, MessageSizeTooLargeError):
        return Stop(f"Kafka refuses a record for {topic} because of its size; max.message.bytes of that topic has to be at least {MAX_MESSAGE_BYTES}")
    return Stop(f"Kafka does not allow writing to {topic}: {type(error).__name__}")


def _packed(producer: AIOKafkaProducer, records: Iterable[tuple[bytes, bytes | None]], headers: Sequence[tuple[str, bytes]]) -> Iterator[BatchBuilder]:
    batch = producer.create_batch()
    common = list(headers)
    for key, value in records:
        if batch.append(timestamp=None, key=key, value=value, headers=common) is None:
            yield batch
            batch = producer.create_batch()
            batch.append(timestamp=None, key=key, value=value, headers=common)  # the first one always fits
    yield batch

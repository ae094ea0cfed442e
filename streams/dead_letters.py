"""Dead letters: what could not be used, why, and another try for what can be used by now."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from models.errors import Reject, Retry, Stop
from models.events import parse_interaction, parse_stop, parse_variant_posted
from models.moments import format_moment
from models.monitoring_record import parse_keyed
from models.policy import Defaults
from models.strict_json import parse_json
from streams.event_log import MOMENT_FIELD, to_bytes
from streams.integration import producing
from streams.integration.refusals import REFUSED
from streams.kafka_access import kafka_client_options, turned_away
from streams.topics import RETENTION_DAYS, topic_name

if TYPE_CHECKING:
    from aiokafka.structs import ConsumerRecord, RecordMetadata

    from streams.settings import Settings

READ_SECONDS = 10.0
"""How long one record may take to come."""
SEND_SECONDS = 30.0
"""How long one record may take to be acknowledged."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """The value of a ``dead_letter`` record. Source: contract, section 2.

    ``topic``, ``partition`` and ``offset`` name the record that could not be used; ``timestamp`` is its append time in milliseconds
    since the epoch. ``key_base64`` and ``value_base64`` hold the first 4 KiB of each, None where there was none.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    key_base64: str | None = None
    value_base64: str | None = None
    key_size: int | None = None
    value_size: int | None = None
    reason: str = ""
    at: str = ""

    @property
    def place(self) -> tuple[str, int, int]:
        """Which record it was; a letter may come more than once."""
        return self.topic, self.partition, self.offset

    def without_content(self) -> DeadLetter:
        """Return a letter that takes a tenth of the memory: which record it was, and why it could not be used."""
        return msgspec.structs.replace(self, key_base64=None, value_base64=None)

    def as_json(self) -> dict[str, Any]:
        """Return the letter as it is, with key and value also as text where they are text."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        return fields | {"key": _text(self.key_base64), "value": _text(self.value_base64)}


def _text(packed: str | None) -> str | None:
    try:
        return None if packed is None else base64.b64decode(packed).decode()
    except ValueError:
        return None


_decode = msgspec.json.Decoder(DeadLetter).decode

Fate = Literal["sent", "repeated", "gone", "unusable"]


@dataclass(frozen=True, slots=True)
class Resent:
    """What became of one letter.

    Attributes:
        letter: The dead letter.
        fate: ``sent``: it is on its topic again. ``repeated``: its event has just been sent, for another letter. ``gone``: retention has removed the original.
            ``unusable``: it would be refused again.
        detail: Why it is unusable.
        partition: Where it landed, if it was sent; likewise ``offset``.
    """

    letter: DeadLetter
    fate: Fate
    detail: str = ""
    partition: int | None = None
    offset: int | None = None


class DeadLetters:
    """Reads the dead letters there are, and sends their originals again. Use it as ``async with DeadLetters.open(settings) as letters``."""

    def __init__(self, settings: Settings, consumer: AIOKafkaConsumer) -> None:
        self._settings = settings
        self._consumer = consumer
        self._producer: AIOKafkaProducer | None = None
        self._sent: set[tuple[str, str | None, str]] = set()
        self._topics = {topic_name(settings, topic): topic for topic in RETENTION_DAYS}

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[DeadLetters]:
        """Connect.

        Raises:
            Retry: No broker answers, or it stopped answering.
            Stop: The topics do not exist, or may not be read.
        """
        consumer = AIOKafkaConsumer(**kafka_client_options(settings), enable_auto_commit=False, auto_offset_reset="earliest")
        letters = cls(settings, consumer)
        try:
            await consumer.start()
            if topic_name(settings, "dead_letter") not in await consumer.topics():
                raise Stop(f"topic {topic_name(settings, 'dead_letter')} is not there; `early-kill topics` creates it")
            yield letters
        except REFUSED as error:
            raise Stop(f"Kafka does not allow it: {error}") from error
        except (KafkaError, TimeoutError) as error:
            refusal = await turned_away(settings)
            raise (Retry(f"Kafka at {settings.kafka_bootstrap_servers} does not answer") if refusal is None else Stop(refusal)) from error
        finally:
            await consumer.stop()
            if letters._producer is not None:
                await producing.stop(letters._producer)

    async def letters(self, *, topic: str | None = None, reason: str | None = None) -> AsyncIterator[DeadLetter]:
        """Yield the letters that are there now, each record once, partition by partition, oldest first.

        Args:
            topic: Only those from this topic, with or without the prefix.
            reason: Only those whose reason contains this text, upper or lower case.
        """
        seen: set[tuple[str, int, int]] = set()
        async for record in self._records(topic_name(self._settings, "dead_letter")):
            try:
                letter = _decode(record.value or b"")
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue  # somebody else's
            wanted = topic in (None, letter.topic, self._topics.get(letter.topic)) and (reason is None or reason.casefold() in letter.reason.casefold())
            if wanted and letter.place not in seen:
                seen.add(letter.place)
                yield letter

    async def _records(self, topic: str) -> AsyncIterator[ConsumerRecord]:
        """Yield everything that is on a topic at this moment."""
        places = await self._places(topic)
        first, end = await self._consumer.beginning_offsets(places), await self._consumer.end_offsets(places)
        for place in places:
            if first[place] < end[place]:
                await self._go_to(place, first[place])
                position = first[place]
                while position < end[place]:
                    batch, position = await self._fetch(place, position)
                    for record in batch:
                        if record.offset < end[place]:
                            yield record

    async def resend(self, letter: DeadLetter, now_us: int) -> Resent:
        """Read a letter's original record and put it onto its topic again, with its original moment.

        If the value has no moment, the original append time becomes it. An interaction without ``event_id`` gets one that
        follows from where the original lies, so that sending it again twice counts once; while these letters are open, it is sent once.

        Args:
            letter: Which.
            now_us: Microseconds since the epoch. A moment that lay too far ahead when it was appended first may be past by now.
        """
        topic = self._topics.get(letter.topic)
        if topic is None or topic in ("dead_letter", "variant_killed"):
            return Resent(letter, "unusable", f"{letter.topic} is none of the topics that are read")
        record = await self._original(letter)
        if record is None:
            return Resent(letter, "gone")
        try:
            value = again(topic, record, now_us, self._settings.defaults)
        except Reject as error:
            return Resent(letter, "unusable", str(error))
        event = _event_of(topic, value)
        if event in self._sent:
            return Resent(letter, "repeated")
        landed = await self._send(letter.topic, value, record.key)
        if event is not None:
            self._sent.add(event)
        return Resent(letter, "sent", "", landed.partition, landed.offset)

    async def _send(self, topic: str, value: bytes | None, key: bytes | None) -> RecordMetadata:
        """Send a record; looking at letters needs no right to write, so the producer starts here."""
        if self._producer is None:
            producer = AIOKafkaProducer(**kafka_client_options(self._settings), acks="all", enable_idempotence=True)
            await producing.start(producer)
            self._producer = producer
        async with asyncio.timeout(SEND_SECONDS):
            return await self._producer.send_and_wait(topic, value=value, key=key)

    async def _original(self, letter: DeadLetter) -> ConsumerRecord | None:
        places = [place for place in await self._places(letter.topic) if place.partition == letter.partition]
        if not places:
            return None
        place = places[0]
        first, end = (await self._consumer.beginning_offsets(places))[place], (await self._consumer.end_offsets(places))[place]
        if not first <= letter.offset < end:
            return None
        await self._go_to(place, letter.offset)
        batch, _ = await self._fetch(place, letter.offset, 1)
        return batch[0] if batch and batch[0].offset == letter.offset else None

    async def _places(self, topic: str) -> list[TopicPartition]:
        cluster = await self._consumer._client.fetch_all_metadata()  # noqa: SLF001 - the public call tells of subscribed topics only
        return [TopicPartition(topic, number) for number in sorted(cluster.partitions_for_topic(topic) or ())]

    async def _go_to(self, place: TopicPartition, offset: int) -> None:
        if place not in self._consumer.assignment():
            self._consumer.assign([place])
        self._consumer.seek(place, offset)

    async def _fetch(self, place: TopicPartition, position: int, limit: int = 500) -> tuple[list[ConsumerRecord], int]:
        """Return the records from ``position`` on, and the position after them. There may be none: retention removed them, or they are marks of transactions."""
        batches: dict[TopicPartition, list[ConsumerRecord]] = await self._consumer.getmany(place, timeout_ms=round(READ_SECONDS * 1000), max_records=limit)
        after: int = await asyncio.wait_for(self._consumer.position(place), READ_SECONDS)
        if after == position:
            raise Retry(f"topic {place.topic} does not answer: its partition {place.partition} sent nothing within {READ_SECONDS:g} s")
        return batches.get(place, []), after


def again(topic: str, record: ConsumerRecord, now_us: int, defaults: Defaults) -> bytes | None:
    """Return the value to send again at ``now_us`` for a record of ``topic`` (without the prefix).

    Raises:
        Reject: A worker would refuse it again, as it stands.
    """
    value: bytes | None = record.value
    if topic in MOMENT_FIELD:
        event = parse_json(value)
        if event.get(MOMENT_FIELD[topic]) is None:
            event[MOMENT_FIELD[topic]] = format_moment(record.timestamp * 1_000)
        if topic == "interaction" and event.get("event_id") is None:
            event["event_id"] = f"dead-letter:{topic}/{record.partition}/{record.offset}"
        value = to_bytes(event)
    _check(topic, value, record.key, now_us, defaults)
    return value


def _event_of(topic: str, value: bytes | None) -> tuple[str, str | None, str] | None:
    """Return what event an interaction is; one that was sent again in vain has a letter for each time."""
    if topic != "interaction":
        return None
    event = parse_json(value)
    return event["variant_id"], event.get("post_id"), event["event_id"]


def _check(topic: str, value: bytes | None, key: bytes | None, now_us: int, defaults: Defaults) -> None:
    if topic == "variant_posted":
        posting = parse_variant_posted(value, key, now_us, defaults)
        if now_us > posting.too_late_after:
            raise Reject("posted more than a day after its own deadline")
    elif topic == "interaction":
        parse_interaction(value, key, now_us)
    elif topic == "monitoring_control":
        parse_stop(value, key)
    elif topic == "monitoring_record":
        parse_keyed(value, key)

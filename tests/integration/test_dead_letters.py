"""Dead letters on a real Kafka: looked at, and their originals sent again with the moments they had."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

from models.errors import Retry, Stop
from models.moments import SECOND, format_moment
from streams import dead_letters
from streams.dead_letters import DeadLetter, DeadLetters
from streams.integration import producing
from streams.kafka_access import kafka_client_options
from streams.local.child import free_port
from streams.settings import Settings
from streams.topics import ensure_topics, topic_name
from tests.faults.hostile import record, say

VIEW = {"variant_id": "v", "kind": "view"}


class Topics:
    """The topics of one test, to write to and to read from."""

    def __init__(self, settings: Settings, producer: AIOKafkaProducer) -> None:
        self.settings = settings
        self.producer = producer

    async def put(self, topic: str, value: bytes | dict[str, Any] | None, key: bytes | None = b"v") -> Any:
        content = json.dumps(value).encode() if isinstance(value, dict) else value
        return await self.producer.send_and_wait(topic_name(self.settings, topic), content, key=key)

    async def bury(self, record: Any, value: bytes | dict[str, Any] | None, reason: str = "no post", key: bytes | None = b"v", times: int = 1) -> None:
        """Write the dead letter of a record that was put before."""
        content = json.dumps(value).encode() if isinstance(value, dict) else value
        letter = {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "timestamp": record.timestamp,
            "key_base64": None if key is None else base64.b64encode(key[:4096]).decode(),
            "value_base64": None if content is None else base64.b64encode(content[:4096]).decode(),
            "key_size": None if key is None else len(key),
            "value_size": None if content is None else len(content),
            "reason": reason,
            "at": "2026-01-01T00:00:00.000000Z",
        }
        for _ in range(times):
            await self.put("dead_letter", letter, key)

    async def all_of(self, topic: str) -> list[Any]:
        consumer = AIOKafkaConsumer(**kafka_client_options(self.settings))
        await consumer.start()
        try:
            places = [TopicPartition(topic_name(self.settings, topic), number) for number in range(self.settings.partitions)]
            consumer.assign(places)
            first, end = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
            for place in places:
                consumer.seek(place, first[place])
            records: list[Any] = []
            while len(records) < sum(end.values()) - sum(first.values()):
                for batch in (await consumer.getmany(timeout_ms=1_000)).values():
                    records.extend(batch)
            return sorted(records, key=lambda record: (record.timestamp, record.offset))
        finally:
            await consumer.stop()


@pytest.fixture
async def topics(kafka_settings: Settings) -> AsyncIterator[Topics]:
    await ensure_topics(kafka_settings)
    producer = AIOKafkaProducer(**kafka_client_options(kafka_settings), acks="all")
    await producer.start()
    yield Topics(kafka_settings, producer)
    await producer.stop()


async def letters_of(topics: Topics, **filters: Any) -> list[DeadLetter]:
    async with DeadLetters.open(topics.settings) as letters:
        return [letter async for letter in letters.letters(**filters)]


async def resend_all(topics: Topics, after_us: int = 0) -> list[tuple[str, str]]:
    async with DeadLetters.open(topics.settings) as letters:
        found = [letter async for letter in letters.letters()]
        resent = [await letters.resend(letter, time.time_ns() // 1_000 + after_us) for letter in found]
    return [(one.fate, one.detail) for one in resent]


async def test_each_record_is_listed_once_with_what_it_held(topics: Topics) -> None:
    """A letter may be there twice; bytes that are no text stay base64."""
    good, bad = await topics.put("interaction", VIEW), await topics.put("interaction", b"\xff\xfe")
    await topics.bury(good, VIEW, times=3)
    await topics.bury(bad, b"\xff\xfe", "is not valid UTF-8")
    first, second = (letter.as_json() for letter in await letters_of(topics))
    assert (first["reason"], first["key"], json.loads(first["value"])) == ("no post", "v", VIEW)
    assert (second["value"], second["value_base64"], second["value_size"]) == (None, "//4=", 2)


async def test_letters_can_be_chosen_by_topic_and_reason(topics: Topics) -> None:
    """The topic with or without its prefix, the reason in part and in any case."""
    await topics.bury(await topics.put("interaction", VIEW), VIEW, "no post")
    await topics.bury(await topics.put("variant_posted", b"{}"), b"{}", "variant_id: Field required")
    name = topic_name(topics.settings, "variant_posted")
    assert [letter.topic for letter in await letters_of(topics, topic="variant_posted")] == [name]
    assert [letter.topic for letter in await letters_of(topics, topic=name)] == [name]
    assert [letter.reason for letter in await letters_of(topics, reason="NO POST")] == ["no post"]
    assert await letters_of(topics, topic="nothing") == []


async def test_an_event_without_a_moment_is_sent_again_with_the_one_it_was_appended_at(topics: Topics) -> None:
    """An hour later it still happened when it happened; and it gets an id, so that sending it twice counts once."""
    record = await topics.put("interaction", VIEW)
    await topics.bury(record, VIEW)
    assert await resend_all(topics) == [("sent", "")]
    assert await resend_all(topics) == [("sent", "")]
    _, once, twice = await topics.all_of("interaction")
    assert once.key == b"v"
    assert json.loads(once.value) == json.loads(twice.value)
    assert json.loads(once.value) == {**VIEW, "occurred_at": format_moment(record.timestamp * 1000), "event_id": f"dead-letter:interaction/{record.partition}/{record.offset}"}


async def test_a_moment_and_an_id_of_its_own_stay(topics: Topics) -> None:
    """Also fields that nobody knows."""
    event = {**VIEW, "occurred_at": 1_600_000_000, "event_id": "mine", "later": [1]}
    await topics.bury(await topics.put("interaction", event), event)
    post = {"variant_id": "v", "persona_id": "p", "post_id": "o"}
    record = await topics.put("variant_posted", post)
    await topics.bury(record, post)
    assert await resend_all(topics) == [("sent", ""), ("sent", "")]
    assert json.loads((await topics.all_of("interaction"))[-1].value) == event
    assert json.loads((await topics.all_of("variant_posted"))[-1].value) == {**post, "posted_at": format_moment(record.timestamp * 1000)}


async def test_the_whole_original_is_sent_not_the_first_4_kib_of_it(topics: Topics) -> None:
    """That is why it is read again."""
    event = {**VIEW, "later": "x" * 10_000}
    await topics.bury(await topics.put("interaction", event), event)
    await resend_all(topics)
    assert len(json.loads((await topics.all_of("interaction"))[-1].value)["later"]) == 10_000


async def test_what_would_be_refused_again_is_not_sent(topics: Topics) -> None:
    """It would only come back as another dead letter."""
    await topics.bury(await topics.put("interaction", b"nonsense"), b"nonsense", "is not JSON")
    await topics.bury(await topics.put("interaction", VIEW, key=b"w"), VIEW, "key", key=b"w")
    (first, why), (second, because) = sorted(await resend_all(topics), key=lambda one: "key" in one[1])
    assert (first, second) == ("unusable", "unusable")
    assert "is not JSON" in why
    assert "key differs" in because
    assert len(await topics.all_of("interaction")) == 2


async def test_a_post_whose_window_closed_over_a_day_ago_is_not_sent(topics: Topics) -> None:
    """The monitor would refuse it again: what counts is its own window, from when it was posted."""
    for minutes, seconds_ago, fate in [(10, 86_400 + 610, "unusable"), (10, 86_400 + 500, "sent"), (None, 86_400 + 610, "unusable")]:
        post = {"variant_id": "v", "persona_id": "p", "post_id": "o", "timeout_minutes": minutes, "posted_at": time.time() - seconds_ago}
        landed = await topics.put("variant_posted", post)
        await topics.bury(landed, post, f"number {landed.offset}")
        async with DeadLetters.open(topics.settings) as letters:
            [letter] = [letter async for letter in letters.letters(reason=f"number {landed.offset}")]
            assert (await letters.resend(letter, time.time_ns() // 1_000)).fate == fate


async def test_a_monitoring_record_that_the_sink_would_refuse_again_is_not_sent(topics: Topics) -> None:
    """Only what it reads, under its key."""
    for value, key in [(b"{}", b"v"), (None, b"v"), (say(record("v")), b"w")]:
        await topics.bury(await topics.put("monitoring_record", value, key), value, "refused", key)
    assert {fate for fate, _ in await resend_all(topics)} == {"unusable"}
    await topics.bury(await topics.put("monitoring_record", say(record("v"))), b"", "refused by PostgreSQL")
    assert sorted(fate for fate, _ in await resend_all(topics)) == ["sent", "unusable", "unusable", "unusable"]


async def test_a_moment_that_lay_too_far_ahead_is_sent_once_it_does_not(topics: Topics) -> None:
    """A producer whose clock runs ahead: what it wrote is as good as any other, a little later."""
    early = {**VIEW, "occurred_at": time.time() + 310}
    await topics.bury(await topics.put("interaction", early), early, "occurred_at: lies more than 5 minutes after the record was appended")
    (fate, why), *_ = await resend_all(topics)
    assert fate == "unusable"
    assert "more than 5 minutes" in why
    assert [fate for fate, _ in await resend_all(topics, after_us=11 * SECOND)] == ["sent"]
    assert json.loads((await topics.all_of("interaction"))[-1].value)["occurred_at"] == early["occurred_at"]


async def test_an_original_that_retention_has_removed_is_gone(topics: Topics) -> None:
    """It says so instead of sending the next record there is."""
    gone = await topics.put("interaction", VIEW)
    await topics.put("interaction", VIEW)
    await topics.bury(gone, VIEW)
    admin = AIOKafkaAdminClient(**kafka_client_options(topics.settings))
    await admin.start()
    await admin.delete_records({TopicPartition(gone.topic, gone.partition): RecordsToDelete(before_offset=gone.offset + 1)})
    await admin.close()
    assert await resend_all(topics) == [("gone", "")]


async def test_a_letter_that_names_a_topic_of_others_is_not_followed(topics: Topics) -> None:
    """Anybody may write to the topic; nothing of it may make us write elsewhere."""
    await topics.put("dead_letter", {"topic": "payments", "partition": 0, "offset": 0, "timestamp": 0, "reason": "x"})
    assert [fate for fate, _ in await resend_all(topics)] == ["unusable"]


async def test_an_event_with_several_letters_is_sent_once(topics: Topics) -> None:
    """Sent again in vain, it has a letter for each time: all of them together are one event, and a day later still one."""
    await topics.bury(await topics.put("interaction", VIEW), VIEW)
    assert await resend_all(topics) == [("sent", "")]
    for _ in range(3):
        copy = (await topics.all_of("interaction"))[-1]
        await topics.bury(copy, copy.value)
        fates = [fate for fate, _ in await resend_all(topics)]
        assert (fates.count("sent"), fates.count("repeated")) == (1, len(fates) - 1)
    other = {**VIEW, "event_id": "mine"}
    for post in ("a", "b"):
        await topics.bury(await topics.put("interaction", {**other, "post_id": post}), other)
    assert [fate for fate, _ in await resend_all(topics)].count("sent") == 3


async def test_to_look_at_letters_takes_no_right_to_write(topics: Topics, monkeypatch: pytest.MonkeyPatch) -> None:
    """No producer is made for it."""
    await topics.bury(await topics.put("interaction", VIEW), VIEW)
    monkeypatch.setattr(dead_letters, "AIOKafkaProducer", None)
    assert [letter.reason for letter in await letters_of(topics)] == ["no post"]


async def test_a_resend_does_not_wait_for_ever_for_a_producer(topics: Topics, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idempotent one asks for its id as long as no broker gives it one."""

    async def for_ever(_: object) -> None:
        await asyncio.Event().wait()

    await topics.bury(await topics.put("interaction", VIEW), VIEW)
    monkeypatch.setattr(AIOKafkaProducer, "start", for_ever)
    monkeypatch.setattr(producing, "START_SECONDS", 0.2)
    with pytest.raises(Retry, match="does not answer"):
        async with asyncio.timeout(20):
            await resend_all(topics)


async def test_many_letters_on_all_partitions_are_all_read(topics: Topics) -> None:
    """More than one fetch holds."""
    record = await topics.put("interaction", VIEW)
    for number in range(1_500):
        letter = {"topic": record.topic, "partition": 0, "offset": number, "timestamp": 0, "reason": "x"}
        await topics.producer.send(topic_name(topics.settings, "dead_letter"), json.dumps(letter).encode(), key=str(number % 9).encode())
    await topics.producer.flush()
    assert sorted(letter.offset for letter in await letters_of(topics)) == list(range(1_500))


async def test_without_topics_or_broker_it_is_one_clear_error(kafka_settings: Settings) -> None:
    """What is missing is named."""
    with pytest.raises(Stop, match="dead_letter is not there"):
        async with DeadLetters.open(kafka_settings):
            pass
    with pytest.raises(Retry, match="does not answer"):
        async with DeadLetters.open(Settings.model_validate({"kafka_bootstrap_servers": f"127.0.0.1:{free_port()}"})):
            pass

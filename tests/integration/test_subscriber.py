"""Hearing of kills on a real Kafka: each once, none lost."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

from models.errors import Retry, Stop
from streams.integration import KillSubscriber, VariantKilled
from streams.kafka_access import kafka_client_options
from streams.local.child import free_port
from streams.local.kafka import KafkaServer
from streams.settings import Settings
from streams.topics import ensure_topics, topic_name
from tests.records import kill_of


@pytest.fixture
async def topics(kafka_settings: Settings) -> Settings:
    """The settings, with the topics there."""
    await ensure_topics(kafka_settings)
    return kafka_settings


async def tell(settings: Settings, *kills: dict[str, Any] | bytes) -> None:
    """Put kill events, or bytes as they are, onto the topic."""
    producer = AIOKafkaProducer(**kafka_client_options(settings), acks="all")
    await producer.start()
    try:
        for event in kills:
            value, key = (event, b"v") if isinstance(event, bytes) else (json.dumps(event).encode(), event["variant_id"].encode())
            await producer.send_and_wait(topic_name(settings, "variant_killed"), value, key=key)
    finally:
        await producer.stop()


async def hear(subscriber: KillSubscriber, count: int, seconds: float = 20) -> list[int]:
    """The next so many kills, by number; the last one is left in hand."""
    async with asyncio.timeout(seconds):
        return [(await anext(subscriber)).kill_id.int for _ in range(count)]


async def hears_nothing(subscriber: KillSubscriber, seconds: float = 1.5) -> bool:
    """True if no kill comes for a while."""
    try:
        async with asyncio.timeout(seconds):
            await anext(subscriber)
    except TimeoutError:
        return True
    return False


async def test_each_kill_comes_once_however_often_it_is_on_the_topic(topics: Settings) -> None:
    """Delivery is at least once; the caller acts once."""
    await tell(topics, kill_of(1), kill_of(1), kill_of(2), kill_of(1), kill_of(3))
    async with KillSubscriber(topics, from_beginning=True) as subscriber:
        assert sorted(await hear(subscriber, 3)) == [1, 2, 3]
        assert await hears_nothing(subscriber)


async def test_a_kill_is_typed(topics: Settings) -> None:
    """Moments are aware datetimes, ids are UUIDs; fields of a later version do no harm."""
    await tell(topics, kill_of(1, later={"a": 1}))
    async with KillSubscriber(topics, from_beginning=True) as subscriber:
        event = await asyncio.wait_for(anext(subscriber), 20)
    assert isinstance(event, VariantKilled)
    assert event.posted_at.isoformat() == "2026-01-01T00:00:00.000001+00:00"
    assert event.deciding_event.offset == 7
    assert event.kill_rate == 0.03
    assert json.loads(event.as_json()) == kill_of(1)


async def test_without_from_beginning_it_starts_with_what_comes_after_the_start(topics: Settings) -> None:
    """Old kills stay where they are; a kill right after the start is not missed."""
    await tell(topics, kill_of(1))
    async with KillSubscriber(topics) as subscriber:
        await tell(topics, kill_of(2))
        assert await hear(subscriber, 1) == [2]


async def test_what_cannot_be_read_is_left_out(topics: Settings) -> None:
    """Somebody else's record on the topic stops nobody."""
    await tell(topics, b"nonsense", b"{}", kill_of(1))
    async with KillSubscriber(topics, from_beginning=True) as subscriber:
        assert await hear(subscriber, 1) == [1]


async def test_a_group_goes_on_where_it_stopped(topics: Settings) -> None:
    """What was done is not told again, what came meanwhile is not missed."""
    await tell(topics, *(kill_of(number) for number in range(1, 6)))
    async with KillSubscriber(topics, group_id="g", from_beginning=True) as subscriber:
        assert sorted(await hear(subscriber, 5)) == [1, 2, 3, 4, 5]
        assert await hears_nothing(subscriber)
    await tell(topics, kill_of(6))
    async with KillSubscriber(topics, group_id="g", from_beginning=True) as subscriber:
        assert await hear(subscriber, 1) == [6]
        assert await hears_nothing(subscriber)


async def test_the_kill_in_hand_comes_again_after_a_restart(topics: Settings) -> None:
    """The caller never came back for the next one, so it may have died half-way: at least once."""
    await tell(topics, kill_of(1), kill_of(1))
    async with KillSubscriber(topics, group_id="g", from_beginning=True) as subscriber:
        assert await hear(subscriber, 1) == [1]
    async with KillSubscriber(topics, group_id="g") as subscriber:
        assert await hear(subscriber, 1) == [1]


async def test_a_new_group_that_heard_nothing_yet_misses_nothing_while_it_is_away(topics: Settings) -> None:
    """Its position is kept from the first start on."""
    await tell(topics, kill_of(1))
    async with KillSubscriber(topics, group_id="g"):
        pass
    await tell(topics, kill_of(2))
    async with KillSubscriber(topics, group_id="g") as subscriber:
        assert await hear(subscriber, 1) == [2]


async def test_a_repetition_after_a_restart_is_still_known(topics: Settings) -> None:
    """The monitor crashed and told again what the subscriber had done before its own restart."""
    await tell(topics, kill_of(1))
    async with KillSubscriber(topics, group_id="g", from_beginning=True) as subscriber:
        assert await hear(subscriber, 1) == [1]
        assert await hears_nothing(subscriber)
    await tell(topics, kill_of(1), kill_of(2))
    async with KillSubscriber(topics, group_id="g") as subscriber:
        assert sorted(await hear(subscriber, 1)) == [2]
        assert await hears_nothing(subscriber)


async def test_two_members_share_the_kills_and_one_takes_over_from_the_other(topics: Settings) -> None:
    """Between them each kill once; what one leaves behind the other gets."""
    heard: list[int] = []

    async def listen(subscriber: KillSubscriber) -> None:
        async for event in subscriber:
            heard.append(event.kill_id.int)  # noqa: PERF401 - there is no end

    async with KillSubscriber(topics, group_id="g", from_beginning=True) as first:
        listening = [asyncio.create_task(listen(first))]
        async with KillSubscriber(topics, group_id="g", from_beginning=True) as second:
            listening.append(asyncio.create_task(listen(second)))
            await tell(topics, *(kill_of(number) for number in range(40)))
            await _until(lambda: len(set(heard)) == 40)
            listening.pop().cancel()
        await tell(topics, *(kill_of(number) for number in range(40, 60)))
        await _until(lambda: len(set(heard)) == 60)
        listening.pop().cancel()
    assert set(heard) == set(range(60))
    assert len(heard) <= 62  # at most the one in each hand came twice


async def _until(condition: Any, seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


async def test_what_retention_has_left_is_told_when_the_position_is_gone(topics: Settings) -> None:
    """A group that was away for weeks starts with the oldest kill there is, not with the next."""
    await tell(topics, *(kill_of(number, variant_id="v") for number in range(5)))
    async with KillSubscriber(topics, group_id="g", from_beginning=True) as subscriber:
        assert await hear(subscriber, 2) == [0, 1]
    admin = AIOKafkaAdminClient(**kafka_client_options(topics))
    await admin.start()
    try:
        places = [TopicPartition(topic_name(topics, "variant_killed"), number) for number in range(topics.partitions)]
        async with KillSubscriber(topics, from_beginning=True) as probe:
            end = await probe._consumer.end_offsets(places)  # type: ignore[union-attr]
        await admin.delete_records({place: RecordsToDelete(before_offset=3) for place in places if end[place]})
    finally:
        await admin.close()
    async with KillSubscriber(topics, group_id="g") as subscriber:
        assert await hear(subscriber, 2) == [3, 4]


@pytest.mark.parametrize("group_id", [None, "g"])
async def test_a_broker_that_was_killed_and_came_back_is_waited_for(topics: Settings, kafka: KafkaServer, group_id: str | None) -> None:
    """The subscriber goes on by itself, and misses nothing."""
    async with KillSubscriber(topics, group_id=group_id) as subscriber:
        await tell(topics, kill_of(1))
        assert await hear(subscriber, 1) == [1]
        waiting = asyncio.create_task(hear(subscriber, 1, seconds=60))
        try:
            kafka.kill()
            await asyncio.sleep(1)
        finally:
            await asyncio.to_thread(kafka.start)
            await asyncio.to_thread(kafka.wait_ready, 60)
        await tell(topics, kill_of(2))
        assert await waiting == [2]


async def test_a_missing_topic_is_named(kafka_settings: Settings) -> None:
    """Nobody has run ``early-kill topics`` yet."""
    with pytest.raises(Stop, match="variant_killed is not there"):
        async with KillSubscriber(kafka_settings):
            pass


async def test_without_a_broker_it_is_one_clear_error() -> None:
    """With the address that was tried."""
    with pytest.raises(Retry, match=r"no Kafka broker answers at 127\.0\.0\.1"):
        async with KillSubscriber(Settings.model_validate({"kafka_bootstrap_servers": f"127.0.0.1:{free_port()}"})):
            pass

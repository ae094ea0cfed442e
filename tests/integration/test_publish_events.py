"""Publishing to a real Kafka: acknowledged, in its place, or an error."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from models.errors import Reject, Retry, Stop
from streams.integration import EventPublisher, NotPublished, on_variant_posted
from streams.integration.pipeline import Pipeline
from streams.kafka_access import kafka_client_options
from streams.local.child import free_port
from streams.local.kafka import KafkaServer
from streams.settings import Settings
from streams.topics import ensure_topics, partition_for, topic_name
from tests.standstill import standing_still

POST = {"variant_id": "v-1", "persona_id": "p-1", "post_id": "post-1"}
VIEW = {"variant_id": "v-1", "kind": "view"}


@pytest.fixture
async def topics(kafka_settings: Settings) -> Settings:
    """The settings, with the topics there."""
    await ensure_topics(kafka_settings)
    return kafka_settings


@pytest.fixture
async def publisher(topics: Settings) -> AsyncIterator[EventPublisher]:
    async with EventPublisher(topics) as publisher:
        yield publisher


async def everything_on(settings: Settings, topic: str) -> list[Any]:
    """Every record of a topic, in order of append time."""
    name = topic_name(settings, topic)
    consumer = AIOKafkaConsumer(**kafka_client_options(settings))
    await consumer.start()
    try:
        places = [TopicPartition(name, number) for number in range(settings.partitions)]
        consumer.assign(places)
        end = await consumer.end_offsets(places)
        for place in places:
            consumer.seek(place, 0)
        records: list[Any] = []
        while len(records) < sum(end.values()):
            for batch in (await consumer.getmany(timeout_ms=1_000)).values():
                records.extend(batch)
        return sorted(records, key=lambda record: (record.timestamp, record.offset))
    finally:
        await consumer.stop()


async def test_a_post_lands_where_it_is_said_to(topics: Settings, publisher: EventPublisher) -> None:
    """Keyed by variant, on the partition that follows from it, with the broker's append time."""
    before = time.time_ns() // 1_000_000
    landed = await publisher.publish_variant_posted({**POST, "metadata": {"a": 1}}, timeout_minutes=5)
    (record,) = await everything_on(topics, "variant_posted")
    assert (landed.topic, landed.partition, landed.offset, landed.timestamp) == (record.topic, record.partition, record.offset, record.timestamp)
    assert record.partition == partition_for("v-1", topics.partitions)
    assert record.key == b"v-1"
    assert json.loads(record.value) == {**POST, "metadata": {"a": 1}, "timeout_minutes": 5}
    assert before - 1_000 <= landed.timestamp <= time.time_ns() // 1_000_000 + 1_000


async def test_an_interaction_without_an_id_gets_one_and_a_given_one_is_kept(topics: Settings, publisher: EventPublisher) -> None:
    """So that it can be told apart when it has to be sent again."""
    added = await publisher.publish_interaction(VIEW)
    given = await publisher.publish_interaction(**VIEW, event_id="e-1")
    assert [json.loads(record.value)["event_id"] for record in await everything_on(topics, "interaction")] == [added.event_id, "e-1"]
    assert added.event_id
    assert given.event_id == "e-1"


async def test_an_aware_datetime_is_a_moment_and_a_naive_one_is_refused(topics: Settings, publisher: EventPublisher) -> None:
    """Python callers have datetimes."""
    await publisher.publish_interaction(VIEW, occurred_at=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC))
    assert json.loads((await everything_on(topics, "interaction"))[0].value)["occurred_at"] == "2026-01-02T03:04:05.000006Z"
    with pytest.raises(Reject, match="occurred_at"):
        await publisher.publish_interaction(VIEW, occurred_at=datetime(2026, 1, 2))  # noqa: DTZ001 - the point of it


@pytest.mark.parametrize(
    ("event", "field"),
    [
        ({**POST, "variant_id": ""}, "variant_id"),
        ({**POST, "variant_id": 5}, "variant_id"),
        ({**POST, "variant_id": "\ud800"}, None),
        ({**POST, "expected_engagement_rate": 0}, "expected_engagement_rate"),
        ({**POST, "timeout_minutes": float("nan")}, None),
        ({**POST, "posted_at": "2026-01-01T00:00:00"}, "posted_at"),
        ({**POST, "posted_at": time.time() + 3600}, "posted_at"),
        ({**POST, "metadata": {"a": object()}}, None),
        ({**POST, "later": "x" * 70_000}, None),
    ],
)
async def test_what_a_worker_would_refuse_is_refused_here(topics: Settings, publisher: EventPublisher, event: dict[str, Any], field: str | None) -> None:
    """And nothing is sent; the error names the field."""
    with pytest.raises(Reject) as caught:
        await publisher.publish_variant_posted(event)
    assert caught.value.field == field
    assert await everything_on(topics, "variant_posted") == []


async def test_many_events_keep_their_order_and_are_told_in_it(topics: Settings, publisher: EventPublisher) -> None:
    """Ten thousand on their way at once, on two topics; within a variant they stay in order."""
    events = [("variant_posted", POST), *(("interaction", {**VIEW, "variant_id": f"v-{number % 7}", "event_id": str(number)}) for number in range(10_000))]
    started = time.monotonic()
    landed = await publisher.publish_many(events)
    assert time.monotonic() - started < 20
    assert [place.event_id for place in landed[1:]] == [str(number) for number in range(10_000)]
    records = await everything_on(topics, "interaction")
    assert len(records) == 10_000
    for variant in range(7):
        mine = [int(json.loads(record.value)["event_id"]) for record in records if record.key == f"v-{variant}".encode()]
        assert mine == sorted(mine)


async def test_many_events_stop_at_the_first_bad_one_and_those_before_it_are_there(topics: Settings, publisher: EventPublisher) -> None:
    """As promised."""
    with pytest.raises(Reject, match="count"):
        await publisher.publish_many([("interaction", VIEW), ("interaction", {**VIEW, "count": 0}), ("interaction", VIEW)])
    assert len(await everything_on(topics, "interaction")) == 1


async def test_a_pipeline_tells_of_a_failure_at_the_next_send(publisher: EventPublisher) -> None:
    """A long replay must not go on for an hour behind a dead broker."""
    pipeline = Pipeline(publisher, limit=2)
    failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    (await pipeline.send("interaction", VIEW)).add_done_callback(lambda _: None)
    await pipeline._free.acquire()
    pipeline._done(_failed(failed))
    with pytest.raises(Retry, match="gone"):
        await pipeline.send("interaction", VIEW)


def _failed(future: asyncio.Future[Any]) -> asyncio.Future[Any]:
    future.set_exception(Retry("gone"))
    return future


async def test_a_missing_topic_is_named_with_what_to_do(kafka_settings: Settings) -> None:
    """Nobody has run ``early-kill topics`` yet."""
    async with EventPublisher(kafka_settings) as publisher:
        with pytest.raises(Stop, match=r"topic t.*-interaction is not there; `early-kill topics`"):
            await publisher.publish_interaction(VIEW)


async def test_without_a_broker_it_is_one_clear_error() -> None:
    """Within seconds."""
    settings = Settings.model_validate({"kafka_bootstrap_servers": f"127.0.0.1:{free_port()}"})
    started = time.monotonic()
    with pytest.raises(Retry, match=r"no Kafka broker answers at 127\.0\.0\.1"):
        async with EventPublisher(settings):
            pass
    assert time.monotonic() - started < 8


async def test_an_unacknowledged_event_can_be_sent_again_as_it_was(topics: Settings, kafka: KafkaServer) -> None:
    """A broker that hangs: the error carries the event with the id that was added, so that it counts once."""
    async with EventPublisher(topics) as publisher:
        await publisher.publish_interaction(VIEW)  # a new topic's leader may take a while to be known
    async with EventPublisher(topics, timeout_seconds=4) as publisher:
        await publisher.publish_interaction(VIEW)
        assert kafka.pid is not None
        with standing_still(kafka.pid), pytest.raises(NotPublished) as caught:
            await asyncio.wait_for(publisher.publish_interaction(VIEW), 20)
    again = caught.value.value
    assert again["event_id"]
    async with EventPublisher(topics) as publisher:
        await publisher.publish_interaction(again)
    ids = [json.loads(record.value)["event_id"] for record in await everything_on(topics, "interaction")]
    assert ids.count(again["event_id"]) >= 1


async def test_a_broker_that_was_killed_and_came_back_is_found_again(topics: Settings, kafka: KafkaServer) -> None:
    """What is sent meanwhile is acknowledged afterwards, once."""
    async with EventPublisher(topics) as publisher:
        await publisher.publish_interaction(VIEW)
        try:
            kafka.kill()
            waiting = asyncio.create_task(publisher.publish_interaction(VIEW, event_id="meanwhile"))
            await asyncio.sleep(1)
        finally:
            await asyncio.to_thread(kafka.start)
            await asyncio.to_thread(kafka.wait_ready, 60)
        await waiting
    ids = [json.loads(record.value)["event_id"] for record in await everything_on(topics, "interaction")]
    assert ids.count("meanwhile") == 1


# -- on_variant_posted -----------------------------------------------------------------------------------------------


async def test_a_synchronous_caller_is_told_where_it_landed(topics: Settings) -> None:
    """A missing expected rate is 0.06; null is missing."""
    landed = await asyncio.to_thread(on_variant_posted, POST, settings=topics)
    again = await asyncio.to_thread(on_variant_posted, {**POST, "expected_engagement_rate": None}, settings=topics)
    records = await everything_on(topics, "variant_posted")
    assert [json.loads(record.value)["expected_engagement_rate"] for record in records] == [0.06, 0.06]
    assert again.offset == landed.offset + 1


async def test_a_caller_inside_a_running_event_loop_is_served_too(topics: Settings) -> None:
    """threads_adaptor may itself be asynchronous somewhere above."""
    assert on_variant_posted({**POST, "expected_engagement_rate": 0.1}, settings=topics).partition == partition_for("v-1", topics.partitions)
    assert json.loads((await everything_on(topics, "variant_posted"))[0].value)["expected_engagement_rate"] == 0.1


async def test_many_threads_share_one_connection(topics: Settings) -> None:
    """Each gets an answer of its own."""
    offsets: list[int] = []

    def post(number: int) -> None:
        offsets.append(on_variant_posted({**POST, "post_id": f"post-{number}"}, settings=topics).offset)

    threads = [threading.Thread(target=post, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join, 30)
    assert sorted(offsets) == list(range(20))
    assert sum(thread.name == "early-kill-publisher" for thread in threading.enumerate()) == 1


def test_bad_monitoring_data_names_the_field(kafka_settings: Settings) -> None:
    """Before anything is connected or sent."""
    with pytest.raises(Reject, match="dict"):
        on_variant_posted("v-1", settings=kafka_settings)  # type: ignore[arg-type]


def test_without_kafka_the_caller_gets_an_error_and_a_later_call_works(kafka_settings: Settings) -> None:
    """The failed connection is not kept."""
    asyncio.run(_ensure(kafka_settings))
    away = kafka_settings.model_copy(update={"kafka_bootstrap_servers": f"127.0.0.1:{free_port()}"})
    for _ in range(2):
        with pytest.raises(Retry, match="no Kafka broker"):
            on_variant_posted(POST, settings=away)
    assert on_variant_posted(POST, settings=kafka_settings).offset == 0


async def _ensure(settings: Settings) -> None:
    await ensure_topics(settings)


SCRIPT = """
import os, sys
from streams.integration import on_variant_posted
data = {"variant_id": "v-1", "persona_id": "p-1", "post_id": "post-1"}
print(on_variant_posted(data).offset, flush=True)
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or print(on_variant_posted(data).offset))
print(on_variant_posted(data).offset, flush=True)
"""


def test_a_script_that_forks_publishes_on_both_sides_and_ends_by_itself(kafka_settings: Settings) -> None:
    """A worker of a pre-forking server; nothing keeps the process alive, and nothing is said on stderr."""
    asyncio.run(_ensure(kafka_settings))
    environment = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": kafka_settings.kafka_bootstrap_servers, "EARLY_KILL_TOPIC_PREFIX": kafka_settings.topic_prefix}
    run = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60, check=False)
    assert (run.stdout.split(), run.stderr, run.returncode) == (["0", "1", "2"], "", 0)


def test_importing_the_integration_loads_neither_faust_nor_the_database() -> None:
    """It lives in other people's programs, so it has to be light."""
    code = "import sys, streams.integration; print([name for name in ('faust', 'sqlalchemy', 'typer', 'rich', 'structlog') if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "[]"

"""Topics on a real broker."""

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from models.errors import Retry, Stop
from streams import topics
from streams.kafka_access import kafka_client_options
from streams.local.child import free_port
from streams.settings import Settings
from streams.topics import RETENTION_DAYS, check_topics, ensure_topics, partition_for, topic_name


async def make(settings: Settings, topic: str, partitions: int, **configuration: str) -> None:
    """Make one topic the way somebody else might have."""
    admin = AIOKafkaAdminClient(**kafka_client_options(settings))
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic_name(settings, topic), partitions, 1, topic_configs=configuration)])
    finally:
        await admin.close()


async def test_missing_topics_are_created_once(kafka_settings: Settings):
    """The second time there is nothing to do, and workers may start."""
    assert sorted(await ensure_topics(kafka_settings)) == sorted(kafka_settings.topic_prefix + topic for topic in RETENTION_DAYS)
    assert await ensure_topics(kafka_settings) == []
    await check_topics(kafka_settings)


async def test_a_worker_is_told_which_topic_is_missing(kafka_settings: Settings):
    """With the command that makes it."""
    with pytest.raises(Stop, match=r"topic \S+variant_posted is missing: create it with `early-kill topics`"):
        await check_topics(kafka_settings)


async def test_another_number_of_partitions_is_refused(kafka_settings: Settings):
    """The message has the topic, what was found and what is wanted."""
    await make(kafka_settings, "interaction", 3, **{"message.timestamp.type": "LogAppendTime"})
    with pytest.raises(Stop, match=r"topic \S+interaction has 3 partitions, wanted 4"):
        await ensure_topics(kafka_settings)


async def test_a_topic_whose_producers_choose_the_time_is_refused(kafka_settings: Settings):
    """Append times decide, so they have to be the broker's."""
    await make(kafka_settings, "interaction", 4)
    with pytest.raises(Stop, match=r"topic \S+interaction has message.timestamp.type=CreateTime, wanted LogAppendTime"):
        await ensure_topics(kafka_settings)


async def test_more_replicas_than_brokers_are_refused_in_one_line(kafka_settings: Settings):
    """Kafka's reason is passed on."""
    with pytest.raises(Stop, match=r"cannot create topic \S+ \(4 partitions, 3 replicas\)"):
        await ensure_topics(kafka_settings.model_copy(update={"replication_factor": 3}))


async def test_no_broker_is_a_reason_to_try_again(monkeypatch: pytest.MonkeyPatch, topic_prefix: str):
    """Nothing is wrong with the set-up; Kafka may still come."""
    monkeypatch.setattr(topics, "CONNECT_SECONDS", 0.3)
    nobody = f"127.0.0.1:{free_port()}"
    with pytest.raises(Retry, match=f"no Kafka broker answers at {nobody}"):
        await check_topics(Settings.model_validate({"kafka_bootstrap_servers": nobody, "topic_prefix": topic_prefix}))


async def test_records_land_in_the_partition_that_was_foretold(kafka_settings: Settings):
    """A real producer and ``partition_for`` agree, on ASCII and beyond."""
    await ensure_topics(kafka_settings)
    async with AIOKafkaProducer(**kafka_client_options(kafka_settings)) as producer:
        for variant_id in ("v-1", "v-2", "größer/..", "変種"):
            landed = await producer.send_and_wait(topic_name(kafka_settings, "interaction"), b"{}", key=variant_id.encode())
            assert landed.partition == partition_for(variant_id, 4)
            assert landed.timestamp_type == 1

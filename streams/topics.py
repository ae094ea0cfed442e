"""The project's topics: their names, and how they are configured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from models.errors import Retry, Stop
from streams.kafka_access import kafka_client_options, turned_away

if TYPE_CHECKING:
    from aiokafka.admin import AIOKafkaAdminClient

    from streams.settings import Settings

DAY_MS = 24 * 60 * 60 * 1000
MAX_MESSAGE_BYTES = 1_048_588  # Kafka's own default: what is over the contract's 64 KiB must arrive to be dead-lettered
CONNECT_SECONDS = 10.0
SETTLE_SECONDS = 15.0
TIMESTAMP_TYPE = "LogAppendTime"

RETENTION_DAYS: Mapping[str, int] = {
    "variant_posted": 7,
    "interaction": 7,
    "monitoring_control": 7,
    "variant_killed": 14,
    "monitoring_record": 14,
    "dead_letter": 14,
}
"""The topics, without the prefix, and how long each keeps a record: longer than any outage that is to be caught up with."""

_TIMED_OUT, _FORBIDDEN, _EXISTS, _NOT_CONTROLLER = 7, 29, 36, 41  # Kafka's error codes


def topic_name(settings: Settings, topic: str) -> str:
    """The full name of one of the topics in ``RETENTION_DAYS``: the configured prefix, then the name.

    Raises:
        KeyError: There is no such topic.
    """
    if topic not in RETENTION_DAYS:
        raise KeyError(topic)
    return settings.topic_prefix + topic


def topic_configuration(settings: Settings, topic: str) -> dict[str, str]:
    """What a topic is created with."""
    return {
        "cleanup.policy": "delete",
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
        "message.timestamp.type": TIMESTAMP_TYPE,
        "min.insync.replicas": str(max(1, settings.replication_factor - 1)),
        "retention.ms": str(RETENTION_DAYS[topic] * DAY_MS),
        "retention.bytes": "-1",
    }


def partition_for(variant_id: str, partitions: int) -> int:
    """The partition that Kafka's default partitioner gives to a variant, in ``range(partitions)``."""
    from aiokafka.partitioner import murmur2

    hashed: int = murmur2(variant_id.encode())
    return (hashed & 0x7FFFFFFF) % partitions


async def ensure_topics(settings: Settings) -> list[str]:
    """Create the topics that are missing, then check all of them.

    Returns:
        The full names of those that were created.

    Raises:
        Stop: A topic cannot be created, one that is there is not as it has to be, or Kafka does not let this client in.
        Retry: No broker answers.
    """
    async with _admin(settings) as admin:
        missing = [topic for topic, found in (await _partition_counts(admin, settings)).items() if found is None]
        created = await _create(admin, settings, missing) if missing else []
        await _check(admin, settings, settle_seconds=SETTLE_SECONDS if missing else 0)
    return created


async def check_topics(settings: Settings) -> None:
    """Check that every topic is there as it has to be, before a worker starts on them.

    Raises:
        Stop: One is missing, or has another number of partitions or kind of timestamp, or Kafka does not let this client in.
        Retry: No broker answers.
    """
    async with _admin(settings) as admin:
        await _check(admin, settings, settle_seconds=0)


@asynccontextmanager
async def _admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.errors import KafkaError

    until = time.monotonic() + CONNECT_SECONDS
    while True:
        refusal = await turned_away(settings)
        if refusal is not None:
            raise Stop(refusal)
        admin = AIOKafkaAdminClient(**kafka_client_options(settings), request_timeout_ms=20_000)
        problem: object = "it knows no broker yet"
        try:
            await admin.start()
            if (await admin.describe_cluster())["brokers"]:  # one that has just started answers before it knows itself
                break
        except (KafkaError, OSError) as error:
            problem = error
        await admin.close()
        if time.monotonic() > until:
            raise Retry(f"no Kafka broker answers at {settings.kafka_bootstrap_servers}: {problem}")
        await asyncio.sleep(0.2)
    try:
        yield admin
    except (KafkaError, OSError) as error:
        raise Retry(f"Kafka at {settings.kafka_bootstrap_servers} did not answer: {error!r}") from None
    finally:
        await admin.close()


async def _partition_counts(admin: AIOKafkaAdminClient, settings: Settings) -> dict[str, int | None]:
    """Partitions of each topic, None for one that isn't there."""
    names = {topic: topic_name(settings, topic) for topic in RETENTION_DAYS}
    rows = await admin.describe_topics(list(names.values()))
    forbidden = [row["topic"] for row in rows if row["error_code"] == _FORBIDDEN]
    if forbidden:
        raise Stop(f"Kafka does not let user {settings.kafka_user} see topic {', '.join(sorted(forbidden))}: an ACL with Describe is needed")
    found = {row["topic"]: None if row["error_code"] else len(row["partitions"]) for row in rows}
    return {topic: found.get(name) for topic, name in names.items()}


async def _create(admin: AIOKafkaAdminClient, settings: Settings, topics: list[str]) -> list[str]:
    from aiokafka.admin import NewTopic

    wanted = [NewTopic(topic_name(settings, topic), settings.partitions, settings.replication_factor, topic_configs=topic_configuration(settings, topic)) for topic in topics]
    answer = await admin.create_topics(wanted)
    created = []
    for name, code, message in answer.topic_errors:
        if code == 0:
            created.append(name)
        elif code in (_TIMED_OUT, _NOT_CONTROLLER):
            raise Retry(f"Kafka did not create topic {name} in time: {message}")
        elif code != _EXISTS:  # somebody else was quicker; what they made is checked like any other
            raise Stop(f"cannot create topic {name} ({settings.partitions} partitions, {settings.replication_factor} replicas): {message or f'Kafka error {code}'}")
    return created


async def _check(admin: AIOKafkaAdminClient, settings: Settings, settle_seconds: float) -> None:
    """Compare what is there with what has to be; brokers get ``settle_seconds`` to hear of topics just made."""
    until = time.monotonic() + settle_seconds
    counts = await _partition_counts(admin, settings)
    while None in counts.values() and time.monotonic() < until:
        await asyncio.sleep(0.1)
        counts = await _partition_counts(admin, settings)
    for topic, count in counts.items():
        name = topic_name(settings, topic)
        if count is None:
            raise Stop(f"topic {name} is missing: create it with `early-kill topics`")
        if count != settings.partitions:
            raise Stop(f"topic {name} has {count} partitions, wanted {settings.partitions} (EARLY_KILL_PARTITIONS): all of the project's topics need the same number")
    for name, kind in (await _timestamp_types(admin, settings)).items():
        if kind != TIMESTAMP_TYPE:
            raise Stop(f"topic {name} has message.timestamp.type={kind}, wanted {TIMESTAMP_TYPE}")


async def _timestamp_types(admin: AIOKafkaAdminClient, settings: Settings) -> dict[str, str]:
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

    names = [topic_name(settings, topic) for topic in RETENTION_DAYS]
    answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name, {"message.timestamp.type": ""}) for name in names])
    kinds = {}
    for answer in answers:
        for code, message, _, name, entries in answer.resources:
            if code:
                raise Stop(f"cannot read the configuration of topic {name}: {message or f'Kafka error {code}'}")
            kinds[name] = next((entry[1] for entry in entries if entry[0] == "message.timestamp.type"), "unknown")
    return kinds

"""A topic that ends before what was read of it: a broker has lost its youngest records, as one without replicas may when its machine loses power."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.settings import Settings
from tests.integration.system import System, fresh, running

pytestmark = pytest.mark.faults
BEYOND = 50_000


async def pretend(system: System, group: str, topic: str) -> None:
    """Have the group believe that it has read more of a topic than there is."""
    tps = [TopicPartition(system.topic(topic), partition) for partition in range(system.settings.partitions)]
    consumer = AIOKafkaConsumer(bootstrap_servers=system.settings.kafka_bootstrap_servers, group_id=group, enable_auto_commit=False)
    consumer.assign(tps)
    await consumer.start()
    await consumer.commit(dict.fromkeys(tps, BEYOND))
    await consumer.stop()


async def kill_one(system: System) -> str:
    variant = fresh("bad")
    await system.post(variant)
    await system.interact(variant, "view", 500)
    await system.interact(variant, "like", 10)
    return variant


async def test_a_sink_reads_it_from_its_beginning(settings: Settings, tmp_path: Path):
    """And says so. What it has written already does nothing a second time; what it reads is committed again."""
    async with running(settings, tmp_path) as system:
        first = await kill_one(system)
        await system.until_ended([first])
        assert system.sink.stop() == 0
        await pretend(system, f"{settings.app_id}-sink", "monitoring_record")
        second = await kill_one(system)
        system.sink.start()
        await system.sink.ready()
        ended = await system.until_ended([first, second])
        assert [row["outcome"] for row in ended.values()] == ["killed", "killed"]
        assert "and was read up to 50000: Kafka has lost records" in system.sink.log.read_text()
        assert system.query("SELECT count(*) AS n FROM monitoring_audit WHERE action = 'session_ended'") == [{"n": 2}]


async def test_a_monitor_stops_and_says_why(settings: Settings, tmp_path: Path):
    """Its state may count records that are gone, and offsets to come will mean others."""
    async with running(settings, tmp_path) as system:
        await system.until_ended([await kill_one(system)])
        [monitor] = system.monitors
        assert monitor.stop() == 0
        await pretend(system, settings.app_id, "interaction")
        monitor.start()
        assert monitor.wait(30) == 1
        assert "and was read up to 50000: Kafka has lost records, and counts may be of such as are gone" in monitor.log.read_text()

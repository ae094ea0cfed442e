"""A topic that ends before what was read of it: a broker has lost its youngest records, as one without replicas may when its machine loses power."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.local.kafka import KafkaServer
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


async def kill_one(system: System, variant: str | None = None, number: int = 0) -> str:
    variant = variant or fresh("bad")
    post = {"post_id": f"post-{number}"}
    await system.post(variant, **post)
    await system.interact(variant, "view", 500, **post)
    await system.interact(variant, "like", 10, **post)
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


async def test_a_sink_that_runs_meanwhile_reads_on(settings: Settings, kafka: KafkaServer, tmp_path: Path):
    """Kafka dies, and comes back without what was in its files. The sink says so and writes what comes, though that is where it has been before."""

    def recorded(sessions: int) -> bool:
        rows = system.sessions(variant)
        return len(rows) == sessions and not any(row["is_active"] for row in rows)

    async with running(settings, tmp_path) as system:
        variant = fresh("bad")
        for number in range(3):
            await kill_one(system, variant, number)
        await system.until(lambda: recorded(3), 20, "all in one partition are recorded")
        assert system.monitors[0].stop() == 0
        kafka.kill()
        for segment in kafka.home.glob(f"data/{system.topic('monitoring_record')}-*/0*"):
            segment.unlink()
        kafka.start()
        await asyncio.to_thread(kafka.wait_ready)
        system.monitors[0].start()
        await system.monitors[0].ready()
        await kill_one(system, variant, 3)
        await system.until(lambda: recorded(4), 30, "the one after it is recorded too")
        assert "Kafka has lost records. It is read from" in system.sink.log.read_text()
        assert system.sink.stop() == 0


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

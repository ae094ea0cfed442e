"""What a monitor does when somebody deletes, re-creates, truncates or widens the topics under it: it says so and stops, or counts what is lost."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.structs import OffsetAndMetadata

from streams.settings import Settings
from streams.topics import ensure_topics
from tests.faults.ordeal import only_on_demand
from tests.integration.system import System, Worker, fresh, running

pytestmark = [pytest.mark.faults, pytest.mark.slow]
QUICK = {"EARLY_KILL_GRACE_SECONDS": "1"}
ENDS_SECONDS = 20.0


@asynccontextmanager
async def admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def delete(settings: Settings, name: str) -> None:
    """Delete a topic, and wait until it is gone."""
    async with admin(settings) as client:
        await client.delete_topics([name])
        while name in await client.list_topics():
            await asyncio.sleep(0.05)


async def says_and_ends(worker: Worker, pattern: str) -> None:
    """Wait until a worker has ended with exit code 1 and one line that says why."""
    assert await asyncio.to_thread(worker.wait, ENDS_SECONDS) == 1
    text = worker.log.read_text()
    assert re.search(pattern, text.strip().splitlines()[-1]), text[-2000:]
    assert "Traceback" not in text


async def killed(system: System, name: str) -> None:
    """Post a variant that does badly, and wait until it is recorded as killed."""
    await system.post(name)
    await brought_down(system, name, 500)


async def brought_down(system: System, name: str, views: int) -> None:
    """Send so many views and too few likes, and wait until the variant is recorded as killed, at 500 views in all."""
    await system.interact(name, "view", 1, count=views)
    await system.interact(name, "like", 10)
    rows = await system.until_ended([name], 20)
    assert (rows[name]["outcome"], rows[name]["final_view_count"]) == ("killed", 500)


async def counted(system: System, name: str, views: int) -> Any:
    """Post a variant, and wait until so many views of it are counted and committed; returns the metadata of the last."""
    await system.post(name)
    last = await system.interact(name, "view", views)
    await all_committed(system, "interaction", "variant_posted")
    return last


async def all_committed(system: System, *names: str) -> None:
    """Wait until the monitors have committed everything on these topics."""
    deadline = time.monotonic() + 10
    async with admin(system.settings) as client:
        consumer = AIOKafkaConsumer(bootstrap_servers=system.settings.kafka_bootstrap_servers)
        await consumer.start()
        try:
            while True:
                tps = [TopicPartition(system.topic(name), partition) for name in names for partition in range(system.settings.partitions)]
                ends, committed = await consumer.end_offsets(tps), await client.list_consumer_group_offsets(system.settings.app_id)
                if all(end == 0 or (tp in committed and committed[tp].offset >= end) for tp, end in ends.items()):
                    return
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)
        finally:
            await consumer.stop()


async def test_a_source_topic_made_anew_is_noticed_and_the_way_on_works(settings: Settings, tmp_path: Path):
    """While the monitor runs and when it starts; with another app id it begins anew, and nothing is skipped (P29)."""
    async with running(settings, tmp_path, **QUICK) as system:
        monitor, before, after = system.monitors[0], fresh("before"), fresh("after")
        await counted(system, before, 200)
        await delete(settings, system.topic("interaction"))
        await ensure_topics(settings)
        await says_and_ends(monitor, f"stopped: topic {system.topic('interaction')} was deleted")
        monitor.start()
        await says_and_ends(monitor, "was deleted and made anew since .* give all workers a new EARLY_KILL_APP_ID")
        for worker in (monitor, system.sink):
            worker._environment["EARLY_KILL_APP_ID"] = f"{settings.app_id}-2"
        system.sink.kill()
        system.sink.start()
        monitor.start()
        await asyncio.gather(monitor.ready(), system.sink.ready())
        await killed(system, after)
        await brought_down(system, before, 500)


@only_on_demand
async def test_deleted_changelogs_are_noticed(settings: Settings, tmp_path: Path):
    """One of them or all: never silent zero counts (P28)."""
    async with running(settings, tmp_path, **QUICK) as system:
        monitor, name = system.monitors[0], fresh("counted")
        await counted(system, name, 200)
        assert monitor.stop() == 0
        await delete(settings, f"{settings.app_id}-engagement-changelog")
        monitor.start()
        await says_and_ends(monitor, "topic .*-engagement-changelog was deleted and made anew")
        for table in ("engagement", "event_id", "waiting", "origin"):
            await delete(settings, f"{settings.app_id}-{table}-changelog")
        monitor.start()
        await says_and_ends(monitor, "has been read before, but its state is gone")


@only_on_demand
async def test_added_partitions_stop_the_monitor_with_an_explanation(settings: Settings, tmp_path: Path):
    """While it runs, and when it starts (P30)."""
    async with running(settings, tmp_path, **QUICK) as system:
        monitor = system.monitors[0]
        await killed(system, fresh("bad"))
        async with admin(settings) as client:
            await client.create_partitions({system.topic("interaction"): NewPartitions(total_count=8)})
        await says_and_ends(monitor, "topic .*interaction has 8 partitions")
        monitor.start()
        await says_and_ends(monitor, "topic .*interaction has 8 partitions, wanted 4")


@only_on_demand
async def test_records_that_retention_removed_unread_are_counted(settings: Settings, tmp_path: Path):
    """In the log and in a metric; what is left is decided (P31). All records below an offset are deleted, as retention does."""
    async with running(settings, tmp_path, **QUICK) as system:
        monitor, name = system.monitors[0], fresh("patchy")
        sent = await counted(system, name, 100)
        assert monitor.stop() == 0
        await system.interact(name, "view", 300)
        tp = TopicPartition(system.topic("interaction"), sent.partition)
        async with admin(settings) as client:
            await client.delete_records({tp: RecordsToDelete(before_offset=sent.offset + 1 + 120)})
        monitor.start()
        await monitor.ready()
        assert f"120 records of {tp.topic}[{tp.partition}] are lost" in monitor.log.read_text()
        _, metrics = await system.call(monitor, "GET", "/metrics")
        assert f'performance_monitor_records_lost_total{{topic="{tp.topic}"}} 120.0' in metrics
        await brought_down(system, name, 220)


async def test_offsets_set_back_to_the_beginning_change_nothing(settings: Settings, tmp_path: Path):
    """Both groups read everything again into the same database: no row changes, no kill is new (P32)."""
    async with running(settings, tmp_path, **QUICK) as system:
        names = [fresh(f"bad-{number}") for number in range(10)]
        await asyncio.gather(*(killed(system, name) for name in names))
        quiet = fresh("quiet")
        await counted(system, quiet, 100)
        workers = (system.monitors[0], system.sink)
        before = await everything(system)
        assert [worker.stop() for worker in workers] == [0, 0]
        for group, topics in ((settings.app_id, ("variant_posted", "interaction", "monitoring_control")), (f"{settings.app_id}-sink", ("monitoring_record",))):
            consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap_servers, group_id=group, enable_auto_commit=False)
            await consumer.start()
            tps = [TopicPartition(system.topic(name), partition) for name in topics for partition in range(settings.partitions)]
            consumer.assign(tps)
            await consumer.commit({tp: OffsetAndMetadata(0, "") for tp in tps})
            await consumer.stop()
        for worker in workers:
            worker.start()
        await asyncio.gather(*(worker.ready() for worker in workers))
        await all_committed(system, "interaction", "variant_posted")
        _, metrics = await system.call(system.monitors[0], "GET", "/metrics")
        again = re.search(r'events_total\{result="redelivered"\} (\S+)', metrics)
        assert again
        assert float(again[1]) >= 10 * 12 + 101
        assert await everything(system) == before
        await brought_down(system, quiet, 400)


async def everything(system: System) -> tuple[object, ...]:
    """All rows, and the ids of all kills."""
    kills = sorted({value["kill_id"] for value in await system.values("variant_killed")})
    return (
        kills,
        system.query("SELECT * FROM variant_monitoring ORDER BY id"),
        system.query("SELECT * FROM monitoring_audit ORDER BY id"),
        system.query("SELECT * FROM variant_pool ORDER BY 1"),
    )


@only_on_demand
async def test_dead_letters_that_cannot_be_written_stop_the_monitor(settings: Settings, tmp_path: Path):
    """Rather than be dropped: when the topic takes them again, they are there (P33)."""
    async with running(settings, tmp_path, **QUICK) as system:
        monitor, topic = system.monitors[0], system.topic("dead_letter")

        async def limit(size: int) -> None:
            async with admin(settings) as client:
                await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": str(size), "message.timestamp.type": "LogAppendTime"})])

        await limit(200)
        await (await system.send("interaction", b"x" * 500, key=b"bad"))
        await says_and_ends(monitor, f"Kafka refuses a record for {topic}")
        await limit(1_048_588)
        monitor.start()
        await monitor.ready()
        deadline = time.monotonic() + 10
        while not await system.records("dead_letter"):
            assert time.monotonic() < deadline
        assert len(await system.records("dead_letter")) == 1

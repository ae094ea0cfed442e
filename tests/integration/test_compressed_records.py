"""Records in batches that are compressed as producers like it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import MessageSizeTooLargeError

from streams.settings import Settings
from streams.topics import ensure_topics
from tests.faults.test_topics_changed import QUICK, admin
from tests.integration.system import fresh, running


@pytest.mark.slow
async def test_records_are_read_however_they_are_compressed(settings: Settings, tmp_path: Path):
    """By each way that Kafka knows. The topics compress anew what this test sends; a monitor that lacked the library would end over the first batch, and each time again."""
    async with running(settings, tmp_path, **QUICK) as system:
        for way in ("gzip", "snappy", "lz4", "zstd"):
            async with admin(settings) as client:
                for topic in ("variant_posted", "interaction"):
                    configuration = {"compression.type": way, "message.timestamp.type": "LogAppendTime"}
                    await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, system.topic(topic), configuration)])
            name = fresh(way)
            await system.post(name)
            await system.interact(name, "view", 100, count=5)
            await system.interact(name, "like", 10)
            rows = await system.until_ended([name], 20)
            assert (rows[name]["outcome"], rows[name]["final_view_count"]) == ("killed", 500), way


async def test_topics_can_bound_what_a_batch_unpacks_to(settings: Settings):
    """With ``compression.type=uncompressed`` Kafka unpacks what comes, and refuses what is larger than ``max.message.bytes`` then; a usual batch is taken."""
    await ensure_topics(settings)
    topic = settings.topic_prefix + "interaction"
    async with admin(settings) as client:
        await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"compression.type": "uncompressed", "message.timestamp.type": "LogAppendTime"})])
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers, compression_type="gzip", max_request_size=1 << 24, max_batch_size=1 << 24) as producer:

        async def is_taken(size: int) -> bool:
            batch = producer.create_batch()
            assert batch.append(timestamp=None, key=b"v", value=bytes(size)) is not None
            try:
                await (await producer.send_batch(batch, topic, partition=0))
            except MessageSizeTooLargeError:
                return False
            return True

        async with asyncio.timeout(20):  # a setting that was taken is followed some moments later
            while await is_taken(1_100_000):
                await asyncio.sleep(0.1)
        assert await is_taken(1_000_000)

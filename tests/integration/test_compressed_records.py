"""Records in batches that are compressed as producers like it."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from streams.settings import Settings
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

"""Records in batches that are compressed as producers like it: as far as Kafka on this machine can do it."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiokafka import codec
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from streams.settings import Settings
from tests.faults.ordeal import only_on_demand
from tests.faults.test_topics_changed import QUICK, admin, says_and_ends
from tests.integration.system import fresh, running

pytestmark = [pytest.mark.faults, pytest.mark.slow, only_on_demand]
THERE_IS = {"gzip": codec.has_gzip, "lz4": codec.has_lz4, "zstd": codec.has_zstd}


@pytest.mark.parametrize("way", THERE_IS)
async def test_records_are_read_however_they_are_compressed_or_the_monitor_says_what_it_lacks(settings: Settings, tmp_path: Path, way: str):
    """Without the library for one it ends with one line that names it, rather than pass records over. The topics recompress what this test sends."""
    async with running(settings, tmp_path, **QUICK) as system:
        async with admin(settings) as client:
            for topic in ("variant_posted", "interaction"):
                configuration = {"compression.type": way, "message.timestamp.type": "LogAppendTime"}
                await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, system.topic(topic), configuration)])
        name = fresh(way)
        await system.post(name)
        await system.interact(name, "view", 100, count=5)
        await system.interact(name, "like", 10)
        if not THERE_IS[way]():
            await says_and_ends(system.monitors[0], f"stopped: .*{way} compression codec")
            return
        rows = await system.until_ended([name], 20)
        assert (rows[name]["outcome"], rows[name]["final_view_count"]) == ("killed", 500)

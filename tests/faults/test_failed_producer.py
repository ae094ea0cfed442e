"""A producer that has given up while Kafka was away: what it still held must not arrive behind what its successor has sent."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.delivery import KafkaLog
from streams.kafka_access import kafka_client_options
from streams.settings import Settings
from streams.topics import ensure_topics
from tests.faults.servers import Servers
from tests.ports import LOOPBACK

pytestmark = pytest.mark.faults
PATIENCE_MS = 1_500
"""30 s in a worker."""


@pytest.mark.parametrize("way", ["refused", "silent"])
async def test_it_sends_nothing_more(servers: Servers, way: str, caplog: pytest.LogCaptureFixture):
    """Three batches of a partition: one on its way, one behind it, and one that finds no room, which is how aiokafka says that it has failed.

    What was handed to a silent network may arrive, and arrives when it likes.
    """
    settings = Settings.model_validate({"kafka_bootstrap_servers": f"{LOOPBACK}:{servers.kafka_proxy.port}", "topic_prefix": f"t{uuid.uuid4().hex[:8]}-"})
    await ensure_topics(settings)
    log, topic = KafkaLog(kafka_client_options(settings), client_id="test"), f"{settings.topic_prefix}dead_letter"
    log._options["request_timeout_ms"] = PATIENCE_MS
    await log.start()
    failed = log._producer
    assert failed is not None
    assert await log.delivered(await log.send_all(topic, 0, [(b"x", b"first")]))
    (servers.kafka_proxy.refuse if way == "refused" else servers.kafka_proxy.swallow)()
    held = [await log.send_all(topic, 0, [(b"x", value)]) for value in (b"older", b"old")]
    told = [asyncio.create_task(log.delivered(sent)) for sent in held]
    newer = asyncio.create_task(log.send_all(topic, 0, [(b"x", b"newer")]))
    await asyncio.wait(told, timeout=20)
    await asyncio.to_thread(servers.heal)
    assert await log.delivered(await newer)
    assert [await one for one in told] == [False, False]
    await asyncio.sleep(2)
    assert log._producer is not failed
    assert failed._sender.sender_task.done()
    assert not log._closing
    consumer = AIOKafkaConsumer(**kafka_client_options(settings))
    await consumer.start()
    end = (await consumer.end_offsets([TopicPartition(topic, 0)]))[TopicPartition(topic, 0)]
    await consumer.stop()
    values = [record.value for record in await log.read(topic, 0, 0, end)]
    await log.stop()
    on_the_network = [b"older"] if way == "silent" and b"older" in values else []
    assert sorted(values) == sorted([b"first", b"newer", *on_the_network])
    assert "Traceback" not in caplog.text

"""The limit: aiokafka, msgspec and a dict, and nothing around them.

It keeps no state, so a crash loses all counts; it drops no duplicate, and takes a moment only as this benchmark writes it. Run as
``python -m benchmarks.peers.plain BOOTSTRAP TOPIC KILL_TOPIC EVENTS``.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from benchmarks.peers.progress import Progress

WINDOW_SECONDS = 600
MIN_INTERACTIONS = 10
KILL_RATE = 0.5 * 0.06
PARTITIONS = 4
NOTHING = 0, 0, False


class Interaction(msgspec.Struct, gc=False):
    """What is needed of an event."""

    variant_id: str
    kind: str
    occurred_at: datetime
    count: int = 1


async def main(bootstrap: str, topic: str, kill_topic: str, events: int) -> None:
    """Read all partitions until ``events`` are counted."""
    decode = msgspec.json.Decoder(Interaction).decode
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", max_partition_fetch_bytes=4 << 20, enable_auto_commit=False)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await consumer.start()
    await producer.start()
    consumer.assign([TopicPartition(topic, partition) for partition in range(PARTITIONS)])
    engagement: dict[tuple[str, int], tuple[int, int, bool]] = {}
    progress = Progress(events)
    is_done = False
    while not is_done:
        for records in (await consumer.getmany(timeout_ms=1_000, max_records=10_000)).values():
            progress.begin()
            for record in records:
                event = decode(record.value)
                key = event.variant_id, int(event.occurred_at.timestamp()) // WINDOW_SECONDS
                views, interactions, was_killed = engagement.get(key, NOTHING)
                if was_killed:
                    continue
                if event.kind == "view":
                    views += event.count
                else:
                    interactions += event.count
                was_killed = interactions >= MIN_INTERACTIONS and views > 0 and interactions / views < KILL_RATE
                engagement[key] = views, interactions, was_killed
                if was_killed:
                    await producer.send(kill_topic, b"{}", key=record.key)
            is_done = progress.add(len(records))
    await consumer.stop()
    await producer.stop()
    progress.tell((name, window * WINDOW_SECONDS, *counts) for (name, window), counts in engagement.items())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))

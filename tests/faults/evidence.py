"""Keeps what was on the topics of a run that went wrong: its workers' logs alone seldom say why."""

from __future__ import annotations

import json
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.settings import Settings


async def keep_topics(settings: Settings, home: Path) -> None:
    """Write each topic of the run, changelogs too, to ``home``: one JSON object a line, in the order of each partition."""
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap_servers, enable_auto_commit=False)
    await consumer.start()
    try:
        topics = [topic for topic in await consumer.topics() if topic.startswith(settings.topic_prefix)]
        tps = [TopicPartition(topic, partition) for topic in topics for partition in range(settings.partitions)]
        consumer.assign(tps)
        await consumer.seek_to_beginning(*tps)
        ends = await consumer.end_offsets(tps)
        files = {topic: (home / f"{topic.removeprefix(settings.topic_prefix)}.jsonl").open("w") for topic in topics}
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for tp, records in (await consumer.getmany(timeout_ms=500)).items():
                files[tp.topic].writelines(json.dumps([tp.partition, r.offset, r.timestamp, _text(r.key), _text(r.value), r.headers], default=_text) + "\n" for r in records)
        for file in files.values():
            file.close()
    finally:
        await consumer.stop()


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")

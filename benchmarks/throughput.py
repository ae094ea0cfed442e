"""How many interactions a second one monitor decides, beside the least that a Python consumer can do with them.

    .venv/bin/python -m benchmarks.throughput --events 1000000 --variants 1000

Preloads JSON interactions with ``event_id`` into embedded Kafka (4 partitions), then lets read them, in turns, in the same
minutes: one ``early-kill`` monitor with every guarantee on, and plain aiokafka + msgspec + a dict of counts, which keeps no
state, drops no duplicate and decides nothing: the limit. The counts of both are checked before their time counts.
Prints events a second and the ratio; ``--json FILE`` writes them too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import aiohttp
import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from models.moments import format_moment
from streams.local.child import free_port
from streams.local.endpoints import Endpoints
from streams.local.parts import UpOptions
from streams.local.supervisor import platform
from streams.topics import partition_for

PARTITIONS = 4
LIKE_EVERY = 16
"""One event in so many is a like: 6.7 % of the views, so nothing is killed and every event counts."""
ROUNDS = 3


def kind_of(number: int, variants: int) -> str:
    """Return the kind of event ``number``; each variant gets its first like after 15 views."""
    return "like" if (number // variants) % LIKE_EVERY == LIKE_EVERY - 1 else "view"


async def preload(bootstrap: str, events: int, variants: int) -> None:
    """Post ``variants`` variants and append ``events`` interactions, spread evenly."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=50, max_batch_size=1 << 19)
    await producer.start()
    keys = [f"variant-{number}".encode() for number in range(variants)]
    partitions = [partition_for(key.decode(), PARTITIONS) for key in keys]
    for key, partition in zip(keys, partitions, strict=True):
        post = {"variant_id": key.decode(), "persona_id": "bench", "post_id": "post", "timeout_minutes": 600}
        await producer.send("variant_posted", json.dumps(post).encode(), key=key, partition=partition)
    await producer.flush()
    now = format_moment(time.time_ns() // 1_000).encode()
    for number in range(events):
        variant = number % variants
        kind = kind_of(number, variants).encode()
        value = b'{"variant_id":"%s","post_id":"post","kind":"%s","event_id":"event-%d","occurred_at":"%s"}' % (keys[variant], kind, number, now)
        await producer.send("interaction", value, key=keys[variant], partition=partitions[variant])
    await producer.flush()
    await producer.stop()


async def early_kill(endpoints: Endpoints, events: int, variants: int, number: int) -> float:
    """Start a monitor with a consumer group of its own; return events a second from its first to its last."""
    port = free_port()
    environment = {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": endpoints.kafka,
        "DATABASE_URL": endpoints.database_url,
        "EARLY_KILL_WEB_PORT": str(port),
        "EARLY_KILL_APP_ID": f"bench-{number}",
        "EARLY_KILL_LOG_LEVEL": "WARNING",
    }
    process = subprocess.Popen([sys.executable, "-m", "streams.cli", "worker", "--role", "monitor"], env=environment)  # noqa: ASYNC220 - the benchmark has nothing else to do
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
            began = ended = 0.0
            read = 0
            while read < events:
                await asyncio.sleep(0.1)
                try:
                    async with client.get("/metrics") as answer:
                        text = await answer.text()
                except aiohttp.ClientError:
                    continue
                now = time.monotonic()
                found = re.search(r'performance_monitor_records_read_total\{topic="interaction"\} (\S+)', text)
                before, read = read, int(float(found[1])) if found else 0
                if read and not began:
                    began, first = now, read
                if read > before:
                    ended = now
            async with client.get("/performance-monitor/status/variant-0") as answer:
                status = await answer.json()
            counts = Counter(kind_of(number, variants) for number in range(0, events, variants))
            if status["counts"]["view"] != counts["view"] or status["counts"]["like"] != counts["like"]:
                raise SystemExit(f"the monitor counted {status['counts']}, not {counts}")
            return (events - first) / (ended - began)
    finally:
        process.terminate()
        process.wait(20)


class _Increment(msgspec.Struct, gc=False):
    variant_id: str
    kind: str
    count: int = 1


async def plain(endpoints: Endpoints, events: int, variants: int) -> float:
    """Read, decode and count with nothing around it; return events a second."""
    decode = msgspec.json.Decoder(_Increment).decode
    consumer = AIOKafkaConsumer(bootstrap_servers=endpoints.kafka, auto_offset_reset="earliest", max_partition_fetch_bytes=4 << 20, enable_auto_commit=False)
    await consumer.start()
    consumer.assign([TopicPartition("interaction", partition) for partition in range(PARTITIONS)])
    counts: Counter[tuple[str, str]] = Counter()
    read = 0
    began = time.monotonic()
    while read < events:
        for records in (await consumer.getmany(timeout_ms=1_000, max_records=10_000)).values():
            for record in records:
                event = decode(record.value)
                counts[event.variant_id, event.kind] += event.count
            read += len(records)
    took = time.monotonic() - began
    await consumer.stop()
    if sum(counts.values()) != events or len(counts) != 2 * variants:
        raise SystemExit("the plain consumer counted wrongly")
    return events / took


async def run(events: int, variants: int) -> dict[str, object]:
    """Start Kafka, preload, and let the two take turns."""
    with tempfile.TemporaryDirectory(prefix="early-kill-bench-") as home:
        async with platform(UpOptions(data_dir=Path(home) / "data", kafka_port=free_port(), postgres_port=free_port(), web_port=free_port(), workers=0)) as endpoints:
            await preload(endpoints.kafka, events, variants)
            judged, limit = [], []
            for number in range(ROUNDS):
                judged.append(await early_kill(endpoints, events, variants, number))
                limit.append(await plain(endpoints, events, variants))
    ratios = sorted(ours / theirs for ours, theirs in zip(judged, limit, strict=True))
    return {
        "events": events,
        "variants": variants,
        "early_kill_per_second": [round(rate) for rate in judged],
        "plain_aiokafka_msgspec_per_second": [round(rate) for rate in limit],
        "ratio_median": round(ratios[len(ratios) // 2], 2),
    }


def main() -> None:
    """Parse arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000, help="interactions to preload (default 1,000,000)")
    parser.add_argument("--variants", type=int, default=1_000, help="variants they are spread over (default 1,000)")
    parser.add_argument("--json", type=Path, help="write the result to this file too")
    arguments = parser.parse_args()
    text = json.dumps(asyncio.run(run(arguments.events, arguments.variants)), indent=2)
    sys.stdout.write(text + "\n")
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()

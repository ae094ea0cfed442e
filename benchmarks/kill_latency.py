"""How soon a kill follows: append time of the deciding interaction to append time of the kill, on embedded Kafka.

    .venv/bin/python -m benchmarks.kill_latency --rate 200 --seconds 30

Variants get 334 views and ten likes each; the tenth decides. Beside it, in the same minute and at the same rate, a plain
aiokafka echo: consume a record, produce one. Its time is what Kafka and the client cost without deciding anything.
Prints milliseconds (append times have no finer resolution) and the ratio; ``--json FILE`` writes them too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.local.child import free_port
from streams.local.parts import UpOptions
from streams.local.supervisor import platform

LIKES = 10
VIEWS = 334
WARM_UP_SECONDS = 5.0
"""Measured and thrown away, for both: a cold JVM and first log segments are not what is asked about."""
ROUNDS = 3
"""Times that the two take turns."""


def events(variants: int, run: str) -> Iterator[tuple[str, str, bytes]]:
    """Yield (topic, variant, value) of ``variants`` bad variants, interleaved ten at a time; the last event of each decides."""
    for first in range(0, variants, 10):
        names = [f"{run}-{number}" for number in range(first, min(first + 10, variants))]
        for name in names:
            yield "variant_posted", name, json.dumps({"variant_id": name, "persona_id": "bench", "post_id": "post"}).encode()
        for name in names:
            yield "interaction", name, json.dumps({"variant_id": name, "post_id": "post", "kind": "view", "count": VIEWS}).encode()
        for number in range(LIKES):
            for name in names:
                yield "interaction", name, json.dumps({"variant_id": name, "post_id": "post", "kind": "like", "event_id": f"{name}-{number}"}).encode()


async def measure(bootstrap: str, source: str, sink: str, rate: float, seconds: float, topic_of: Callable[[str], str]) -> list[int]:
    """Send events at ``rate`` a second; return milliseconds from each variant's last event to its record on ``sink``."""
    consumer = AIOKafkaConsumer(sink, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await consumer.start()
    await producer.start()
    answered: dict[str, int] = {}

    async def collect() -> None:
        async for record in consumer:
            answered.setdefault(record.key.decode(), record.timestamp)

    collecting = asyncio.create_task(collect())
    sent: dict[str, asyncio.Future[object]] = {}
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        for number, (topic, name, value) in enumerate(events(max(10, int(rate * seconds / (LIKES + 2))), uuid.uuid4().hex[:8])):
            await asyncio.sleep(max(0, began + number / rate - loop.time()))
            future = await producer.send(topic_of(topic), value, key=name.encode())
            if topic == source:
                sent[name] = future
            else:
                await future  # appended after its own views, a post would find them early
        await producer.flush()
        deadline = loop.time() + 30
        while missing := sent.keys() - answered.keys():
            if collecting.done():
                collecting.result()
            if loop.time() > deadline:
                raise SystemExit(f"{len(missing)} of {len(sent)} are still without an answer, {min(missing)} for one")
            await asyncio.sleep(0.1)
    finally:
        collecting.cancel()
        with suppress(asyncio.CancelledError):
            await collecting
        await consumer.stop()
        await producer.stop()
    return [answered[name] - (await future).timestamp for name, future in sent.items()]  # type: ignore[attr-defined]


async def echo(bootstrap: str, ready: asyncio.Event) -> None:
    """Answer the last like of each variant with a record, and do nothing else."""
    consumer = AIOKafkaConsumer("echo_in", bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await consumer.start()
    await producer.start()
    ready.set()
    try:
        async for record in consumer:
            if record.value.endswith(b'-9"}'):
                await producer.send("echo_out", record.value, key=record.key)
    finally:
        await consumer.stop()
        await producer.stop()


async def _with_echo(bootstrap: str, work: Callable[[], Awaitable[list[int]]]) -> list[int]:
    ready = asyncio.Event()
    echoing = asyncio.create_task(echo(bootstrap, ready))
    await ready.wait()
    try:
        return await work()
    finally:
        echoing.cancel()
        with suppress(asyncio.CancelledError):
            await echoing


def summary(milliseconds: list[int]) -> dict[str, float]:
    """Return count, median, 99th percentile and maximum."""
    percentiles = statistics.quantiles(milliseconds, n=100, method="inclusive")
    return {"n": len(milliseconds), "p50": percentiles[49], "p99": percentiles[98], "max": max(milliseconds)}


async def run(rate: float, seconds: float) -> dict[str, object]:
    """Start everything, warm up, and measure both."""
    with tempfile.TemporaryDirectory(prefix="early-kill-bench-") as home:
        options = UpOptions(data_dir=Path(home) / "data", kafka_port=free_port(), postgres_port=free_port(), web_port=free_port(), workers=1)
        async with platform(options) as endpoints:
            admin = AIOKafkaAdminClient(bootstrap_servers=endpoints.kafka)
            await admin.start()
            log_append_time = {"message.timestamp.type": "LogAppendTime"}
            await admin.create_topics([NewTopic(name, 4, 1, topic_configs=log_append_time) for name in ("echo_in", "echo_out")])
            await admin.close()

            def early_kill(seconds: float) -> Awaitable[list[int]]:
                return measure(endpoints.kafka, "interaction", "variant_killed", rate, seconds, lambda topic: topic)

            def plain_echo(seconds: float) -> Awaitable[list[int]]:
                return measure(endpoints.kafka, "interaction", "echo_out", rate, seconds, lambda _: "echo_in")

            kills: list[int] = []
            plain: list[int] = []
            await early_kill(WARM_UP_SECONDS)
            await _with_echo(endpoints.kafka, lambda: plain_echo(WARM_UP_SECONDS))
            for _ in range(ROUNDS):
                kills += await early_kill(seconds / ROUNDS)
                plain += await _with_echo(endpoints.kafka, lambda: plain_echo(seconds / ROUNDS))
    judged, baseline = summary(kills), summary(plain)
    return {
        "rate_per_second": rate,
        "seconds": seconds,
        "early_kill_ms": judged,
        "plain_echo_ms": baseline,
        "ratio_p50": judged["p50"] / max(1, baseline["p50"]),
        "ratio_p99": judged["p99"] / max(1, baseline["p99"]),
    }


def main() -> None:
    """Parse arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=200, help="events a second (default 200)")
    parser.add_argument("--seconds", type=float, default=30, help="how long (default 30)")
    parser.add_argument("--json", type=Path, help="write the result to this file too")
    arguments = parser.parse_args()
    result = asyncio.run(run(arguments.rate, arguments.seconds))
    text = json.dumps(result, indent=2)
    sys.stdout.write(text + "\n")
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()

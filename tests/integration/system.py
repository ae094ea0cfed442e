"""A whole system on real Kafka and PostgreSQL, driven from outside as its users do: topics, tables, HTTP, signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from prometheus_client.parser import text_string_to_metric_families
from psycopg.rows import dict_row

from streams.settings import Settings
from streams.store import migrate
from streams.topics import ensure_topics
from tests.ports import steady_port

ROOT = Path(__file__).parents[2]
READY_SECONDS = 40.0


class Worker:
    """One worker process."""

    def __init__(self, settings: Settings, role: str, home: Path, extra: Mapping[str, str]) -> None:
        self.port = steady_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = home / f"{role}-{self.port}.log"
        self._ready_file = home / f"{role}-{self.port}.ready"
        self._role = role
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("EARLY_KILL_", "KAFKA_", "DATABASE_"))},
            "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
            "DATABASE_URL": settings.database_url.get_secret_value(),
            "EARLY_KILL_TOPIC_PREFIX": settings.topic_prefix,
            "EARLY_KILL_APP_ID": settings.app_id,
            "EARLY_KILL_WEB_PORT": str(self.port),
            "EARLY_KILL_READY_FILE": str(self._ready_file),
            **extra,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._ready_file.unlink(missing_ok=True)
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "streams.cli", "worker", "--role", self._role, "--web-port", str(self.port)], cwd=ROOT, env=self._environment, stdout=out, stderr=out
            )

    async def ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not self._ready_file.exists():
            assert self._process is not None
            assert self._process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            await asyncio.sleep(0.05)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.wait()

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self, seconds: float = 12) -> int:
        assert self._process is not None
        return self._process.wait(seconds)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None


class System:
    """Topics, tables and workers of one test."""

    def __init__(self, settings: Settings, home: Path, **environment: str) -> None:
        self.settings = settings
        self._home = home
        self._environment = environment
        self.monitors: list[Worker] = []
        self.sink = Worker(settings, "sink", home, environment)
        self._producer: AIOKafkaProducer | None = None

    def topic(self, name: str) -> str:
        return self.settings.topic_prefix + name

    async def prepare(self) -> None:
        await ensure_topics(self.settings)
        await asyncio.to_thread(migrate, self.settings)
        self._producer = AIOKafkaProducer(bootstrap_servers=self.settings.kafka_bootstrap_servers, acks="all", enable_idempotence=True, linger_ms=2)
        await self._producer.start()

    def add_monitor(self) -> Worker:
        worker = Worker(self.settings, "monitor", self._home, self._environment)
        self.monitors.append(worker)
        worker.start()
        return worker

    async def start(self, monitors: int = 1) -> None:
        await self.prepare()
        self.sink.start()
        workers = [self.add_monitor() for _ in range(monitors)]
        await asyncio.gather(self.sink.ready(), *(worker.ready() for worker in workers))

    async def stop(self) -> None:
        if self._producer is not None:
            await self._producer.stop()
        for worker in [*self.monitors, self.sink]:
            if worker.is_running:
                worker.signal(signal.SIGCONT)
                worker.kill()

    # -- topics

    async def send(self, topic: str, value: Mapping[str, Any] | bytes | None, key: bytes | None = None) -> asyncio.Future[Any]:
        assert self._producer is not None
        if isinstance(value, Mapping):
            key = value["variant_id"].encode() if key is None else key
            value = json.dumps(value).encode()
        return await self._producer.send(self.topic(topic), value, key=key)

    async def post(self, variant: str, **fields: Any) -> Any:
        value = {"variant_id": variant, "persona_id": "persona", "post_id": f"{variant}-post", **fields}
        return await (await self.send("variant_posted", value))

    async def interact(self, variant: str, kind: str, n: int = 1, **fields: Any) -> Any:
        """Send ``n`` events; returns the metadata of the last."""
        value = {"variant_id": variant, "kind": kind, "post_id": f"{variant}-post", **fields}
        value = {name: field for name, field in value.items() if field is not None}
        futures = [await self.send("interaction", value) for _ in range(n)]
        return (await asyncio.gather(*futures))[-1]

    async def records(self, topic: str) -> list[ConsumerRecord]:
        """Everything on a topic now."""
        consumer = AIOKafkaConsumer(self.topic(topic), bootstrap_servers=self.settings.kafka_bootstrap_servers, auto_offset_reset="earliest", enable_auto_commit=False)
        await consumer.start()
        try:
            ends = await consumer.end_offsets(consumer.assignment())
            found: list[ConsumerRecord] = []
            while any([await consumer.position(tp) < end for tp, end in ends.items()]):
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    found += records
            return found
        finally:
            await consumer.stop()

    async def values(self, topic: str) -> list[dict[str, Any]]:
        return [json.loads(record.value) for record in await self.records(topic)]

    # -- tables

    def query(self, sql: str, *arguments: Any) -> list[dict[str, Any]]:
        with psycopg.connect(self.settings.database_url.get_secret_value(), autocommit=True, connect_timeout=5, row_factory=dict_row) as connection:
            cursor = connection.execute(sql, arguments)
            return cursor.fetchall() if cursor.description else []

    def sessions(self, variant: str) -> list[dict[str, Any]]:
        return self.query("SELECT * FROM variant_monitoring WHERE variant_id = %s ORDER BY started_at", variant)

    async def until(self, condition: Callable[[], Any], seconds: float, what: str = "") -> Any:
        """Return the condition's first true value."""
        deadline = time.monotonic() + seconds
        while True:
            value = condition()
            if value:
                return value
            assert time.monotonic() < deadline, f"not within {seconds} s: {what or condition}"
            await asyncio.sleep(0.05)

    async def until_ended(self, variants: Iterable[str], seconds: float = 20) -> dict[str, dict[str, Any]]:
        """Wait until every variant has a session and none is active; returns the last session of each."""
        wanted = list(variants)

        def ended() -> dict[str, dict[str, Any]] | None:
            rows = self.query("SELECT * FROM variant_monitoring WHERE variant_id = ANY(%s) ORDER BY started_at", wanted)
            found = {row["variant_id"]: row for row in rows}
            return found if len(found) == len(wanted) and not any(row["is_active"] for row in rows) else None

        result: dict[str, dict[str, Any]] = await self.until(ended, seconds, f"sessions of {len(wanted)} variants have ended")
        return result

    # -- HTTP

    async def call(self, worker: Worker, method: str, path: str, **options: Any) -> tuple[int, Any]:
        async with aiohttp.ClientSession() as client, client.request(method, worker.url + path, timeout=aiohttp.ClientTimeout(15), **options) as answer:
            return answer.status, await answer.json() if "json" in answer.content_type else await answer.text()


@asynccontextmanager
async def running(settings: Settings, home: Path, monitors: int = 1, **environment: str) -> AsyncIterator[System]:
    """A started system that is gone afterwards."""
    system = System(settings, home, **environment)
    try:
        await system.start(monitors)
        yield system
    finally:
        await system.stop()


def books(metrics: str) -> tuple[Counter[str], Counter[str]]:
    """Return how many records of each topic a monitor has read, and what became of them, off its ``/metrics``."""
    samples = [sample for family in text_string_to_metric_families(metrics) for sample in family.samples]

    def counts(name: str, label: str) -> Counter[str]:
        return +Counter({sample.labels[label]: int(sample.value) for sample in samples if sample.name == name})

    return counts("performance_monitor_records_read_total", "topic"), counts("performance_monitor_events_total", "result")


def fresh(name: str) -> str:
    """A variant id nobody else uses."""
    return f"{name}-{uuid.uuid4().hex[:8]}"

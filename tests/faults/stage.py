"""A whole system whose every way to Kafka and PostgreSQL leads through a proxy, with a keeper that starts dead workers again."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from streams.settings import Settings
from tests.databases import fresh_database
from tests.faults.findings import Made, findings
from tests.faults.oracle import Raw, Verdict, judge
from tests.faults.servers import Servers
from tests.integration.system import System, Worker, books
from tests.ports import LOOPBACK

GRACE_SECONDS = 1.0
SOURCES = ("variant_posted", "interaction", "monitoring_control")
START_AGAIN_SECONDS = 0.3
LEAVE_SECONDS = 12.0
ANSWER_SECONDS = 20.0


@dataclass(slots=True)
class Stage:
    """One run's system.

    Attributes:
        exits: How workers ended that were not told to.
    """

    servers: Servers
    system: System
    exits: Counter[str] = field(default_factory=Counter)
    _gone: list[Worker] = field(default_factory=list)
    _wrong: list[str] = field(default_factory=list)
    _keeper: asyncio.Task[None] | None = None

    # -- workers -----------------------------------------------------------------------------------------------------

    @property
    def workers(self) -> list[Worker]:
        return [*self.system.monitors, self.system.sink]

    def keep(self) -> None:
        """Start workers again that end, as whoever runs them does."""
        self._keeper = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        while True:
            for worker in self.workers:
                if worker._process is not None and not worker.is_running:
                    self.exits[f"{worker._role} {worker._process.returncode}{_why(worker)}"] += 1
                    worker.start()
            await asyncio.sleep(START_AGAIN_SECONDS)

    async def let_go(self, monitor: Worker, number: signal.Signals) -> None:
        """End a monitor for good; what it has logged counts all the same."""
        self.system.monitors.remove(monitor)
        self._gone.append(monitor)
        monitor.signal(number)
        code = await self._end(monitor)
        if code and number is signal.SIGTERM:
            self._wrong.append(f"a monitor ended with {code} after SIGTERM")

    async def _end(self, worker: Worker) -> int:
        """Return the exit code of a worker that was told to end; one that does not is killed, and told of by ``leave``."""
        try:
            return await asyncio.to_thread(worker.wait, LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            self._wrong.append(f"a {worker._role} has not ended {LEAVE_SECONDS:.0f} s after it was told to")
            worker.kill()
            return 0

    async def let_be(self) -> None:
        """Start none again from here on."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None

    def marks(self) -> dict[Path, int]:
        """How long each worker's log is now."""
        return {worker.log: worker.log.stat().st_size if worker.log.exists() else 0 for worker in self.workers}

    def said(self, marks: dict[Path, int], pattern: str) -> str | None:
        """Return the first match of ``pattern`` in what workers have logged since."""
        for worker in [*self.workers, *self._gone]:
            if worker.log.exists():
                with worker.log.open("rb") as log:
                    log.seek(marks.get(worker.log, 0))
                    found = re.search(pattern, log.read().decode("utf-8", "replace"))
                if found:
                    return found[0]
        return None

    # -- what there is -----------------------------------------------------------------------------------------------

    async def undone(self, role: str) -> int:
        """How many records the group has not committed yet."""
        done = await self.done(role)  # before the ends: what comes in between is undone
        return sum((await self.ends(*_read_by(role))).values()) - done

    async def done(self, role: str) -> int:
        """How many records the group has committed."""
        settings = self.system.settings
        admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers, request_timeout_ms=5_000)
        try:
            await admin.start()
            committed = await admin.list_consumer_group_offsets(settings.app_id + ("-sink" if role == "sink" else ""))
        finally:
            await admin.close()
        topics = {self.system.topic(name) for name in _read_by(role)}
        return sum(max(0, place.offset) for tp, place in committed.items() if tp.topic in topics)

    async def ends(self, *names: str) -> dict[Any, int]:
        """End offset of each partition of these topics."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.system.settings.kafka_bootstrap_servers)
        await consumer.start()
        try:
            tps = [TopicPartition(self.system.topic(name), partition) for name in names for partition in range(self.system.settings.partitions)]
            return dict(await consumer.end_offsets(tps))
        finally:
            await consumer.stop()

    async def settle(self, variants: int, seconds: float) -> list[str]:
        """Wait until every session has ended and every record is done; returns what is not so in the end."""
        deadline = time.monotonic() + seconds
        while True:
            [row] = self.system.query("SELECT count(*) FILTER (WHERE is_active) AS active, count(*) AS sessions FROM variant_monitoring")
            left = []
            if row["active"] or row["sessions"] < variants:
                left.append(f"{row['active']} of {row['sessions']} sessions have not ended, {variants} were posted")
            else:
                left += [f"{count} records are not done by the {role}" for role in ("monitor", "sink") if (count := await self.undone(role))]
            if not left or time.monotonic() > deadline:
                return left
            await asyncio.sleep(0.3)

    async def dump(self, *names: str) -> dict[str, list[Raw]]:
        """Return all records of these topics."""
        return {name: [Raw(r.partition, r.offset, r.timestamp, r.key, r.value) for r in await self.system.records(name)] for name in names}

    async def made(self) -> Made:
        topics = await self.dump("variant_killed", "monitoring_record", "dead_letter")
        tables = [
            self.system.query("SELECT * FROM variant_monitoring"),
            self.system.query("SELECT * FROM variant_pool"),
            self.system.query("SELECT * FROM scheduled_post"),
            self.system.query("SELECT * FROM monitoring_audit"),
        ]
        return Made(topics["variant_killed"], topics["monitoring_record"], topics["dead_letter"], *tables)

    async def judged(self) -> tuple[Verdict, list[str]]:
        """Return what the oracle says, and everything that is otherwise."""
        verdict = judge(await self.dump(*SOURCES), GRACE_SECONDS)
        return verdict, findings(verdict, await self.made(), self.system.settings.topic_prefix)

    async def unbalanced(self) -> list[str]:
        """Compare what each monitor has read with the sum over its results."""
        wrong = []
        for worker in self.system.monitors:
            if not worker.is_running:
                continue
            try:
                text = await self._metrics(worker)
            except aiohttp.ClientError as error:
                wrong.append(f"a monitor does not tell its metrics: {error!r}")
                continue
            read, results = books(text)
            if results.total() != read.total():
                wrong.append(f"a monitor has read {read.total()} records and has {results.total()} results")
        return wrong

    async def _metrics(self, worker: Worker) -> str:
        """Ask a worker for its metrics; nothing if it dies at a named place just now. One that has just been started gets time."""
        until = time.monotonic() + ANSWER_SECONDS
        while worker.is_running:
            try:
                return str((await self.system.call(worker, "GET", "/metrics"))[1])
            except aiohttp.ClientError:
                if time.monotonic() > until:
                    raise
            await asyncio.sleep(0.05)
        return ""

    async def leave(self) -> list[str]:
        """Stop all workers with SIGTERM; returns what was wrong with that, or stands in their logs and must not."""
        await self.let_be()
        wrong = []
        for worker in self.workers:
            if worker.is_running:
                worker.signal(signal.SIGTERM)
        for worker in self.workers:
            code = await self._end(worker)
            if code:
                wrong.append(f"a {worker._role} ended with {code} after SIGTERM")
        wrong += self._wrong
        for words in ("internal error", "Traceback"):
            found = self.said({}, rf".*{words}(?s:.{{0,2000}})")
            if found:
                wrong.append(f"in a log: {found}")
        return wrong

    def fill(self, variants: list[str]) -> None:
        """Put the variants into the pool, and schedule two posts of each."""
        with psycopg.connect(self.system.settings.database_url.get_secret_value(), autocommit=True) as connection, connection.cursor() as cursor:
            cursor.executemany("INSERT INTO variant_pool (variant_id, persona_id, status) VALUES (%s, 'persona', 'active')", [(name,) for name in variants])
            again = [(name, status) for name in variants for status in ("scheduled", "retry_scheduled")]
            cursor.executemany("INSERT INTO scheduled_post (variant_id, scheduled_for, status) VALUES (%s, now() + interval '6 hours', %s)", again)


@asynccontextmanager
async def staged(servers: Servers, home: Path, monitors: int = 1, **environment: str) -> AsyncIterator[Stage]:
    """Set a system up on these servers, with names of its own, and take it away again."""
    name = f"f{uuid.uuid4().hex[:10]}"
    with fresh_database(servers.postgres) as url:
        settings = Settings.model_validate({"kafka_bootstrap_servers": servers.kafka.bootstrap_servers, "database_url": url, "topic_prefix": f"{name}-", "app_id": f"{name}-app"})
        through = {
            "KAFKA_BOOTSTRAP_SERVERS": f"{LOOPBACK}:{servers.kafka_proxy.port}",
            "DATABASE_URL": url.replace(f":{servers.postgres.port}/", f":{servers.postgres_proxy.port}/"),
        }
        await asyncio.to_thread(home.mkdir, parents=True, exist_ok=True)
        stage = Stage(servers, System(settings, home, EARLY_KILL_GRACE_SECONDS=str(GRACE_SECONDS), **through, **environment))
        try:
            await stage.system.start(monitors)
            yield stage
        finally:
            await stage.let_be()
            await stage.system.stop()
            await asyncio.to_thread(servers.heal)
            await _remove_topics(settings)


async def _remove_topics(settings: Settings) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    await admin.start()
    try:
        names = [name for name in await admin.list_topics() if name.startswith(settings.topic_prefix)]
        if names:
            await admin.delete_topics(names)
    finally:
        await admin.close()


def _read_by(role: str) -> tuple[str, ...]:
    return SOURCES if role == "monitor" else ("monitoring_record",)


def _why(worker: Worker) -> str:
    found = re.search(r"stopped: [^\[]*", worker.log.read_text().strip().splitlines()[-1]) if worker._process is not None and worker._process.returncode == 1 else None
    return f" ({found[0].strip()})" if found else ""

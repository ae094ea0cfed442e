"""A whole system whose every way to Kafka and PostgreSQL leads through a proxy, with a keeper that starts dead workers again."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from psycopg import sql

from streams.local.kafka import KafkaServer
from streams.local.postgres import PostgresServer
from streams.settings import Settings
from tests.faults.findings import Made, findings
from tests.faults.oracle import Raw, Verdict, judge
from tests.faults.proxy import LOOPBACK, Proxy, own_port
from tests.integration.system import System, Worker

GRACE_SECONDS = 1.0
SOURCES = ("variant_posted", "interaction", "monitoring_control")
START_AGAIN_SECONDS = 0.3
LEAVE_SECONDS = 12.0


class ProxiedKafka(KafkaServer):
    """A broker with a second listener, which sends its clients to a proxy; ``port`` leads to it directly."""

    def __init__(self, home: Path, port: int, inner_port: int, proxy_port: int) -> None:
        super().__init__(home, port)
        self.inner_port, self.proxy_port = inner_port, proxy_port

    def _properties(self, controller_port: int) -> str:
        more = {
            "listeners": f",PROXIED://{LOOPBACK}:{self.inner_port}",
            "advertised.listeners": f",PROXIED://{LOOPBACK}:{self.proxy_port}",
            "listener.security.protocol.map": ",PROXIED:PLAINTEXT",
        }
        lines = [line + more.get(line.partition("=")[0], "") for line in super()._properties(controller_port).splitlines()]
        return "\n".join([*lines, "inter.broker.listener.name=PLAINTEXT", ""])


@dataclass(slots=True)
class Servers:
    """Kafka and PostgreSQL, and the proxies before them; used by many runs."""

    kafka: ProxiedKafka
    postgres: PostgresServer
    kafka_proxy: Proxy
    postgres_proxy: Proxy

    def heal(self) -> None:
        """Bring back whatever is away; blocks until it is there."""
        for proxy in (self.kafka_proxy, self.postgres_proxy):
            proxy.pass_on()
        for server in (self.kafka, self.postgres):
            if server.pid is None:
                server.start()
            server.wait_ready(60)


@contextlib.contextmanager
def serving(home: Path) -> Iterator[Servers]:
    """Start both servers and their proxies below ``home``."""
    kafka_proxy, postgres_proxy = Proxy(own_port(), own_port()), Proxy(own_port(), own_port())
    kafka = ProxiedKafka(home / "kafka", own_port(), kafka_proxy.target, kafka_proxy.port)
    postgres = PostgresServer(home / "postgres", postgres_proxy.target, configuration={"fsync": "off"})
    try:
        kafka.start()
        postgres.start()
        kafka_proxy.start()
        postgres_proxy.start()
        kafka.wait_ready(60)
        postgres.wait_ready(60)
        yield Servers(kafka, postgres, kafka_proxy, postgres_proxy)
    finally:
        kafka.stop()
        postgres.remove()
        for proxy in (kafka_proxy, postgres_proxy):
            if proxy._thread.is_alive():
                proxy.stop()


@dataclass(slots=True)
class Stage:
    """One run's system. ``exits`` says how workers ended that were not told to."""

    servers: Servers
    system: System
    exits: Counter[str] = field(default_factory=Counter)
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
        for worker in self.workers:
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
        settings, names = self.system.settings, SOURCES if role == "monitor" else ("monitoring_record",)
        admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers, request_timeout_ms=5_000)
        try:
            await admin.start()
            committed = await admin.list_consumer_group_offsets(settings.app_id + ("-sink" if role == "sink" else ""))
        finally:
            await admin.close()
        ends = await self.ends(*names)
        return sum(end - max(0, committed[tp].offset if tp in committed else 0) for tp, end in ends.items())

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
            _, text = await self.system.call(worker, "GET", "/metrics")
            results = sum(float(value) for value in re.findall(r'^performance_monitor_events_total\{result="\w+"\} (\S+)', text, re.MULTILINE))
            read = sum(float(value) for value in re.findall(r"^performance_monitor_records_read_total\{topic=\"\S+\"\} (\S+)", text, re.MULTILINE))
            if results != read:
                wrong.append(f"a monitor has read {read:.0f} records and has {results:.0f} results")
        return wrong

    async def leave(self) -> list[str]:
        """Stop all workers with SIGTERM; returns what was wrong with that, or stands in their logs and must not."""
        await self.let_be()
        wrong = []
        for worker in self.workers:
            if worker.is_running:
                worker.signal(signal.SIGTERM)
        for worker in self.workers:
            if worker._process is not None:
                code = await asyncio.to_thread(worker._process.wait, LEAVE_SECONDS)
                if code:
                    wrong.append(f"a {worker._role} ended with {code} after SIGTERM")
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
    with psycopg.connect(servers.postgres.database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    url = servers.postgres.database_url.rsplit("/", 1)[0] + f"/{name}"
    settings = Settings.model_validate({"kafka_bootstrap_servers": servers.kafka.bootstrap_servers, "database_url": url, "topic_prefix": f"{name}-", "app_id": f"{name}-app"})
    through = {"KAFKA_BOOTSTRAP_SERVERS": f"{LOOPBACK}:{servers.kafka_proxy.port}", "DATABASE_URL": url.replace(f":{servers.postgres.port}/", f":{servers.postgres_proxy.port}/")}
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
        with psycopg.connect(servers.postgres.database_url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


async def _remove_topics(settings: Settings) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    await admin.start()
    try:
        names = [name for name in await admin.list_topics() if name.startswith(settings.topic_prefix)]
        if names:
            await admin.delete_topics(names)
    finally:
        await admin.close()


def _why(worker: Worker) -> str:
    found = re.search(r"stopped: [^\[]*", worker.log.read_text().strip().splitlines()[-1]) if worker._process is not None and worker._process.returncode == 1 else None
    return f" ({found[0].strip()})" if found else ""

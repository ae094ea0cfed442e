"""What benchmarks stand on: embedded Kafka and PostgreSQL without any worker, and monitors of their own.

    async with stage() as servers:
        await servers.create_topics()
        await preload(servers.kafka, backlog)                   # benchmarks/backlog.py
        async with servers.monitor("bench-1", {"EARLY_KILL_FLUSH_INTERVAL_SECONDS": "2"}) as worker:
            await worker.read_at_least(backlog.events)

Kafka runs with Java's full compiler here, not quick to start as in ``early-kill up``: a broker that is busy compiling would take from all who are measured.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import psutil

from models.errors import Stop
from streams.local.child import free_port
from streams.local.kafka import UNDER_LOAD, KafkaServer
from streams.local.postgres import PostgresServer
from streams.local.worker import WorkerProcess
from streams.settings import Settings
from streams.topics import ensure_topics

FEW_SECONDS = 0.05
MANY_SECONDS = 1.0
READ_INTERACTIONS = 'performance_monitor_records_read_total{topic="%sinteraction"}'


@dataclass(frozen=True, slots=True)
class Servers:
    """Kafka and PostgreSQL, running, with a migrated schema and no topics yet.

    Attributes:
        kafka: ``host:port``.
        database_url: Of the database, ``postgresql://…``.
        home: A temporary directory, for whoever needs files; gone with the servers.
        kafka_pid: The broker's process, to read its CPU time and memory.
        postgres_pid: The same for PostgreSQL's first process.
    """

    kafka: str
    database_url: str
    home: Path
    kafka_pid: int
    postgres_pid: int

    def environment(self, settings: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return a worker's whole environment: this process's without settings of the project, the servers' addresses, and ``settings`` (names as in docs/reference.md)."""
        own = ("EARLY_KILL_", "KAFKA_", "DATABASE_URL")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        reached = {"KAFKA_BOOTSTRAP_SERVERS": self.kafka, "DATABASE_URL": self.database_url, "EARLY_KILL_LOG_LEVEL": "WARNING"}
        return {**inherited, **reached, **(settings or {})}

    async def create_topics(self, prefix: str = "", partitions: int = 4) -> Settings:
        """Create the project's topics under ``prefix``; return settings that name them and these servers."""
        settings = Settings(**_fields(kafka_bootstrap_servers=self.kafka, database_url=self.database_url, topic_prefix=prefix, partitions=partitions))
        await ensure_topics(settings)
        return settings

    @asynccontextmanager
    async def monitor(self, app_id: str, settings: Mapping[str, str] | None = None) -> AsyncIterator[Monitor]:
        """Run a monitor as a process of its own, as shipped but for ``settings``; it is started when the body begins and perhaps not ready yet.

        Args:
            app_id: Its consumer group and changelogs; a new name reads everything from the beginning. Several monitors of one group share it.
            settings: Environment variables over the defaults, ``EARLY_KILL_TOPIC_PREFIX`` for one.
        """
        port = free_port()
        directory = self.home / "monitors" / f"{app_id}-{port}"
        environment = self.environment({"EARLY_KILL_APP_ID": app_id, **(settings or {})})
        process = WorkerProcess("monitor", run_dir=directory, log=directory / "monitor.log", environment=environment, web_port=port)
        await asyncio.to_thread(process.start)
        try:
            async with aiohttp.ClientSession(process.url, timeout=aiohttp.ClientTimeout(total=30)) as client:
                yield Monitor(process, client, READ_INTERACTIONS % (settings or {}).get("EARLY_KILL_TOPIC_PREFIX", ""))
        finally:
            await asyncio.to_thread(process.stop)


class Look(NamedTuple):
    """What was seen of a monitor at a moment.

    Attributes:
        at: Seconds of the monotonic clock.
        read: Interactions read, and folded into its state.
        cpu_seconds: CPU time used since its start.
    """

    at: float
    read: int
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Monitor:
    """A running monitor, asked over its HTTP API.

    Attributes:
        process: To stop, kill or start it again: its methods block, so call them by ``asyncio.to_thread``.
        client: For calls of any kind.
        read_metric: Name and labels of the counter of interactions read.
    """

    process: WorkerProcess
    client: aiohttp.ClientSession
    read_metric: str

    @property
    def pid(self) -> int:
        """Its process.

        Raises:
            Stop: It has ended.
        """
        if self.process.child.pid is None:
            raise Stop(f"the monitor ended (exit code {self.process.child.exit_code}): {self.process.child.last_words()}")
        return self.process.child.pid

    async def metrics(self) -> dict[str, float]:
        """Return all metrics by name and labels as they are written, ``performance_monitor_events_total{result="counted"}`` for one. Empty while it starts.

        Each call renders all of them in the monitor, some milliseconds of its time: ask rarely while it is measured.

        Raises:
            Stop: The monitor has ended.
        """
        _ = self.pid
        try:
            async with self.client.get("/metrics") as answer:
                if answer.status != 200:  # noqa: PLR2004
                    return {}
                text = await answer.text()
        except aiohttp.ClientError:
            return {}
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))}

    async def read(self) -> int:
        """Return how many interactions it has read; 0 while it starts."""
        return int((await self.metrics()).get(self.read_metric, 0))

    async def read_at_least(self, events: int, seconds: float = 600) -> list[Look]:
        """Wait until it has read ``events`` interactions; return each look that found more than the one before.

        It looks often before the first and near the last, and once a second between, so as not to weigh.

        Raises:
            Stop: It has ended, or ``seconds`` went by without that many.
        """
        looks: list[Look] = []
        until = time.monotonic() + seconds
        while not looks or looks[-1].read < events:
            await asyncio.sleep(_until_next_look(looks, events))
            count = await self.read()
            now = time.monotonic()
            if count > (looks[-1].read if looks else 0):
                looks.append(Look(now, count, self.cpu_seconds()))
            elif now > until:
                raise Stop(f"the monitor has read {count} of {events} interactions after {seconds:g} s: {self.process.child.last_words()}")
        return looks

    def cpu_seconds(self) -> float:
        """Return the CPU time it has used since its start; asking costs it nothing."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    async def ready(self, seconds: float = 120) -> None:
        """Wait until it says that it is ready: topics assigned, state recovered.

        Raises:
            Stop: It has ended, or is not ready after ``seconds``.
        """
        until = time.monotonic() + seconds
        while not await asyncio.to_thread(self.process.is_ready):
            if self.pid and time.monotonic() > until:
                raise Stop(f"the monitor is not ready after {seconds:g} s: {self.process.child.last_words()}")
            await asyncio.sleep(FEW_SECONDS)

    async def status(self, variant_id: str, post_id: str | None = None) -> dict[str, Any]:
        """Return what ``/performance-monitor/status`` tells of a variant.

        Raises:
            Stop: It does not answer 200.
        """
        async with self.client.get(f"/performance-monitor/status/{variant_id}", params={"post_id": post_id} if post_id else {}) as answer:
            found: dict[str, Any] = await answer.json(content_type=None)
            if answer.status != 200:  # noqa: PLR2004
                raise Stop(f"the status of {variant_id} is {answer.status}: {found}")
            return found


@asynccontextmanager
async def stage(jvm: Sequence[str] = UNDER_LOAD) -> AsyncIterator[Servers]:
    """Start Kafka and PostgreSQL on free ports and a temporary directory, for the time of the context.

    Raises:
        Stop: One of them cannot be started.
    """
    from streams.store import migrate

    with tempfile.TemporaryDirectory(prefix="early-kill-bench-", ignore_cleanup_errors=True) as directory:
        home = Path(directory)
        kafka = KafkaServer(home / "kafka", free_port(), jvm=jvm)
        postgres = PostgresServer(home / "postgres", free_port())
        try:
            for server in (kafka, postgres):
                await asyncio.to_thread(server.start)
            for server in (kafka, postgres):
                await asyncio.to_thread(server.wait_ready)
            await asyncio.to_thread(migrate, Settings(**_fields(database_url=postgres.database_url)))
            if kafka.pid is None or postgres.pid is None:
                raise Stop(f"Kafka or PostgreSQL ended at its start: {kafka.child.last_words()}")
            yield Servers(kafka.bootstrap_servers, postgres.database_url, home, kafka.pid, postgres.pid)
        finally:
            for server in (kafka, postgres):
                await asyncio.shield(asyncio.to_thread(server.stop))


def say(line: str) -> None:
    """Tell people how it goes, on stderr."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _until_next_look(looks: Sequence[Look], events: int) -> float:
    """Seconds; a quarter of what is left at the pace since the first look, within bounds."""
    if len(looks) < 2:  # noqa: PLR2004 -- no pace yet
        return FEW_SECONDS
    first, last = looks[0], looks[-1]
    left = (events - last.read) * (last.at - first.at) / (last.read - first.read)
    return min(MANY_SECONDS, max(FEW_SECONDS, left / 4))


def _fields(**values: Any) -> dict[str, Any]:
    return values

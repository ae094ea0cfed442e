"""The processes that `early-kill up` keeps running, as its options and the settings want them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from models.errors import Stop
from streams.addresses import is_every_address
from streams.local.child import LOOPBACK, Child, free_port, require_free_port
from streams.local.endpoints import Endpoints
from streams.local.kafka import KafkaServer
from streams.local.postgres import PostgresServer
from streams.local.worker import WorkerProcess
from streams.settings import Settings

TOGETHER_MS = 1000  # monitors that are started together join their consumer group within this time


class Part(Protocol):
    """One process."""

    child: Child

    def start(self) -> None:
        """Start it and return at once."""

    def stop(self) -> None:
        """Stop it cleanly, or for certain."""


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What `early-kill up` was asked for.

    Attributes:
        data_dir: Everything that lasts lives here; made when missing.
        kafka_port: Port of Kafka; 0 for any that is free.
        postgres_port: Port of PostgreSQL; 0 for any that is free.
        web_port: Port of the first monitor; the next ones follow. 0 for any that are free.
        workers: Number of monitors, 0 or more. One sink runs in any case.
    """

    data_dir: Path = Path(".early-kill")
    kafka_port: int = 9092
    postgres_port: int = 5432
    web_port: int = 6066
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Parts:
    """Two servers and the workers on them.

    Attributes:
        settings: The settings of this process, with the embedded servers in them.
    """

    settings: Settings
    kafka: KafkaServer
    postgres: PostgresServer
    monitors: tuple[WorkerProcess, ...]
    sink: WorkerProcess

    @classmethod
    def of(cls, options: UpOptions, data_dir: Path) -> Self:
        """Plan them; nothing is started. Logs go to ``<data_dir>/logs``, pid files of workers to ``<data_dir>/run``."""
        run, logs = data_dir / "run", data_dir / "logs"
        kafka = KafkaServer(data_dir / "kafka", options.kafka_port or free_port(), log=logs / "kafka.log", group_start_delay_ms=TOGETHER_MS if options.workers > 1 else 0)
        postgres = PostgresServer(data_dir / "postgres", options.postgres_port or free_port(), log=logs / "postgres.log")
        reached = {
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "KAFKA_SECURITY_PROTOCOL": "PLAINTEXT",
            "DATABASE_URL": postgres.database_url,
            "DATABASE_URL_FILE": "",
            "EARLY_KILL_REPLICATION_FACTOR": "1",
        }
        named: dict[str, Any] = {name.removeprefix("EARLY_KILL_").lower(): value for name, value in reached.items()}
        settings = Settings(**named)
        environment = {**os.environ, **reached}
        host = LOOPBACK if settings.web_host == "localhost" or is_every_address(settings.web_host) else settings.web_host
        tokens = sorted(settings.api_tokens)
        monitors = tuple(
            WorkerProcess(
                f"monitor-{i}",
                run_dir=run,
                log=logs / f"monitor-{i}.log",
                environment=environment,
                web_port=options.web_port + i if options.web_port else free_port(),
                host=host,
                token=tokens[0] if tokens else None,
            )
            for i in range(options.workers)
        )
        sink_port = settings.sink_web_port if "sink_web_port" in settings.model_fields_set and settings.sink_web_port else free_port()
        return cls(settings, kafka, postgres, monitors, WorkerProcess("sink", run_dir=run, log=logs / "sink.log", environment=environment, sink_port=sink_port))

    @property
    def workers(self) -> tuple[WorkerProcess, ...]:
        """Monitors and sink."""
        return (*self.monitors, self.sink)

    @property
    def all(self) -> tuple[Part, ...]:
        """Servers first."""
        return (self.kafka, self.postgres, *self.workers)

    def endpoints(self) -> Endpoints:
        """Where they are to be found right now."""
        pids = {part.child.name: part.child.pid for part in self.all}
        web = tuple(monitor.url for monitor in self.monitors)
        return Endpoints(self.kafka.bootstrap_servers, self.postgres.database_url, web, {name: pid for name, pid in pids.items() if pid is not None})

    def require_ports(self) -> None:
        """Check all ports before anything is started.

        Raises:
            Stop: One is taken, or wanted twice.
        """
        wanted = {"Kafka": self.kafka.port, "PostgreSQL": self.postgres.port, **{m.child.name: m.web_port for m in self.monitors if m.web_port}}
        if len(set(wanted.values())) < len(wanted):
            raise Stop(f"two parts would have the same port: {', '.join(f'{name} {port}' for name, port in wanted.items())}")
        for name, port in wanted.items():
            require_free_port(port, name)

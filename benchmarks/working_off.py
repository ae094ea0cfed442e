"""One monitor or several work off a backlog: how fast, at what cost, and whether the result is right."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from benchmarks.backlog import KINDS, POST_ID, Backlog, Counts
from benchmarks.report import Found
from benchmarks.stage import Monitor, Servers
from benchmarks.watching import RESULTS, Usage, lag, partitions_owned, table_writes
from models.errors import Stop

LOOK_SECONDS = 0.2
LONGEST_SECONDS = 900.0
STUCK_SECONDS = 60.0
"""After so long without one more interaction read, it is given up."""
SAMPLES = 12
"""Variants whose counts are looked at, bad ones among them."""


@dataclass(frozen=True, slots=True)
class Look:
    """What all monitors had done at one moment."""

    at: float
    read: tuple[int, ...]
    cpu: tuple[float, ...]
    kafka_cpu: float
    owned: int
    lag: float

    @property
    def total(self) -> int:
        """Interactions read by all of them."""
        return sum(self.read)


@dataclass(frozen=True, slots=True)
class Worked:
    """What it took.

    Attributes:
        per_second: Interactions a second, from the moment all monitors read until before the last ones are read.
        share: Of the interactions in that time, each monitor's.
        cpu_per_million: CPU seconds that each monitor took for 1,000,000 interactions of its own.
        kafka_cpu_per_million: The same for the broker, over all interactions.
        table_writes: States written to changelogs by all monitors.
        resident: Bytes of memory of each monitor at the end.
        read_twice: Interactions that were read again after a rebalance.
        timed: When that time began and ended, in seconds of the monotonic clock.
    """

    per_second: float
    share: tuple[float, ...]
    cpu_per_million: tuple[float, ...]
    kafka_cpu_per_million: float
    table_writes: float
    resident: tuple[int, ...]
    read_twice: int
    timed: tuple[float, float]

    def found(self) -> Found:
        """Return it as JSON."""
        return asdict(self)


async def work_off(servers: Servers, monitors: Sequence[Monitor], backlog: Backlog) -> Worked:
    """Watch monitors of one group work off ``backlog``, and check their result.

    Raises:
        Stop: One has ended, the backlog is not worked off within 15 minutes, or the result is wrong.
    """
    looks: list[Look] = []
    until = time.monotonic() + LONGEST_SECONDS
    topic = f"{backlog.prefix}interaction"
    moved = 0.0
    metrics: list[Mapping[str, float]] = []
    while not looks or not _is_done(looks[-1], backlog):
        await asyncio.sleep(LOOK_SECONDS)
        metrics = list(await asyncio.gather(*(monitor.metrics() for monitor in monitors)))
        looks.append(_look(servers, monitors, metrics, topic))
        moved = looks[-1].at if len(looks) == 1 or looks[-1].total > looks[-2].total else moved
        if looks[-1].at > min(until, moved + STUCK_SECONDS):
            state = f"{looks[-1].owned} of {backlog.partitions} partitions are owned, {looks[-1].lag:,.0f} records are left"
            words = " ".join(monitor.process.child.last_words(1) for monitor in monitors)
            raise Stop(f"monitors have read {looks[-1].read} of {backlog.events} interactions and no more come; {state}: {words}")
    await check(monitors, metrics, backlog, looks[-1].total - backlog.events)
    whole = [look for look in looks if all(look.read) and look.owned == backlog.partitions]
    inner = [look for look in whole if look.total < backlog.events]
    first, last = (inner[0], inner[-1]) if len(inner) > 2 else (whole[0], whole[-1])  # noqa: PLR2004 -- else too short to leave out its end
    if last.total <= first.total:
        raise Stop("the backlog is too small to be timed: give it more --events")
    read = [after - before for before, after in zip(first.read, last.read, strict=True)]
    return Worked(
        per_second=sum(read) / (last.at - first.at),
        share=tuple(count / sum(read) for count in read),
        cpu_per_million=tuple(1e6 * (after - before) / max(1, count) for before, after, count in zip(first.cpu, last.cpu, read, strict=True)),
        kafka_cpu_per_million=1e6 * (last.kafka_cpu - first.kafka_cpu) / sum(read),
        table_writes=sum(map(table_writes, metrics)),
        resident=tuple(Usage.of(monitor.pid).resident for monitor in monitors),
        read_twice=looks[-1].total - backlog.events,
        timed=(first.at, last.at),
    )


def changelog_bytes(servers: Servers, app_id: str) -> int:
    """Return the bytes on disk of a group's changelogs: its log segments' sizes, batches' headers included.

    Nothing is missing from them as long as no partition's log has grown over its first segment (256 MiB): only closed ones are compacted.
    """
    return sum(file.stat().st_size for file in (servers.home / "kafka" / "data").glob(f"{app_id}-*-changelog-*/*.log"))


def _look(servers: Servers, monitors: Sequence[Monitor], metrics: Sequence[Mapping[str, float]], topic: str) -> Look:
    return Look(
        at=time.monotonic(),
        read=tuple(int(found.get(monitor.read_metric, 0)) for monitor, found in zip(monitors, metrics, strict=True)),
        cpu=tuple(Usage.of(monitor.pid).cpu_seconds for monitor in monitors),
        kafka_cpu=Usage.of(servers.kafka_pid).cpu_seconds,
        owned=sum(partitions_owned(found, topic) for found in metrics),
        lag=sum(map(lag, metrics)),
    )


def _is_done(look: Look, backlog: Backlog) -> bool:
    return look.total >= backlog.events and look.owned == backlog.partitions and look.lag == 0


async def check(monitors: Sequence[Monitor], metrics: Sequence[Mapping[str, float]], backlog: Backlog, read_twice: int) -> None:
    """Compare what the monitors have counted with what is right.

    Raises:
        Stop: A variant's counts differ, or not every record has had its effect once.
    """
    expected = backlog.expected()
    names = sorted(expected, key=lambda name: (not expected[name].was_killed, name))
    step = max(1, len(names) // SAMPLES)
    for name in [*names[:2], *names[::step]]:
        status = await monitors[0].status(name, POST_ID)
        counts = Counts(status["counts"]["view"], sum(status["counts"][kind] for kind in KINDS), status["was_killed"])
        if counts != expected[name]:
            raise Stop(f"{name} has {counts}, not {expected[name]}")
    if read_twice == 0:
        results = {name: sum(found.get(name, 0) for found in metrics) for name in {name for found in metrics for name in found if name.startswith(RESULTS)}}
        counted = sum(counts.views + counts.interactions for counts in expected.values()) + backlog.variants
        right = {'result="counted"': counted, 'result="after_end"': backlog.events + backlog.variants - counted}
        wrong = {name: value for name, value in results.items() if value != right.get(name[len(RESULTS) : -1], 0)}
        if wrong:
            raise Stop(f"records had the results {results}, not {right}")

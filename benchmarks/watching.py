"""Looking at workers from outside: what they have counted, what they hold, what they use of the machine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psutil

from benchmarks.stage import Monitor
from models.errors import Stop

COUNTED = 'performance_monitor_events_total{result="counted"}'
LATE = 'performance_monitor_events_total{result="late"}'
RESULTS = "performance_monitor_events_total{"
ACTIVE = "performance_monitor_sessions_active"
STARTED = "performance_monitor_sessions_started_total"
KILLED = 'performance_monitor_variants_killed_total{reason="below_threshold"}'
LAG = "performance_monitor_consumer_lag{"
TABLE_WRITES = "performance_monitor_table_writes_total{"
LOOK_SECONDS = 0.25


async def counted(monitor: Monitor) -> float:
    """Return how many records the monitor has counted; 0 while it starts."""
    return (await monitor.metrics()).get(COUNTED, 0.0)


async def until(monitor: Monitor, holds: Callable[[Mapping[str, float]], bool], what: str, seconds: float = 60) -> Mapping[str, float]:
    """Wait until the monitor's metrics are as they should be; return them.

    Args:
        monitor: Who is asked, four times a second.
        holds: Whether they are.
        what: Names it, for the error.
        seconds: How long at most.

    Raises:
        Stop: They are not, in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        metrics = await monitor.metrics()
        if metrics and holds(metrics):
            return metrics
        if time.monotonic() > deadline:
            results = {name: value for name, value in metrics.items() if name.startswith((RESULTS, ACTIVE, STARTED, KILLED)) and value}
            raise Stop(f"after {seconds:g} s still without {what}: {results}")
        await asyncio.sleep(LOOK_SECONDS)


async def until_counted(monitor: Monitor, records: float, seconds: float = 60) -> None:
    """Wait until the monitor has counted exactly so many records.

    Raises:
        Stop: It has not in time, or has counted more.
    """
    metrics = await until(monitor, lambda metrics: metrics.get(COUNTED, 0) >= records, f"{records:,.0f} counted records", seconds)
    if metrics[COUNTED] != records:
        raise Stop(f"{metrics[COUNTED]:,.0f} records were counted, not {records:,.0f}")


def lag(metrics: Mapping[str, float]) -> float:
    """Return the records that the monitor knows of and has not folded, over all its partitions."""
    return sum(value for name, value in metrics.items() if name.startswith(LAG))


def partitions_owned(metrics: Mapping[str, float], topic: str) -> int:
    """Return how many partitions of a topic the monitor owns."""
    return sum(name.startswith(LAG) and f'topic="{topic}"' in name for name in metrics)


def table_writes(metrics: Mapping[str, float]) -> float:
    """Return how many states the monitor has written to its tables."""
    return sum(value for name, value in metrics.items() if name.startswith(TABLE_WRITES))


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used of the machine: CPU seconds since it began, resident bytes now."""

    cpu_seconds: float
    resident: int

    @classmethod
    def of(cls, pid: int) -> Usage:
        """Look at a running process."""
        process = psutil.Process(pid)
        times = process.cpu_times()
        return cls(times.user + times.system, process.memory_info().rss)


@dataclass(slots=True)
class Peak:
    """The most memory that was seen in use."""

    resident: int = 0


@asynccontextmanager
async def peak(pid: int) -> AsyncIterator[Peak]:
    """Look at a process's memory ten times a second, for the time of the context."""
    found, process = Peak(), psutil.Process(pid)

    async def look() -> None:
        while True:
            found.resident = max(found.resident, process.memory_info().rss)
            await asyncio.sleep(0.1)

    looking = asyncio.create_task(look())
    try:
        yield found
    finally:
        looking.cancel()


async def settled_memory(pid: int, seconds: float = 3.0) -> int:
    """Return the resident bytes of a process once they have stopped to change by more than 1 % within a second, but not before ``seconds``."""
    deadline = time.monotonic() + 60
    await asyncio.sleep(seconds)
    before = Usage.of(pid).resident
    while time.monotonic() < deadline:
        await asyncio.sleep(1)
        now = Usage.of(pid).resident
        if abs(now - before) <= before / 100:
            return now
        before = now
    return before

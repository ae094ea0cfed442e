"""The faults that a random schedule is made of. Each heals what it has broken, and says afterwards whether it bit."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Any, LiteralString

import psycopg
from aiokafka.errors import KafkaError
from psycopg import sql

from streams.crash_points import MONITOR_POINTS, SINK_POINTS, VARIABLE
from tests.faults.proxy import Proxy
from tests.faults.stage import Stage
from tests.integration.system import Worker
from tests.standstill import standing_still

KAFKA_AWAY = r"Kafka does not take records|[Hh]eartbeat|Unable to|[Cc]onnection|disconnected|timed? ?out|coordinator"
POSTGRESQL_AWAY = r"PostgreSQL takes no records"
TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"

Bite = Callable[[], str | None]
"""Asked when all is over: what shows that the fault was felt, or None."""
Fault = Callable[[Stage, Random], Awaitable[Bite]]


@dataclass(frozen=True, slots=True)
class Injected:
    """One fault that was injected."""

    name: str
    bite: Bite


def _saw(stage: Stage, pattern: str) -> Bite:
    marks = stage.marks()
    return lambda: stage.said(marks, pattern)


async def _undone(stage: Stage, role: str) -> int:
    try:
        async with asyncio.timeout(4):
            return await stage.undone(role)
    except (KafkaError, OSError, TimeoutError):
        return 0


# -- workers -------------------------------------------------------------------------------------------------------------


async def monitor_killed(stage: Stage, chance: Random) -> Bite:
    worker, undone = chance.choice(stage.system.monitors), await _undone(stage, "monitor")
    was_running = worker.is_running
    worker.kill()
    return lambda: f"{undone} records not committed" if was_running and undone else None


async def sink_killed(stage: Stage, chance: Random) -> Bite:  # noqa: ARG001 - every fault is given it
    undone, was_running = await _undone(stage, "sink"), stage.system.sink.is_running
    stage.system.sink.kill()
    return lambda: f"{undone} records not committed" if was_running and undone else None


async def worker_dies_at_a_place(stage: Stage, chance: Random) -> Bite:
    worker = chance.choice(stage.workers)
    points = SINK_POINTS if worker is stage.system.sink else MONITOR_POINTS
    return await dies_at(stage, worker, f"{chance.choice(list(points))}:{chance.randint(1, 3)}", 8)


async def dies_at(stage: Stage, worker: Worker, order: str, seconds: float) -> Bite:
    """Kill a worker that is started again then, to die at the place in ``order`` if it comes there in time."""
    bite = _saw(stage, f"dies at {order}")
    worker._environment[VARIABLE] = order
    worker.kill()
    until = time.monotonic() + seconds
    while time.monotonic() < until and not bite():
        await asyncio.sleep(0.1)
    del worker._environment[VARIABLE]
    return bite


async def monitor_stood_still(stage: Stage, chance: Random) -> Bite:
    return await _stood_still(stage, chance.choice(stage.system.monitors), "stood still for")


async def sink_stood_still(stage: Stage, chance: Random) -> Bite:  # noqa: ARG001 - every fault is given it
    return await _stood_still(stage, stage.system.sink, r"stood still for|[Hh]eartbeat|\bready\b")  # it says so after each rebalance


async def _stood_still(stage: Stage, worker: Worker, pattern: str) -> Bite:
    bite = _saw(stage, pattern)
    if worker.is_running:
        with standing_still(worker.pid):
            await asyncio.sleep(8)
        await asyncio.sleep(1)
    return bite


async def rebalance_storm(stage: Stage, chance: Random) -> Bite:
    ready = 0
    for _ in range(2):
        worker = stage.system.add_monitor()
        for _ in range(150):
            await asyncio.sleep(0.1)
            if worker._ready_file.exists():
                ready += 1
                break
        await asyncio.sleep(chance.uniform(0, 1))
        await stage.let_go(worker, chance.choice((signal.SIGTERM, signal.SIGKILL)))
    return lambda: "two monitors came, took over and went" if ready == 2 else None


# -- servers -------------------------------------------------------------------------------------------------------------


def _ended(which: str, end: Callable[[Any], object], shows: str, longest: float) -> Fault:
    """End a server, and start it again up to so many seconds later."""

    async def ended(stage: Stage, chance: Random) -> Bite:
        bite, server = _saw(stage, shows), getattr(stage.servers, which)
        await asyncio.to_thread(end, server)
        if longest:
            await asyncio.sleep(chance.uniform(0, longest))
        await asyncio.to_thread(server.start)
        await asyncio.to_thread(server.wait_ready)
        return bite

    return ended


async def kafka_stood_still(stage: Stage, chance: Random) -> Bite:
    bite, pid = _saw(stage, KAFKA_AWAY), stage.servers.kafka.pid
    assert pid is not None
    with standing_still(pid):
        await asyncio.sleep(chance.uniform(4, 10))
    return bite


def _database(stage: Stage) -> str:
    return stage.system.settings.database_url.get_secret_value().rsplit("/", 1)[1]


def _alter_database(stage: Stage, change: LiteralString) -> None:
    with psycopg.connect(stage.servers.postgres.superuser_url, autocommit=True, connect_timeout=5) as connection:
        connection.execute(sql.SQL("ALTER DATABASE {} " + change).format(sql.Identifier(_database(stage))))
        connection.execute(TERMINATE, [_database(stage)])


async def postgresql_backend_killed(stage: Stage, chance: Random) -> Bite:
    with psycopg.connect(stage.servers.postgres.superuser_url, autocommit=True, connect_timeout=5) as connection:
        pids = [pid for (pid,) in connection.execute("SELECT pid FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()", [_database(stage)])]
    if pids:
        os.kill(chance.choice(pids), signal.SIGKILL)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(stage.servers.postgres.wait_ready)
    return lambda: "one of our backends; the postmaster reset all" if pids else None


def _altered(change: LiteralString, back: LiteralString) -> Fault:
    """Change the database for some seconds, then back; both as ``ALTER DATABASE`` takes it."""

    async def altered(stage: Stage, chance: Random) -> Bite:
        bite = _saw(stage, POSTGRESQL_AWAY)
        _alter_database(stage, change)
        await asyncio.sleep(chance.uniform(2, 5))
        _alter_database(stage, back)
        return bite

    return altered


async def postgresql_rows_locked(stage: Stage, chance: Random) -> Bite:
    bite = _saw(stage, r"records of \d+ variant\(s\) wait|takes no records")
    with psycopg.connect(stage.system.settings.database_url.get_secret_value(), connect_timeout=5) as connection:
        connection.execute("SELECT 1 FROM variant_monitoring WHERE is_active ORDER BY session_id LIMIT 60 FOR UPDATE")
        connection.execute("SELECT 1 FROM variant_pool ORDER BY variant_id LIMIT 60 FOR UPDATE")
        await asyncio.sleep(chance.uniform(4, 8))
        connection.rollback()
    return bite


# -- the network ---------------------------------------------------------------------------------------------------------


def _network(name: str, which: Callable[[Stage], Proxy], most_bytes: int, longest: float) -> dict[str, Fault]:
    async def reset(proxy: Proxy, chance: Random) -> None:
        for _ in range(chance.randint(1, 4)):
            proxy.reset()
            await asyncio.sleep(chance.uniform(0, 1))

    async def refuse(proxy: Proxy, chance: Random) -> None:
        proxy.refuse()
        await asyncio.sleep(chance.uniform(0.5, longest))

    async def swallow(proxy: Proxy, chance: Random) -> None:
        proxy.swallow()
        await asyncio.sleep(chance.uniform(1, 1.5 * longest))
        if chance.random() < 0.5:
            proxy.reset()  # what was on its way never arrives

    async def cut(proxy: Proxy, chance: Random) -> None:
        proxy.cut_after(chance.randint(1, most_bytes), times=chance.randint(2, 8))
        await asyncio.sleep(chance.uniform(2, 5))

    async def delay(proxy: Proxy, chance: Random) -> None:
        proxy.delay(chance.uniform(0.02, 0.3))
        await asyncio.sleep(chance.uniform(2, 5))

    def fault(kind: str, misbehave: Callable[[Proxy, Random], Awaitable[None]]) -> Fault:
        async def injected(stage: Stage, chance: Random) -> Bite:
            proxy = which(stage)
            before = proxy.bitten[kind]
            await misbehave(proxy, chance)
            proxy.pass_on()
            return lambda: f"{proxy.bitten[kind] - before} {kind}" if proxy.bitten[kind] > before else None

        return injected

    return {
        f"{name} reset": fault("reset", reset),
        f"{name} refused": fault("refused", refuse),
        f"{name} swallowed": fault("swallowed", swallow),
        f"{name} cut in an answer": fault("cut", cut),
        f"{name} delayed": fault("delayed", delay),
    }


WORKER_FAULTS: dict[str, Fault] = {
    "monitor killed": monitor_killed,
    "sink killed": sink_killed,
    "worker dies at a named place": worker_dies_at_a_place,
    "monitor stood still": monitor_stood_still,
    "sink stood still": sink_stood_still,
    "rebalance storm": rebalance_storm,
}
SERVER_FAULTS: dict[str, Fault] = {
    "Kafka killed": _ended("kafka", lambda kafka: kafka.kill(), KAFKA_AWAY, 3),
    "Kafka restarted": _ended("kafka", lambda kafka: kafka.stop(), KAFKA_AWAY, 0),
    "Kafka stood still": kafka_stood_still,
    "PostgreSQL crashed": _ended("postgres", lambda postgres: postgres.child.stop((signal.SIGQUIT, 5.0)), POSTGRESQL_AWAY, 5),
    "PostgreSQL restarted": _ended("postgres", lambda postgres: postgres.stop(), POSTGRESQL_AWAY, 2),
    "PostgreSQL backend killed": postgresql_backend_killed,
    "PostgreSQL read-only": _altered("SET default_transaction_read_only = on", "RESET default_transaction_read_only"),
    "PostgreSQL takes no connection": _altered("CONNECTION LIMIT 0", "CONNECTION LIMIT -1"),
    "PostgreSQL rows locked": postgresql_rows_locked,
    **_network("network to Kafka", lambda stage: stage.servers.kafka_proxy, most_bytes=20_000, longest=5),
    **_network("network to PostgreSQL", lambda stage: stage.servers.postgres_proxy, most_bytes=2_000, longest=5),
}

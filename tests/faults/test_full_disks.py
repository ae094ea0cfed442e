"""No space left: for Kafka's log, for PostgreSQL's tables, for its write-ahead log. Needs to mount a small file system, so root; else it is skipped."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.faults.menu import KAFKA_AWAY
from tests.faults.ordeal import FULL, SmallDisk, only_on_demand, ordeal, small_disk, until
from tests.faults.schedule import Size
from tests.faults.servers import Servers, serving
from tests.faults.stage import Stage

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(300), only_on_demand]
MIB = 1 << 20
FULL_SECONDS = 12.0
SIZE = Size(200, 4_000, 30.0, 60.0)


@contextlib.contextmanager
def serving_on(home: Path, part: str, size: int) -> Iterator[tuple[Servers, SmallDisk]]:
    """Both servers, one of them with a small disk below ``home``."""
    with small_disk(home / part, size) as disk, serving(home) as servers:
        try:
            yield servers, disk
        finally:
            disk.free()


async def test_a_full_disk_of_kafka_delays_and_loses_nothing(servers_home: Path, tmp_path: Path):
    """Its disk is full in the middle of traffic: what it refuses, or dies over, counts as nowhere; all is there when it has space again (P15)."""
    with serving_on(servers_home / "full-kafka", "kafka/data", 512 * MIB) as (servers, disk):
        async with ordeal(servers, tmp_path / "home", 15, size=SIZE) as stage:
            await asyncio.sleep(8)
            marks = stage.marks()
            disk.fill()
            took = await until(lambda: FULL in _log(servers.kafka.child.log) or servers.kafka.pid is None, 60, "Kafka notices that its disk is full")
            print(f"Kafka noticed after {took:.1f} s")
            await asyncio.sleep(FULL_SECONDS)
            print(f"Kafka is {'gone' if servers.kafka.pid is None else 'there'}; workers say {stage.said(marks, KAFKA_AWAY)!r}; ended: {dict(stage.exits)}")
            disk.free()
            await asyncio.to_thread(servers.kafka.stop)  # a directory that has failed stays out of use until the next start
            await asyncio.to_thread(servers.heal)
        assert stage.said(marks, KAFKA_AWAY)
        assert not stage.exits


async def test_a_full_disk_under_postgresqls_tables_delays_and_loses_nothing(servers_home: Path, tmp_path: Path):
    """SQLSTATE 53100 is waited for: no dead letter, no kill missed, and it is written as soon as there is space (P23)."""
    with serving_on(servers_home / "full-tables", "postgres", 512 * MIB) as (servers, disk):
        async with ordeal(servers, tmp_path / "home", 23, size=SIZE) as stage:
            await asyncio.sleep(4)
            marks = stage.marks()
            disk.fill()
            took = await until(lambda: stage.said(marks, f"takes no records.*{FULL}"), 60, "the sink notices that PostgreSQL's disk is full")
            print(f"the sink noticed after {took:.1f} s: {stage.said(marks, f'takes no records.*{FULL}')!r}")
            await asyncio.sleep(FULL_SECONDS)
            disk.free()
            print(f"written again after {await until(lambda: stage.said(marks, 'takes records again'), 30, 'PostgreSQL takes records again'):.1f} s")
        assert not stage.exits


async def test_a_full_disk_under_postgresqls_write_ahead_log_delays_and_loses_nothing(servers_home: Path, tmp_path: Path):
    """PostgreSQL panics and cannot come back by itself; the sink waits, and all is written when it can (P23)."""
    with serving_on(servers_home / "full-wal", "postgres", 512 * MIB) as (servers, disk):
        async with ordeal(servers, tmp_path / "home", 24, size=SIZE) as stage:
            await asyncio.sleep(4)
            marks = stage.marks()
            disk.fill()
            print(f"PostgreSQL panicked after {await asyncio.to_thread(_panicked, stage):.1f} s")
            await asyncio.sleep(FULL_SECONDS)
            print(f"PostgreSQL is {'gone' if servers.postgres.pid is None else 'there'}; the sink says {stage.said(marks, 'takes no records.*')!r}")
            disk.free()
            await asyncio.to_thread(servers.heal)
            print(f"written again after {await until(lambda: stage.said(marks, 'takes records again'), 30, 'PostgreSQL takes records again'):.1f} s")
        assert stage.said(marks, "takes no records")
        assert not stage.exits


def _panicked(stage: Stage) -> float:
    """Have PostgreSQL begin new segments of its write-ahead log until there is no room for one."""
    began = time.monotonic()
    while time.monotonic() - began < 60:
        try:
            with psycopg.connect(stage.servers.postgres.superuser_url, autocommit=True, connect_timeout=5) as connection:
                connection.execute("SELECT pg_logical_emit_message(false, 'test', 'x'), pg_switch_wal()")
        except psycopg.OperationalError:
            return time.monotonic() - began
    raise AssertionError("PostgreSQL had room for all its segments")


def _log(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""

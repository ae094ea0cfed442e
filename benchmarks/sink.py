"""How many monitoring records a second the sink brings into PostgreSQL: starts, and kills with all that they entail.

    .venv/bin/python -m benchmarks.sink --records 20000 --rounds 3

The records lie on ``monitoring_record`` before a sink as shipped, a process of its own, begins. First the starts of so many sessions, then, in a
second run of the same sink, their kills; each variant has a row in the pool and two scheduled posts, so that a kill is one ended session, one
pool row, two cancelled posts and three audit rows, in one transaction. Counted in PostgreSQL from the first row seen there to the last; every
row, post and audit entry is checked before a time counts. PostgreSQL is as shipped too: its commits reach the disk.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from aiokafka import AIOKafkaProducer

from benchmarks.report import Found, alone, row
from benchmarks.stage import Servers, say, stage
from benchmarks.watching import Usage
from models import ids
from models.errors import Stop
from models.moments import format_moment
from models.monitoring_record import parse
from streams.local.worker import WorkerProcess
from streams.topics import partition_for

PARTITIONS = 4
POST_ID = "0b54a3c8-6f0e-4d53-9a71-2f4f0f6c1d11"
AT_LEAST, AIM = 2_000, 5_000
LOOK_SECONDS = 0.05
LONGEST_SECONDS = 600.0
COUNTS = {"view": 334, "like": 10, "reply": 0, "repost": 0, "quote": 0, "share": 0, "click": 0, "save": 0}

STARTED = "SELECT count(*) FROM variant_monitoring"
KILLED = "SELECT count(*) FROM variant_monitoring WHERE NOT is_active AND outcome = 'killed'"
RIGHT = {
    STARTED: 1,
    KILLED: 1,
    "SELECT count(*) FROM variant_pool WHERE status = 'killed' AND kill_id IS NOT NULL": 1,
    "SELECT count(*) FROM scheduled_post WHERE status = 'cancelled'": 2,
    "SELECT count(*) FROM monitoring_audit WHERE action = 'session_started'": 1,
    "SELECT count(*) FROM monitoring_audit WHERE action = 'session_ended'": 1,
    "SELECT count(*) FROM monitoring_audit WHERE action = 'variant_killed'": 1,
}
"""How many rows there have to be of each kind for each variant, once all are killed."""


def record(variant: str, kind: str, now_us: int) -> bytes:
    """Return the value of a ``monitoring_record``: ``started`` or ``killed``."""
    session, now = ids.session_id(variant, POST_ID), format_moment(now_us)
    is_kill = kind == "killed"
    metadata: dict[str, Any] = {"policy": "ratio", "source": "threads_adaptor", "event_metadata": None}
    if is_kill:
        metadata |= {"counts": COUNTS, "deciding_event": {"topic": "interaction", "partition": 0, "offset": now_us % 1_000_000, "occurred_at": now}}
    value = {
        "schema_version": 1,
        "record_id": str(ids.record_id(session, kind)),
        "session_id": str(session),
        "kind": kind,
        "variant_id": variant,
        "persona_id": "persona-7",
        "post_id": POST_ID,
        "expected_engagement_rate": 0.06,
        "kill_threshold": 0.5,
        "min_interactions": 10,
        "timeout_minutes": 10.0,
        "policy": "ratio",
        "started_at": now,
        "ended_at": now if is_kill else None,
        "is_active": not is_kill,
        "was_killed": is_kill,
        "outcome": "killed" if is_kill else None,
        "kill_reason": "Below 50% of expected engagement rate" if is_kill else None,
        "final_engagement_rate": 10 / 334 if is_kill else None,
        "final_interaction_count": 10 if is_kill else None,
        "final_view_count": 334 if is_kill else None,
        "kill_id": str(ids.kill_id(session)) if is_kill else None,
        "decided_at": now if is_kill else None,
        "monitoring_metadata": metadata,
    }
    return json.dumps(value, separators=(",", ":")).encode()


async def append(bootstrap: str, topic: str, variants: list[str], kind: str) -> None:
    """Append one record of ``kind`` for each variant, and check that the first is one the sink takes."""
    now_us = time.time_ns() // 1_000
    parse(record(variants[0], kind, now_us))
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True, linger_ms=20, max_batch_size=1 << 18)
    await producer.start()
    for variant in variants:
        await producer.send(topic, record(variant, kind, now_us), key=variant.encode(), partition=partition_for(variant, PARTITIONS))
    await producer.stop()


async def fill(connection: psycopg.AsyncConnection[Any], variants: list[str]) -> None:
    """Give each variant a row in the pool and two scheduled posts, as their owners do."""
    async with connection.cursor() as cursor:
        async with cursor.copy("COPY variant_pool (variant_id, persona_id, status) FROM STDIN") as rows:
            for variant in variants:
                await rows.write_row((variant, "persona-7", "active"))
        async with cursor.copy("COPY scheduled_post (variant_id, scheduled_for, status) FROM STDIN") as rows:
            for post in _posts(variants):
                await rows.write_row(post)
        await cursor.execute("ANALYZE")


def _posts(variants: list[str]) -> Iterator[tuple[str, str, str]]:
    for variant in variants:
        yield variant, "2199-01-01T00:00:00Z", "scheduled"
        yield variant, "2199-01-02T00:00:00Z", "retry_scheduled"


@asynccontextmanager
async def sink(servers: Servers, name: str, settings: dict[str, str]) -> AsyncIterator[WorkerProcess]:
    """Run a sink as a process of its own, from before it is ready to its clean end."""
    directory = servers.home / "sinks" / name
    process = WorkerProcess("sink", run_dir=directory, log=directory / "sink.log", environment=servers.environment(settings))
    await asyncio.to_thread(process.start)
    try:
        yield process
    finally:
        await asyncio.to_thread(process.stop)


async def timed(connection: psycopg.AsyncConnection[Any], process: WorkerProcess, count: str, rows: int) -> Found:
    """Watch ``count`` go up to ``rows``; return how fast, from the first rows seen on, and the sink's CPU time for 1,000 of them.

    Raises:
        Stop: It does not get there.
    """
    looks: list[tuple[float, int, float]] = []
    until = time.monotonic() + LONGEST_SECONDS
    while not looks or looks[-1][1] < rows:
        await asyncio.sleep(LOOK_SECONDS)
        found = await _number(connection, count)
        now, pid = time.monotonic(), process.child.pid
        if pid is None or now > until:
            raise Stop(f"the sink has written {found} of {rows} rows: {process.child.last_words()}")
        if found:
            looks.append((now, found, Usage.of(pid).cpu_seconds))
    (began, first, cpu), (ended, last, cpu_then) = looks[0], looks[-1]
    if last == first:
        raise Stop("all rows came at once: ask for more --records")
    return {"per_second": (last - first) / (ended - began), "cpu_seconds_per_1000": 1_000 * (cpu_then - cpu) / (last - first), "timed_rows": last - first}


async def _number(connection: psycopg.AsyncConnection[Any], query: str) -> int:
    row = await (await connection.execute(query)).fetchone()
    return int(row[0]) if row else 0


async def one_round(servers: Servers, number: int, records: int) -> dict[str, Found]:
    """Start and then kill so many sessions, on topics, a group and tables that hold nothing else."""
    prefix = f"sink-{number}-"
    settings = {"EARLY_KILL_TOPIC_PREFIX": prefix, "EARLY_KILL_APP_ID": prefix.rstrip("-")}
    await servers.create_topics(prefix, PARTITIONS)
    variants = [f"variant-{number:02}-{index:013}" for index in range(records)]
    found = {}
    async with await psycopg.AsyncConnection.connect(servers.database_url, autocommit=True) as connection:
        await connection.execute("DELETE FROM variant_monitoring")
        await connection.execute("DELETE FROM scheduled_post")
        await connection.execute("DELETE FROM variant_pool")
        audit_before = await _number(connection, "SELECT coalesce(max(id), 0) FROM monitoring_audit")
        await fill(connection, variants)
        for kind, count in (("started", STARTED), ("killed", KILLED)):
            await append(servers.kafka, f"{prefix}monitoring_record", variants, kind)
            async with sink(servers, f"{number}-{kind}", settings) as process:
                found[kind] = await timed(connection, process, count, records)
        for query, each in RIGHT.items():
            only_new = f" AND id > {audit_before}" if "monitoring_audit" in query else ""
            rows = await _number(connection, query + only_new)
            if rows != each * records:
                raise Stop(f"{query} gives {rows}, not {each * records}")
    return found


async def run(arguments: argparse.Namespace) -> Found:
    """Start everything and measure, a few rounds."""
    rounds: list[dict[str, Found]] = []
    async with stage() as servers:
        for number in range(arguments.rounds):
            say(f"sink, round {number + 1} of {arguments.rounds}")
            rounds.append(await one_round(servers, number, arguments.records))

    def median(kind: str, what: str) -> float:
        return statistics.median(float(str(found[kind][what])) for found in rounds)

    def line(what: str, kind: str) -> Found:
        note = f"median of {len(rounds)}, {arguments.records:,} sessions; {median(kind, 'cpu_seconds_per_1000'):.2g} CPU s of the sink for 1,000"
        return row(what, median(kind, "per_second"), "1/s", at_least=AT_LEAST, aim=AIM, note=note)

    return {"rows": [line("sink: starts", "started"), line("sink: kills with cleanup", "killed")], "records": arguments.records, "rounds": rounds}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this benchmark can be asked."""
    parser.add_argument("--records", type=int, default=50_000, help="sessions to start and to kill in a round (default 50,000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often (default 3)")


def main() -> None:
    """Run it alone."""
    alone(__doc__, add_arguments, run)


if __name__ == "__main__":
    main()

"""What is decided depends on a variant's own records in their order, and on nothing else: not on other variants, partitions or workers."""

from __future__ import annotations

import asyncio
import random
import re
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from models.moments import format_moment
from streams.local.kafka import KafkaServer
from streams.local.postgres import PostgresServer
from streams.settings import Settings
from tests.databases import fresh_database
from tests.integration.system import System, Worker, running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

VARIANTS = 60
WINDOW_SECONDS = 90
POSTED_BEFORE_SECONDS = 70
"""Events fall into the time that has gone by since; what is left of the window is enough to send them, and then it ends."""
DECIDED = """
    SELECT variant_id, outcome, was_killed, kill_reason, started_at, ended_at,
        final_view_count, final_interaction_count, final_engagement_rate, monitoring_metadata -> 'counts' AS counts
    FROM variant_monitoring ORDER BY variant_id
"""

Log = dict[str, list[dict[str, Any]]]


def make_log(now_us: int) -> Log:
    """Return each variant's records in their order: the post, then what people do with it, some of it twice, some too late or with totals."""
    chance = random.Random(20)
    posted_at = now_us - POSTED_BEFORE_SECONDS * 1_000_000
    log: Log = {}
    for number in range(VARIANTS):
        variant = {"variant_id": f"variant-{number}", "post_id": "post"}
        share, many = chance.choice((0.01, 0.03, 0.05, 0.2)), chance.randint(20, 400)
        records = [{**variant, "persona_id": "persona", "posted_at": format_moment(posted_at), "timeout_minutes": WINDOW_SECONDS / 60}]
        for event in range(many):
            occurred_at = posted_at + chance.randrange(-2_000_000, (POSTED_BEFORE_SECONDS + 1) * 1_000_000)
            fields: dict[str, Any] = {"kind": "like" if chance.random() < share else "view", "count": chance.randint(1, 3)}
            if chance.random() < 0.02:
                fields = {"kind": "snapshot", "totals": {"views": event, "likes": int(event * share)}}
            records.append({**variant, **fields, "occurred_at": format_moment(occurred_at), "event_id": f"event-{event}"})
            if chance.random() < 0.1:
                records.append(chance.choice(records[1:]))
        log[variant["variant_id"]] = records
    return log


def one_by_one(log: Log) -> list[dict[str, Any]]:
    """Return all records of a variant, then those of the next."""
    return [record for records in log.values() for record in records]


def shuffled(log: Log) -> list[dict[str, Any]]:
    """Return the records of all variants in any order that leaves those of each in theirs."""
    turns = [record["variant_id"] for record in one_by_one(log)]
    random.Random(7).shuffle(turns)
    left = {variant: iter(records) for variant, records in log.items()}
    return [next(left[variant]) for variant in turns]


async def send(system: System, records: list[dict[str, Any]]) -> None:
    """Send them, each to its topic."""
    await asyncio.gather(*[await system.send("interaction" if "kind" in record else "variant_posted", record) for record in records])


async def told(system: System) -> dict[str, Any]:
    """Return what kills say, by variant; but for moments of the wall clock and places on topics."""
    return {
        kill["variant_id"]: (kill["reason"], kill["counts"], kill["deciding_event"]["occurred_at"], kill["time_to_kill_seconds"]) for kill in await system.values("variant_killed")
    }


async def read(system: System, monitor: Worker) -> float:
    """Return how many interactions a monitor has read."""
    _, text = await system.call(monitor, "GET", "/metrics")
    [count] = re.findall(rf'^performance_monitor_records_read_total{{topic="{system.topic("interaction")}"}} (\S+)', text, re.MULTILINE)
    return float(count)


async def test_one_worker_and_three_decide_the_same(kafka: KafkaServer, postgres: PostgresServer, topic_prefix: str, tmp_path: Path) -> None:
    """The same log on one partition, variant after variant, and shuffled over six: each session ends alike to the last digit, and so does each kill."""
    async with AsyncExitStack() as stack:
        systems = []
        for name, partitions, monitors in (("one", 1, 1), ("three", 6, 3)):
            prefix = f"{topic_prefix}{name}-"
            database = stack.enter_context(fresh_database(postgres))
            settings = Settings.model_validate(
                {"kafka_bootstrap_servers": kafka.bootstrap_servers, "database_url": database, "topic_prefix": prefix, "app_id": f"{prefix}app", "partitions": partitions}
            )
            (tmp_path / name).mkdir()
            systems.append(await stack.enter_async_context(running(settings, tmp_path / name, monitors, EARLY_KILL_GRACE_SECONDS="1", EARLY_KILL_PARTITIONS=str(partitions))))
        one, three = systems
        log = make_log(time.time_ns() // 1_000)
        await asyncio.gather(send(one, one_by_one(log)), send(three, shuffled(log)))
        for system in systems:
            await system.until_ended(log, WINDOW_SECONDS)
        ends = [system.query(DECIDED) for system in systems]
        kills = [await told(system) for system in systems]
        assert ends[0] == ends[1]
        assert kills[0] == kills[1]
        assert 5 < len(kills[0]) < VARIANTS - 5, "too few of one kind show nothing"
        for monitor in three.monitors:
            assert await read(three, monitor) > 0, "each of the three has its share"

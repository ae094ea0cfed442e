"""Several sinks, a scheduler, and locks of others at the same time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from models import ids
from models.monitoring_record import MonitoringRecord
from streams.database import classify, create_engine
from streams.persistence import Persisted, persist
from streams.settings import Settings

Sql = Callable[..., list[tuple[Any, ...]]]
Record = Callable[..., MonitoringRecord]

pytestmark = pytest.mark.faults
VARIANTS = [f"v{number}" for number in range(40)]


def fill(sql: Sql) -> None:
    """A pool row and two posts for each variant."""
    for variant in VARIANTS:
        sql("INSERT INTO variant_pool (variant_id, persona_id, status) VALUES (%s, 'anna', 'active')", variant)
        sql("INSERT INTO scheduled_post (variant_id, scheduled_for, status) SELECT %s, now(), 'scheduled' FROM generate_series(1, 2)", variant)


async def test_two_sinks_with_the_same_records_write_them_once(migrated: Settings, sql: Sql, record: Record):
    """Each in its own order and batches, as after a rebalance: every effect once, no deadlock, and together they report each change once."""
    fill(sql)
    records = [record(kind, variant) for variant in VARIANTS for kind in ("started", "killed")]
    engines = [create_engine(migrated), create_engine(migrated)]

    async def write(engine: AsyncEngine, seed: int) -> Persisted:
        shuffled = random.Random(seed).sample(records, len(records))
        total = Persisted()
        for start in range(0, len(shuffled), 16):
            total += await persist(engine, shuffled[start : start + 16])
        return total

    for seed in range(5):
        sql("UPDATE variant_pool SET status = 'active', kill_id = NULL")
        sql("DELETE FROM variant_monitoring")
        sql("UPDATE scheduled_post SET status = 'scheduled'")
        first, second = await asyncio.gather(write(engines[0], seed), write(engines[1], seed + 100))
        assert first + second == Persisted(started=40, killed=40, variants_killed=40, posts_cancelled=80)
    assert sql("SELECT action, count(*) FROM monitoring_audit GROUP BY action ORDER BY action") == [
        ("posts_cancelled", 200),
        ("session_ended", 200),
        ("session_started", 200),
        ("variant_killed", 200),
    ]
    for engine in engines:
        await engine.dispose()


async def test_two_sinks_with_different_ends_agree_on_one(migrated: Settings, sql: Sql, record: Record):
    """A zombie says timed out, its successor killed: whoever commits first, pool and session agree."""
    fill(sql)
    engines = [create_engine(migrated), create_engine(migrated)]
    killed, timed_out = await asyncio.gather(
        persist(engines[0], [record("killed", variant) for variant in VARIANTS]), persist(engines[1], [record("timed_out", variant) for variant in reversed(VARIANTS)])
    )
    assert killed.killed + timed_out.timed_out == len(VARIANTS)
    assert sql("SELECT count(*) FROM variant_monitoring v JOIN variant_pool p USING (variant_id) WHERE v.was_killed <> (p.status = 'killed')") == [(0,)]
    for engine in engines:
        await engine.dispose()


async def test_a_second_kill_waits_for_the_first_and_adds_nothing(engine: AsyncEngine, database: str, sql: Sql, record: Record):
    """The ON CONFLICT guard under concurrency: the second transaction sees what the first committed."""
    fill(sql)
    await persist(engine, [record("started", "v1")])
    with psycopg.connect(database) as other:
        other.execute("SELECT 1 FROM variant_monitoring FOR UPDATE")
        writes = [asyncio.create_task(persist(engine, [record("killed", "v1")])) for _ in range(3)]
        await asyncio.sleep(0.3)
        assert not any(write.done() for write in writes)
        other.rollback()
        results = [await write for write in writes]
    assert sorted(result.killed for result in results) == [0, 0, 1]
    assert sql("SELECT count(*) FROM monitoring_audit WHERE action = 'session_ended'") == [(1,)]


async def test_a_post_inserted_during_the_cleanup_is_cancelled(engine: AsyncEngine, database: str, sql: Sql, record: Record):
    """The scheduler's transaction is open while the kill starts: the kill waits for it, and finds its post."""
    fill(sql)
    with psycopg.connect(database) as scheduler:
        scheduler.execute("INSERT INTO scheduled_post (variant_id, scheduled_for, status) VALUES ('v1', now(), 'scheduled')")
        kill = asyncio.create_task(persist(engine, [record("killed", "v1")]))
        await asyncio.sleep(0.3)
        assert not kill.done()
        scheduler.commit()
        assert (await kill).posts_cancelled == 3
    assert sql("SELECT DISTINCT status FROM scheduled_post WHERE variant_id = 'v1'") == [("cancelled",)]


@pytest.mark.usefixtures("migrated")
async def test_a_post_whose_insert_waits_for_the_kill_is_cancelled(database: str, sql: Sql):
    """The other order: the kill's transaction is open while the scheduler inserts."""
    fill(sql)
    with psycopg.connect(database) as killer:
        killer.execute("UPDATE variant_pool SET status = 'killed', kill_id = %s WHERE variant_id = 'v1'", [ids.kill_id(ids.session_id("v1", "p1"))])
        insert = asyncio.create_task(asyncio.to_thread(sql, "INSERT INTO scheduled_post (variant_id, scheduled_for, status) VALUES ('v1', now(), 'scheduled') RETURNING status"))
        await asyncio.sleep(0.3)
        assert not insert.done()
        killer.commit()
        assert await insert == [("cancelled",)]


async def test_a_pool_row_that_is_revived_meanwhile_is_killed_again(engine: AsyncEngine, database: str, sql: Sql, record: Record):
    """The kill of a second session waits for the revival of the first, and sees its outcome, not the row as it was."""
    fill(sql)
    await persist(engine, [record("killed", "v1", "first")])
    with psycopg.connect(database) as reviver:
        reviver.execute("UPDATE variant_pool SET status = 'active', kill_id = NULL WHERE variant_id = 'v1'")
        reviver.execute("UPDATE scheduled_post SET status = 'scheduled' WHERE variant_id = 'v1'")
        kill = asyncio.create_task(persist(engine, [record("killed", "v1", "second")]))
        await asyncio.sleep(0.3)
        reviver.commit()
        assert (await kill) == Persisted(started=1, killed=1, variants_killed=1, posts_cancelled=2)


async def test_a_deadlock_with_a_scheduler_asks_for_another_try(engine: AsyncEngine, database: str, sql: Sql, record: Record):
    """Whoever is chosen as its victim, the kill has its one effect after a repetition."""
    fill(sql)
    first, second = sql("SELECT id FROM scheduled_post WHERE variant_id = 'v1' ORDER BY id")
    with psycopg.connect(database) as scheduler:
        scheduler.execute("UPDATE scheduled_post SET scheduled_for = now() WHERE id = %s", second)
        kill = asyncio.create_task(persist(engine, [record("killed", "v1")]))
        await asyncio.sleep(0.3)
        try:
            await asyncio.to_thread(scheduler.execute, "UPDATE scheduled_post SET scheduled_for = now() WHERE id = %s", first)
            scheduler.commit()
        except psycopg.errors.DeadlockDetected:
            scheduler.rollback()
        [outcome] = await asyncio.gather(kill, return_exceptions=True)
    if isinstance(outcome, BaseException):
        assert classify(outcome).__name__ == "Retry"
        await persist(engine, [record("killed", "v1")])
    assert sql("SELECT count(*) FROM scheduled_post WHERE variant_id = 'v1' AND status = 'cancelled'") == [(2,)]
    assert sql("SELECT count(*) FROM monitoring_audit WHERE action = 'variant_killed'") == [(1,)]

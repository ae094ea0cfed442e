"""No post of a killed variant stays runnable: in the project's own table and in one that others made, whoever does what at the same time."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import uuid
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from models import ids
from models.errors import Retry
from models.monitoring_record import MonitoringRecord
from streams import sweep as sweep_module
from streams.chores import keep_doing
from streams.cleanup import NotKilled, revive
from streams.clock import wall_clock
from streams.database import create_engine
from streams.persistence import persist
from streams.settings import Settings
from streams.store import migrate
from streams.sweep import SHARE, SWEEP_SECONDS, Sweeper, sweep

Sql = Callable[..., list[tuple[Any, ...]]]
Record = Callable[..., MonitoringRecord]

pytestmark = pytest.mark.faults
OTHERS = """
CREATE TABLE variant_pool (variant_id varchar(200) PRIMARY KEY, persona_id text, status text NOT NULL, killed_at timestamptz, kill_id text, updated_at timestamptz);
CREATE TYPE post_status AS ENUM ('scheduled', 'retry_scheduled', 'published', 'failed', 'cancelled');
CREATE TABLE scheduled_post (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), variant_id text, scheduled_for timestamptz, status post_status, cancelled_at timestamptz,
    cancel_reason text, updated_at timestamptz, payload text)
"""
INSERT = "INSERT INTO scheduled_post (variant_id, scheduled_for, status) VALUES (%s, now() + interval '1 day', %s)"
KILL = ids.kill_id(ids.session_id("v1", "p1"))


@pytest.fixture
def others(database_settings: Settings, sql: Sql) -> Settings:
    """A database in which pool and posts are another program's, of other types and without a trigger."""
    for statement in OTHERS.split(";"):
        sql(statement)
    migrate(database_settings)
    return database_settings


@pytest.fixture
async def others_engine(others: Settings) -> AsyncIterator[AsyncEngine]:
    """An engine on it."""
    engine = create_engine(others)
    yield engine
    await engine.dispose()


def into_pool(sql: Sql, *variants: str) -> None:
    """As their owner would."""
    for variant in variants:
        sql("INSERT INTO variant_pool (variant_id, persona_id, status) VALUES (%s, 'anna', 'active')", variant)


def runnable(sql: Sql) -> int:
    """How many posts of killed variants a publisher would still pick up."""
    return int(sql("SELECT count(*) FROM scheduled_post p JOIN variant_pool v USING (variant_id) WHERE p.status IN ('scheduled', 'retry_scheduled') AND v.status = 'killed'")[0][0])


async def test_a_post_that_is_scheduled_after_the_kill_is_cancelled(others_engine: AsyncEngine, sql: Sql, record: Record):
    """In either runnable status, with the kill's mark and an audit row; others are left alone, and the next sweep finds nothing."""
    into_pool(sql, "v1", "v2")
    await persist(others_engine, [record("killed")])
    for variant, status in (("v1", "scheduled"), ("v1", "retry_scheduled"), ("v1", "published"), ("v1", "failed"), ("v2", "scheduled"), ("v3", "scheduled")):
        sql(INSERT, variant, status)
    assert runnable(sql) == 2
    assert await sweep(others_engine) == 2
    assert sql("SELECT variant_id, status::text, count(*) FROM scheduled_post GROUP BY 1, 2 ORDER BY 1, 2") == [
        ("v1", "cancelled", 2),
        ("v1", "failed", 1),
        ("v1", "published", 1),
        ("v2", "scheduled", 1),
        ("v3", "scheduled", 1),
    ]
    assert sql("SELECT DISTINCT cancel_reason, cancelled_at IS NULL FROM scheduled_post WHERE status = 'cancelled'") == [(f"Variant is killed (kill {KILL})", False)]
    [(facts,)] = sql("SELECT facts FROM monitoring_audit WHERE actor = 'sweep' AND action = 'posts_cancelled' AND variant_id = 'v1'")
    assert facts["kill_id"] == str(KILL)
    assert sorted(post["status"] for post in facts["posts"]) == ["retry_scheduled", "scheduled"]
    assert await sweep(others_engine) == 0


async def test_a_post_that_is_committed_after_the_kill_is_cancelled(others_engine: AsyncEngine, database: str, sql: Sql, record: Record):
    """The scheduler's transaction was open all the while: the kill could not see its post, and without a trigger did not wait for it."""
    into_pool(sql, "v1")
    with psycopg.connect(database) as scheduler:
        scheduler.execute(INSERT, ["v1", "scheduled"])
        assert (await persist(others_engine, [record("killed")])).variants_killed == 1
        assert await sweep(others_engine) == 0
        scheduler.commit()
    assert runnable(sql) == 1
    assert await sweep(others_engine) == 1
    assert runnable(sql) == 0


async def test_a_swept_post_is_restored_by_a_revival_and_then_left_alone(others_engine: AsyncEngine, sql: Sql, record: Record):
    """It was cancelled for that kill only."""
    into_pool(sql, "v1")
    await persist(others_engine, [record("killed")])
    sql(INSERT, "v1", "scheduled")
    await sweep(others_engine)
    assert len((await revive(others_engine, "v1", actor="ada", request_id=None, now_us=wall_clock())).posts) == 1
    assert await sweep(others_engine) == 0
    assert sql("SELECT status::text FROM scheduled_post") == [("scheduled",)]


@pytest.mark.parametrize("table", ["variant_pool", "scheduled_post"])
async def test_a_sweep_waits_for_nobody(others_engine: AsyncEngine, database: str, sql: Sql, record: Record, table: str):
    """What another session holds is left to the next sweep."""
    into_pool(sql, "v1", "v2")
    await persist(others_engine, [record("killed", variant) for variant in ("v1", "v2")])
    for variant in ("v1", "v2"):
        sql(INSERT, variant, "scheduled")
    with psycopg.connect(database) as other:
        other.execute(f"SELECT FROM {table} WHERE variant_id = 'v1' FOR UPDATE")
        async with asyncio.timeout(1):
            assert await sweep(others_engine) == 1
    assert await sweep(others_engine) == 1


async def test_a_variant_that_the_pool_does_not_know_is_swept_too(engine: AsyncEngine, database: str, sql: Sql, record: Record):
    """Its records say that it is killed, until it is revived; and not while a revival is under way, which restores what it then finds."""
    await persist(engine, [record("killed"), record("timed_out", "v2")])
    for variant in ("v1", "v2", "v3"):
        sql(INSERT, variant, "scheduled")
    with psycopg.connect(database) as reviver:
        reviver.execute("SELECT pg_advisory_xact_lock(hashtextextended('v1', 0))")
        assert await sweep(engine) == 0
    assert await sweep(engine) == 1
    assert sql("SELECT variant_id, cancel_reason FROM scheduled_post WHERE status = 'cancelled'") == [("v1", f"Variant is killed (kill {KILL})")]
    await revive(engine, "v1", actor="ada", request_id=uuid.uuid4(), now_us=wall_clock())
    sql(INSERT, "v1", "scheduled")
    assert await sweep(engine) == 0
    assert sql("SELECT status, count(*) FROM scheduled_post GROUP BY 1") == [("scheduled", 4)]
    await persist(engine, [record("killed", post_id="p2")])
    sql(INSERT, "v1", "scheduled")
    assert await sweep(engine) == 1


async def test_many_posts_take_several_statements(engine: AsyncEngine, sql: Sql, record: Record, monkeypatch: pytest.MonkeyPatch):
    """Each bounded; the next follows at once while there is more. The own table's trigger is out of force, as while data are loaded."""
    monkeypatch.setattr(sweep_module, "MOST_POSTS", 4)
    into_pool(sql, "v1")
    await persist(engine, [record("killed")])
    sql("SET session_replication_role = replica") if sql("SELECT current_setting('is_superuser')") == [("on",)] else sql("ALTER TABLE scheduled_post DISABLE TRIGGER USER")
    for _ in range(6):
        sql(INSERT, "v1", "scheduled")
    swept: list[int] = []
    sweeper = Sweeper(engine, swept.append)
    assert [await sweeper.step() for _ in range(3)] == [0.0, SWEEP_SECONDS, SWEEP_SECONDS]
    assert swept == [4, 2]


async def test_a_sweep_holds_no_more_variants_than_it_may_sweep(engine: AsyncEngine, sql: Sql, record: Record, monkeypatch: pytest.MonkeyPatch):
    """Of those outside the pool: each takes a lock of a table that all of PostgreSQL shares. The others have their turn at once after."""
    monkeypatch.setattr(sweep_module, "MOST_POSTS", 2)
    variants = [f"v{number}" for number in range(5)]
    await persist(engine, [record("killed", variant) for variant in variants])
    for variant in variants:
        sql(INSERT, variant, "scheduled")
    async with engine.begin() as connection:
        assert await sweep_module._sweep_unpooled(connection) == 2
        assert (await connection.execute(text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"))).scalar_one() == 2
    assert sql("SELECT variant_id FROM scheduled_post WHERE status = 'cancelled' ORDER BY 1") == [("v0",), ("v1",)]
    sweeper = Sweeper(engine, lambda _: None)
    assert [await sweeper.step() for _ in range(2)] == [0.0, SWEEP_SECONDS]
    assert sql("SELECT DISTINCT status FROM scheduled_post") == [("cancelled",)]


async def test_slow_sweeps_are_rarer(engine: AsyncEngine):
    """One part in twenty of the time at most."""
    times = iter([10.0, 10.1, 20.0, 21.0])
    sweeper = Sweeper(engine, lambda _: None, lambda: next(times))
    assert await sweeper.step() == pytest.approx(SWEEP_SECONDS)
    assert await sweeper.step() == pytest.approx(SHARE * 1.0)


async def test_sweeps_that_run_into_the_time_limit_are_rarer_too(migrated: Settings, database: str, sql: Sql, record: Record):
    """As where posts are very many and have no index: a sweep that fails takes no larger share of the time. One for which PostgreSQL is away takes none."""
    engine = create_engine(migrated.model_copy(update={"database_url": SecretStr(f"{database}?options=-c%20statement_timeout%3D200")}))
    into_pool(sql, "v1")
    await persist(engine, [record("killed")])
    sql("ALTER TABLE scheduled_post DISABLE TRIGGER USER")
    sql(INSERT, "v1", "scheduled")
    sql("CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(1); RETURN NEW; END $$")
    sql("CREATE TRIGGER dawdling BEFORE UPDATE ON scheduled_post FOR EACH ROW EXECUTE FUNCTION dawdle()")
    seconds = itertools.count()
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    sweeper = Sweeper(engine, lambda _: None, lambda: float(next(seconds)), sleep)
    with pytest.raises(Retry, match="statement timeout"):
        await sweeper.step()
    sql("DROP TRIGGER dawdling ON scheduled_post")
    await sweeper.step()
    await sweeper.step()
    assert pauses == [0.0, SHARE * 1.0, 0.0]
    await engine.dispose()
    nowhere = create_engine(Settings.model_validate({"database_url": "postgresql://early_kill@127.0.0.1:1/early_kill"}))
    away = Sweeper(nowhere, lambda _: None, lambda: float(next(seconds)), sleep)
    for _ in range(2):
        with pytest.raises(Retry):
            await away.step()
    assert pauses[3:] == [0.0, 0.0]
    await nowhere.dispose()


def schedule(database: str, variants: list[str], seed: int) -> None:
    """A scheduler: posts of any of the variants, its transactions open for a while."""
    randomness = random.Random(seed)
    with psycopg.connect(database) as connection:
        for _ in range(120):
            connection.execute(INSERT, [randomness.choice(variants), randomness.choice(["scheduled", "retry_scheduled"])])
            if randomness.random() < 0.2:
                connection.execute("SELECT pg_sleep(0.02)")
            connection.commit()


async def kill_and_revive(engine: AsyncEngine, variants: list[str], record: Record, look: Callable[[], None]) -> None:
    """Kills, half of them followed by a revival of any variant; a deadlock is left at that, for what it would have done is not in question."""
    randomness = random.Random(11)
    for number in range(60):
        with contextlib.suppress(NotKilled, Retry, DBAPIError):
            await persist(engine, [record("killed", randomness.choice(variants), f"p{number}")])
            if randomness.random() < 0.5:
                await revive(engine, randomness.choice(variants), actor="ada", request_id=None, now_us=wall_clock())
        look()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("trigger", [False, True])
async def test_in_the_end_no_post_of_a_killed_variant_is_runnable(others: Settings, others_engine: AsyncEngine, database: str, sql: Sql, record: Record, trigger: bool):
    """Schedulers, kills, revivals and two sweeps at once; what was revived has its posts back, and with the trigger none was runnable for a moment."""
    variants = [f"v{number}" for number in range(6)]
    into_pool(sql, *variants)
    migrate(others, post_trigger=trigger)
    engines = [others_engine, create_engine(others)]
    seen: list[int] = []

    async def step(engine: AsyncEngine) -> float:
        await sweep(engine)
        return 0.01

    sweeping = [asyncio.create_task(keep_doing("the sweep", partial(step, engine), pytest.fail)) for engine in engines]
    kills = kill_and_revive(others_engine, variants, record, lambda: seen.append(runnable(sql)))
    await asyncio.gather(kills, *(asyncio.to_thread(schedule, database, variants, seed) for seed in range(3)))
    for task in sweeping:
        task.cancel()
    await asyncio.gather(*sweeping, return_exceptions=True)
    while await sweep(others_engine):
        pass
    await engines[1].dispose()
    assert runnable(sql) == 0
    assert sql("SELECT count(*) FROM scheduled_post p JOIN variant_pool v USING (variant_id) WHERE p.status = 'cancelled' AND v.status = 'active'") == [(0,)]
    assert sql("SELECT count(*) FROM scheduled_post") == [(360,)]
    assert not (trigger and sum(seen))


async def test_others_may_have_the_trigger_too(others: Settings, others_engine: AsyncEngine, sql: Sql, record: Record):
    """When they ask for it; twice is once. Then a post is cancelled as it is written."""
    into_pool(sql, "v1")
    migrate(others, post_trigger=True)
    migrate(others, post_trigger=True)
    await persist(others_engine, [record("killed")])
    sql(INSERT, "v1", "scheduled")
    assert sql("SELECT status::text, cancel_reason FROM scheduled_post") == [("cancelled", f"Variant is killed (kill {KILL})")]
    assert sql("SELECT tgname FROM pg_trigger WHERE tgrelid = 'scheduled_post'::regclass AND NOT tgisinternal") == [("scheduled_post_of_killed_variant",)]


async def test_a_second_kill_does_not_take_posts_from_the_first(others_engine: AsyncEngine, sql: Sql, record: Record):
    """A post that came between them is cancelled by the second, and restored when the first, which holds the variant, is undone."""
    into_pool(sql, "v1")
    await persist(others_engine, [record("killed")])
    sql(INSERT, "v1", "scheduled")
    assert (await persist(others_engine, [record("killed", post_id="p2")])).posts_cancelled == 1
    assert len((await revive(others_engine, "v1", actor="ada", request_id=None, now_us=wall_clock())).posts) == 1

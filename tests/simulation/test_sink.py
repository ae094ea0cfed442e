"""What simulated monitors tell, with all its repetitions, written by the project's own sink statements into a real PostgreSQL.

The sink crashes too: batches come again, whole or in part, in other cuts, and in the end the whole topic comes once more.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from models.monitoring_record import MonitoringRecord, parse
from streams import persistence
from streams.database import create_engine
from streams.persistence import persist
from streams.settings import Settings
from streams.store import migrate
from tests.simulation.claims import Run
from tests.simulation.dice import Dice
from tests.simulation.history import Shape
from tests.simulation.oracle import judge
from tests.simulation.plan import make_plan
from tests.simulation.seeds import small_numbers
from tests.simulation.simulation import run_plan

SEEDS = range(15)
SHAPE = Shape(stops=True)
ROWS = "SELECT variant_id, post_id, outcome, is_active, was_killed, kill_reason, final_view_count, final_interaction_count FROM variant_monitoring"
VERSIONS = (
    "SELECT ctid, xmin, t.* FROM variant_monitoring t ORDER BY 1",
    "SELECT ctid, xmin, t.* FROM variant_pool t ORDER BY 1",
    "SELECT ctid, xmin, t.* FROM scheduled_post t ORDER BY 1",
    "SELECT ctid, xmin, t.* FROM monitoring_audit t ORDER BY 1",
)


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    with small_numbers():
        return [run_plan(make_plan(seed, SHAPE)) for seed in SEEDS]


@pytest.fixture
async def engine(database: str) -> AsyncIterator[AsyncEngine]:
    settings = Settings.model_validate({"database_url": database})
    migrate(settings)
    engine = create_engine(settings)
    yield engine
    await engine.dispose()


def told(run: Run, rng: Random) -> list[MonitoringRecord]:
    """All that was told, its partitions one record at a time between one another."""
    partitions = [[parse(record.value or b"") for record in log if record is not None] for (topic, _), log in run.broker.appended.items() if topic == "monitoring_record"]
    records: list[MonitoringRecord] = []
    while any(partitions):
        records.append(rng.choice([one for one in partitions if one]).pop(0))
    return records


async def write(engine: AsyncEngine, records: list[MonitoringRecord], rng: Random) -> int:
    """Write as a sink that crashes; return how many records came again."""
    position = committed = again = 0
    while position < len(records):
        end = min(len(records), position + rng.choice((1, 5, 50)))
        await persist(engine, records[position:end])
        position = end
        if rng.random() < 0.3:
            committed = rng.randint(committed, position)
        if rng.random() < 0.3:
            again += position - committed
            position = committed
    return again


async def check(engine: AsyncEngine, database: str, run: Run, seed: int) -> int:
    """Write what a run has told into empty tables, and compare them with what the oracle says."""
    rng = Dice(f"sink {seed}")
    fates = judge(run.history).fates
    with psycopg.connect(database, autocommit=True, connect_timeout=5) as connection:
        connection.execute("TRUNCATE variant_monitoring, variant_pool, scheduled_post")
        (audited,) = connection.execute("SELECT coalesce(max(id), 0) FROM monitoring_audit").fetchone() or (0,)
        for variant in {variant for variant, _ in fates}:
            connection.execute("INSERT INTO variant_pool (variant_id, persona_id, status) VALUES (%s, 'p', 'active')", (variant,))
            connection.execute("INSERT INTO scheduled_post (variant_id, scheduled_for, status) VALUES (%s, now() + interval '1 day', 'scheduled')", (variant,))
        records = told(run, rng)
        again = await write(engine, records, rng)
        rows = {(row[0], row[1]): row[2:] for row in connection.execute(ROWS).fetchall()}
        assert set(rows) == set(fates)
        for name, (outcome, is_active, was_killed, reason, views, interactions) in rows.items():
            fate = fates[name]
            assert (is_active, was_killed) == (False, outcome == "killed")
            if outcome != "stopped":
                assert (outcome, reason, views, interactions) == (fate.outcome, fate.reason, fate.views, fate.interactions)
        killed = {variant for (variant, _), row in rows.items() if row[0] == "killed"}
        assert {row[0] for row in connection.execute("SELECT variant_id FROM variant_pool WHERE status = 'killed'").fetchall()} == killed
        assert {row[0] for row in connection.execute("SELECT variant_id FROM scheduled_post WHERE status <> 'cancelled'").fetchall()} == {variant for variant, _ in fates} - killed
        actions = Counter(connection.execute("SELECT session_id, action FROM monitoring_audit WHERE id > %s AND action LIKE 'session_%%'", (audited,)).fetchall())
        assert set(actions.values()) == {1}, json.dumps(actions.most_common(3), default=str)
        before = [connection.execute(query).fetchall() for query in VERSIONS]
        for start in range(0, len(records), 40):
            await persist(engine, records[start : start + 40])
        assert [connection.execute(query).fetchall() for query in VERSIONS] == before, "the whole topic read again changes nothing"
    return again


async def check_all(engine: AsyncEngine, database: str, runs: list[Run]) -> int:
    return sum([await check(engine, database, run, seed) for seed, run in zip(SEEDS, runs, strict=True)])


async def test_the_tables_say_of_each_session_what_its_records_say(engine: AsyncEngine, database: str, runs: list[Run]):
    """One row, one end, one cleanup and one line in the audit of each, however often its records come; read again from its start, the topic changes nothing."""
    assert await check_all(engine, database, runs)
    assert sum(run.repeated_ends for run in runs)


def _without(part: str, end: str, instead: str) -> Any:
    statement = str(persistence._WRITE_SESSIONS)
    start, stop = statement.index(part), statement.index(end)
    return text(statement[:start] + instead + statement[stop:])


MUTILATED = {
    "ON CONFLICT": lambda: _without("ON CONFLICT", "RETURNING", ""),
    "the first end wins": lambda: _without("WHERE v.is_active", "RETURNING", ""),
    "an end after its start": lambda: _without("DO UPDATE SET", "RETURNING", "DO NOTHING\n"),
}


@pytest.mark.parametrize("safeguard", MUTILATED)
async def test_it_fails_without(safeguard: str, engine: AsyncEngine, database: str, runs: list[Run], monkeypatch: pytest.MonkeyPatch):
    """Each part of the statement is one that is missed."""
    monkeypatch.setattr(persistence, "_WRITE_SESSIONS", MUTILATED[safeguard]())
    with pytest.raises((AssertionError, SQLAlchemyError)):
        await check_all(engine, database, runs)

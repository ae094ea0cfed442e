"""PostgreSQL goes away, is locked, full of others, read-only, or set up wrongly, while records are written."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg import sql as compose
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from models.errors import Retry, Stop
from models.monitoring_record import MonitoringRecord
from streams import persister as persister_module
from streams.database import create_engine, ping
from streams.local.postgres import PostgresServer
from streams.persistence import Persisted, persist
from streams.persister import Persister
from streams.settings import Settings
from tests.standstill import standing_still

Sql = Callable[..., list[tuple[Any, ...]]]
Record = Callable[..., MonitoringRecord]

TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"

pytestmark = pytest.mark.faults


def now_us() -> int:
    """Wall clock."""
    return time.time_ns() // 1_000


@pytest.fixture
def persister(engine: AsyncEngine) -> Persister:
    """As the sink has it."""
    return Persister(partial(persist, engine), clock_us=now_us)


@pytest.fixture
async def running(persister: Persister, record: Record) -> AsyncIterator[Callable[[int], asyncio.Task[Persisted]]]:
    """Starts writing kills, ten a batch, each variant once."""
    tasks = []

    async def write(batches: int) -> Persisted:
        total = Persisted()
        for batch in range(batches):
            written = await persister.persist([record("killed", f"v{10 * batch + number}") for number in range(10)])
            assert written.rejected == []
            total += written.persisted
        return total

    def run(batches: int) -> asyncio.Task[Persisted]:
        tasks.append(asyncio.create_task(write(batches)))
        return tasks[-1]

    yield run
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait for it."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_restart_in_the_middle_loses_and_doubles_nothing(postgres: PostgresServer, database: str, persister: Persister, running: Callable[[int], asyncio.Task[Persisted]]):
    """Stopped at once with transactions open, down for 2 s, started again (crash recovery)."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("INSERT INTO variant_pool (variant_id, persona_id, status) SELECT 'v' || i, 'p', 'active' FROM generate_series(0, 2999) i")
        connection.execute("INSERT INTO scheduled_post (variant_id, scheduled_for, status) SELECT 'v' || i, now(), 'scheduled' FROM generate_series(0, 2999) i")
    writing = running(300)
    await asyncio.sleep(0.5)
    assert not writing.done()
    try:
        await asyncio.to_thread(postgres.kill)
        await until(lambda: persister.away_since_us)
        await asyncio.sleep(2)
        assert not writing.done()
    finally:
        await asyncio.to_thread(postgres.start)
        await asyncio.to_thread(postgres.wait_ready)
    await writing
    assert persister.away_since_us is None
    with psycopg.connect(database, autocommit=True) as connection:
        for statement in (
            "SELECT count(*) FROM variant_monitoring WHERE was_killed",
            "SELECT count(*) FROM variant_pool WHERE status = 'killed'",
            "SELECT count(*) FROM scheduled_post WHERE status = 'cancelled'",
            "SELECT count(*) FROM monitoring_audit WHERE action = 'session_ended'",
            "SELECT count(*) FROM monitoring_audit WHERE action = 'posts_cancelled'",
        ):
            assert connection.execute(statement).fetchone() == (3000,), statement


async def test_backends_that_are_ended_in_the_middle_are_replaced(sql: Sql, running: Callable[[int], asyncio.Task[Persisted]]):
    """An administrator's pg_terminate_backend, again and again: an answer may be lost after its COMMIT, so the sum of reports is a lower bound."""
    writing = running(40)
    ended = 0
    while not writing.done():
        ended += len(sql(TERMINATE))
        await asyncio.sleep(0.05)
    assert ended > 2
    assert (await writing).killed <= 400
    assert sql("SELECT count(*) FROM variant_monitoring WHERE was_killed") == [(400,)]
    assert sql("SELECT count(*) FROM monitoring_audit WHERE action = 'session_ended'") == [(400,)]


async def test_a_backend_that_is_killed_takes_all_down_and_all_come_back(
    postgres: PostgresServer, database: str, persister: Persister, running: Callable[[int], asyncio.Task[Persisted]]
):
    """SIGKILL of one: the postmaster resets the rest and recovers."""
    writing = running(300)
    await asyncio.sleep(0.3)
    with psycopg.connect(database, autocommit=True) as connection:
        [pid] = connection.execute("SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'early-kill' LIMIT 1").fetchone() or [0]
        os.kill(pid, signal.SIGKILL)
    await writing
    await asyncio.to_thread(postgres.wait_ready)
    assert persister.away_since_us is None
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM variant_monitoring WHERE was_killed").fetchone() == (3000,)


async def test_a_row_locked_by_another_session_holds_up_only_its_variant(database: str, sql: Sql, persister: Persister, record: Record):
    """For longer than the lock time-out of 2 s; the others of the call and the next call go on."""
    await persister.persist([record("started", variant) for variant in ("v1", "v2", "v3")])
    with psycopg.connect(database) as other:
        other.execute("SELECT 1 FROM variant_monitoring WHERE variant_id = 'v1' FOR UPDATE")
        call = asyncio.create_task(persister.persist([record("killed", variant) for variant in ("v1", "v2")]))
        await until(lambda: persister.held_variants)
        assert (await persister.persist([record("killed", "v3")])).persisted.killed == 1
        assert not call.done()
        assert sql("SELECT variant_id FROM variant_monitoring WHERE was_killed ORDER BY 1") == [("v2",), ("v3",)]
        other.rollback()
    assert (await asyncio.wait_for(call, 15)).persisted.killed == 2
    assert persister.held_variants == 0


async def test_a_kill_that_takes_too_long_holds_up_only_its_variant(migrated: Settings, database: str, sql: Sql, record: Record):
    """One of the posts that it cancels takes longer than a statement may, as very many of them without an index would; then it does not."""
    engine = create_engine(migrated.model_copy(update={"database_url": SecretStr(f"{database}?options=-c%20statement_timeout%3D500")}))
    persister = Persister(partial(persist, engine), clock_us=now_us)
    sql("INSERT INTO scheduled_post (variant_id, scheduled_for, status) VALUES ('v1', now(), 'scheduled')")
    sql("CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(1); RETURN NEW; END $$")
    sql("CREATE TRIGGER dawdling BEFORE UPDATE ON scheduled_post FOR EACH ROW EXECUTE FUNCTION dawdle()")
    try:
        call = asyncio.create_task(persister.persist([record("killed", variant) for variant in ("v2", "v1", "v3")]))
        await until(lambda: persister.held_variants)
        assert (await persister.persist([record("killed", "v4")])).persisted.killed == 1
        assert sql("SELECT variant_id FROM variant_monitoring ORDER BY 1") == [("v2",), ("v3",), ("v4",)]
        assert not call.done()
        sql("DROP TRIGGER dawdling ON scheduled_post")
        written = await asyncio.wait_for(call, 15)
    finally:
        await engine.dispose()
    assert (written.persisted.killed, written.persisted.posts_cancelled, written.rejected) == (3, 1, [])


async def test_a_server_that_answers_nothing_is_given_up(sql: Sql, persister: Persister, record: Record, monkeypatch: pytest.MonkeyPatch):
    """Our own backend is stopped (SIGSTOP), so that no limit of the server can fire: another connection does it."""
    monkeypatch.setattr(persister_module, "PATIENCE_SECONDS", 1)
    await persister.persist([record("started")])
    [(pid,)] = sql("SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'early-kill'")
    with standing_still(pid):
        written = await asyncio.wait_for(persister.persist([record("killed", "v2")]), 30)
    assert written.persisted.killed == 1


async def test_read_only_is_waited_for(database: str, sql: Sql, persister: Persister, running: Callable[[int], asyncio.Task[Persisted]]):
    """As while a replica is promoted."""
    name = compose.Identifier(database.rsplit("/", 1)[1]).as_string()
    sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    sql(TERMINATE)
    writing = running(1)
    await until(lambda: persister.away_since_us)
    sql("SET default_transaction_read_only = off")
    sql(f"ALTER DATABASE {name} SET default_transaction_read_only = off")
    sql(TERMINATE)
    assert (await writing).killed == 10


async def test_no_connection_left_is_waited_for(database: str, sql: Sql, persister: Persister, record: Record):
    """53300 while connecting carries no SQLSTATE in psycopg: it must not be taken for a wrong set-up."""
    name = compose.Identifier(database.rsplit("/", 1)[1]).as_string()
    sql(f"ALTER DATABASE {name} CONNECTION LIMIT 0")
    sql(TERMINATE)
    writing = asyncio.create_task(persister.persist([record("killed")]))
    await until(lambda: persister.away_since_us)
    sql(f"ALTER DATABASE {name} CONNECTION LIMIT -1")
    assert (await writing).persisted.killed == 1


@pytest.mark.parametrize(("change", "says"), [("ALTER TABLE variant_monitoring RENAME TO gone", "variant_monitoring"), ("ALTER TABLE variant_pool DROP COLUMN kill_id", "kill_id")])
async def test_a_missing_table_or_column_stops(sql: Sql, persister: Persister, record: Record, change: str, says: str):
    """Loudly, rather than sending every kill to the dead letters."""
    sql(change)
    with pytest.raises(Stop, match=f"PostgreSQL: .*{says}.* does not exist"):
        await persister.persist([record("killed")])


async def test_a_wrong_password_stops_and_is_not_told(postgres: PostgresServer, database: str):
    """Nor any other refusal of who we are; the line names user or database, never the password."""
    role = f"sink_{database[-8:]}"
    with psycopg.connect(postgres.superuser_url, autocommit=True) as connection:
        connection.execute(compose.SQL("CREATE ROLE {} LOGIN PASSWORD 'right'").format(compose.Identifier(role)))
    address = database.split("@")[1]
    try:
        for url, says in [
            (f"postgresql://{role}:wrong-one@{address}", "password authentication failed"),
            (f"postgresql://{role}@{address}", "no password supplied"),
            (f"postgresql://{role}:right@{address.replace('test_', 'none_')}", "does not exist"),
        ]:
            engine = create_engine(Settings.model_validate({"database_url": SecretStr(url)}))
            with pytest.raises(Stop, match=says) as caught:
                await ping(engine)
            assert "wrong-one" not in str(caught.value)
            await engine.dispose()
    finally:
        with psycopg.connect(postgres.superuser_url, autocommit=True) as connection:
            connection.execute(compose.SQL("DROP ROLE {}").format(compose.Identifier(role)))


async def test_a_refused_record_is_given_back_and_the_rest_is_written(sql: Sql, persister: Persister, record: Record):
    """A text that PostgreSQL can't hold, and a number that a CHECK refuses."""
    batch = [record("killed", "v1"), record("started", "v2", persona_id="a\0b"), record("started", "v3", kill_threshold=2.0), record("killed", "v4")]
    written = await persister.persist(batch)
    assert written.persisted.killed == 2
    assert [rejected.record for rejected in written.rejected] == batch[1:3]
    assert [("line_check" in rejected.reason, "\n" in rejected.reason) for rejected in written.rejected] == [(False, False), (True, False)]
    assert sql("SELECT variant_id FROM variant_monitoring ORDER BY 1") == [("v1",), ("v4",)]


async def test_ping_says_whether_it_is_there(engine: AsyncEngine):
    """For readiness."""
    await ping(engine)
    nowhere = create_engine(Settings.model_validate({"database_url": "postgresql://early_kill@127.0.0.1:1/early_kill"}))
    with pytest.raises(Retry):
        await ping(nowhere)
    await nowhere.dispose()

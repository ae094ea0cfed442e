"""All that workers do in PostgreSQL, as the role of deploy/postgres-roles.sql, which can do nothing else."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors
from sqlalchemy.ext.asyncio import AsyncEngine

from models.errors import Retry, Stop
from models.monitoring_record import MonitoringRecord
from streams import database as database_module
from streams.audit import audit
from streams.cleanup import revive
from streams.clock import wall_clock
from streams.database import check_schema, create_engine, ping, sqlstate
from streams.local.postgres import PostgresServer
from streams.outbound.pending import Outcome, PendingCalls
from streams.outbound.reopening import list_calls, retry_calls
from streams.persistence import persist
from streams.persister import Persister
from streams.purge import purge
from streams.settings import Settings
from streams.store import Store, migrate
from streams.sweep import sweep
from tests.integration.system import ROOT, Worker
from tests.integration.worker_role import ROLE, superuser, worker_url

Sql = Callable[..., list[tuple[Any, ...]]]
Record = Callable[..., MonitoringRecord]

TARGET = "https://receiver.example"
PASSWORD = secrets.token_urlsafe(18)


@pytest.fixture
def url(postgres: PostgresServer, database: str) -> str:
    """A migrated database, as the workers reach it."""
    migrate(Settings.model_validate({"database_url": database}))
    return worker_url(postgres, database, PASSWORD)


@pytest.fixture
async def worker(url: str) -> AsyncIterator[AsyncEngine]:
    """An engine of a worker."""
    engine = create_engine(Settings.model_validate({"database_url": url}))
    yield engine
    await engine.dispose()


async def test_a_worker_needs_no_more_than_its_role_may(worker: AsyncEngine, sql: Sql, record: Record):
    """Start, kill with its cleanup and its call, sweep in the pool and out of it, relay, revival, audit, reads: whatever sink and API do."""
    await ping(worker)
    await check_schema(worker)
    sql("INSERT INTO variant_pool (variant_id, persona_id, status) VALUES ('v1', 'anna', 'active'), ('v3', 'anna', 'active')")
    sql("INSERT INTO scheduled_post (variant_id, scheduled_for, status) SELECT v, now() + interval '1 day', 'scheduled' FROM unnest(ARRAY['v1', 'v2', 'v3']) AS v")
    await persist(worker, [record("started", "v1"), record("started", "v3")], TARGET)
    written = await persist(worker, [record("killed", "v1"), record("killed", "v2"), record("timed_out", "v3")], TARGET)
    assert (written.started, written.killed, written.timed_out, written.variants_killed, written.posts_cancelled) == (1, 2, 1, 1, 2)
    assert (await persist(worker, [record("killed", "v1")], TARGET)).killed == 0

    sql("ALTER TABLE scheduled_post DISABLE TRIGGER scheduled_post_of_killed_variant")
    sql("INSERT INTO scheduled_post (variant_id, scheduled_for) VALUES ('v1', now() + interval '1 day'), ('v2', now() + interval '1 day')")
    assert await sweep(worker) == 2

    calls = PendingCalls(worker, lease_seconds=5, give_up_seconds=600)
    assert (await calls.backlog()).pending == 2
    first, second = await calls.claim(10)
    assert await calls.settle(first, Outcome("confirmed", 200), 0) == "confirmed"
    assert await calls.settle(second, Outcome("refused", 400, "no"), 0) == "given_up"
    assert len(await list_calls(worker, ["given_up"], 10)) == 1
    assert await retry_calls(worker, None, actor="test") == [second.id]

    revived = await revive(worker, "v1", actor="test", request_id=uuid.uuid4(), now_us=wall_clock())
    assert (revived.is_in_pool, len(revived.posts)) == (True, 2)
    assert (await revive(worker, "v2", actor="test", request_id=None, now_us=wall_clock())).is_in_pool is False
    await audit(worker, actor="test", action="call_refused", now_us=wall_clock())
    assert len(await Store(worker).sessions()) == 3
    assert sql("SELECT status FROM variant_pool ORDER BY variant_id") == [("active",), ("active",)]


REFUSED = [
    "CREATE TABLE mine (id int)",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE SCHEMA mine",
    "CREATE ROLE mine",
    "ALTER TABLE variant_monitoring ADD COLUMN mine int",
    "ALTER TABLE scheduled_post DISABLE TRIGGER scheduled_post_of_killed_variant",
    "CREATE INDEX ON variant_monitoring (persona_id)",
    "CREATE TRIGGER mine BEFORE INSERT ON variant_pool FOR EACH ROW EXECUTE FUNCTION early_kill_cancel_post()",
    "DROP TABLE outbound_call",
    "TRUNCATE monitoring_audit",
    "DELETE FROM variant_monitoring",
    "DELETE FROM variant_pool",
    "DELETE FROM scheduled_post",
    "DELETE FROM outbound_call",
    "DELETE FROM monitoring_audit",
    "UPDATE monitoring_audit SET actor = 'nobody'",
    "INSERT INTO variant_pool (variant_id, persona_id) VALUES ('mine', 'p')",
    "INSERT INTO scheduled_post (variant_id, scheduled_for) VALUES ('mine', now())",
    "UPDATE variant_pool SET variant_id = 'other'",
    "UPDATE scheduled_post SET scheduled_for = now()",
    "SELECT * FROM early_kill_version",
    "COPY (SELECT 1) TO PROGRAM 'true'",
]


def test_what_is_not_a_workers_business_is_refused(url: str):
    """42501: no DDL, no row that goes for good, no change of the audit, and of tables that others fill only the columns that a kill concerns."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET early_kill.purge = 'on'")
        for statement in REFUSED:
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(statement)


@pytest.mark.parametrize(
    ("changed", "kind", "code"),
    [
        (("early_kill_worker:", "early_kill_worker:wrong-word"), Stop, "28P01"),
        (("/test_", "/none_"), Stop, "3D000"),
        (("early_kill_worker:", "unknown:"), Stop, "28P01"),
        (("", ""), Retry, "53300"),
    ],
)
async def test_a_refused_connection_is_sorted_by_its_code(
    postgres: PostgresServer, database: str, url: str, monkeypatch: pytest.MonkeyPatch, changed: tuple[str, str], kind: type[Exception], code: str
):
    """Whatever language the server speaks: none of its words is known here. Too many connections are no wrong set-up."""
    monkeypatch.setattr(database_module, "_STOP_WORDS", ())
    monkeypatch.setattr(database_module, "_FATAL", "in another language")
    if kind is Retry:
        with superuser(postgres, database) as connection:
            connection.execute(f'ALTER DATABASE "{database.rsplit("/", 1)[1]}" CONNECTION LIMIT 0')
    engine = create_engine(Settings.model_validate({"database_url": url.replace(*changed)}))
    with pytest.raises(kind) as caught:
        await ping(engine)
    assert sqlstate(caught.value.__cause__ or caught.value) == code
    assert "wrong-word" not in str(caught.value)
    await engine.dispose()


async def test_a_server_that_is_away_has_no_code():
    """And is asked no second time for one: nothing answers there."""
    nowhere = create_engine(Settings.model_validate({"database_url": "postgresql://early_kill@127.0.0.1:1/early_kill"}))
    with pytest.raises(Retry) as caught:
        await ping(nowhere)
    assert sqlstate(caught.value.__cause__ or caught.value) is None
    await nowhere.dispose()


async def test_purging_is_the_owners_business(worker: AsyncEngine, sql: Sql):
    """One clear error for the worker; audit rows stay."""
    await audit(worker, actor="test", action="call_refused", now_us=0)
    with pytest.raises(Stop, match="PostgreSQL: permission denied for table variant_monitoring"):
        await purge(worker, 1, wall_clock())
    assert sql("SELECT count(*) FROM monitoring_audit") == [(1,)]


async def test_a_right_that_is_taken_away_stops_the_sink(worker: AsyncEngine, postgres: PostgresServer, database: str, record: Record):
    """42501 while records come in: loudly, and nothing goes to the dead letters."""
    with superuser(postgres, database) as connection:
        connection.execute(f"REVOKE INSERT ON monitoring_audit FROM {ROLE}")
    persister = Persister(partial(persist, worker), clock_us=wall_clock)
    with pytest.raises(Stop, match="PostgreSQL: permission denied for table monitoring_audit"):
        await asyncio.wait_for(persister.persist([record("killed")]), 10)


async def test_a_password_in_a_file_changes_without_a_restart(postgres: PostgresServer, database: str, url: str, tmp_path: Path):
    """Each new connection takes the one that is there then."""
    file = tmp_path / "database-url"
    file.touch(0o600)
    file.write_text(url + "\n")
    engine = create_engine(Settings.model_validate({"database_url_file": file}))
    try:
        await ping(engine)
        new = worker_url(postgres, database, secrets.token_urlsafe(18))
        file.write_text(new)
        with superuser(postgres, database) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [ROLE])
        await ping(engine)
    finally:
        await engine.dispose()


@pytest.mark.parametrize(("password", "table", "says"), [("wrong-word", None, "password authentication failed"), (None, "scheduled_post", "scheduled_post")])
def test_a_sink_that_may_not_do_its_work_ends_with_one_line(postgres: PostgresServer, database: str, url: str, tmp_path: Path, password: str | None, table: str | None, says: str):
    """Wrong password, or a table that is gone: exit code 1 within seconds, before any Kafka is asked; the password is not told."""
    if table is not None:
        with superuser(postgres, database) as connection:
            connection.execute(f"ALTER TABLE {table} RENAME TO gone")
    given = url if password is None else url.replace(PASSWORD, password)
    environment = Worker(Settings.model_validate({"database_url": given, "kafka_bootstrap_servers": "127.0.0.1:9"}), "sink", tmp_path, {})._environment
    began = time.monotonic()
    ended = subprocess.run([sys.executable, "-m", "streams.cli", "worker", "--role", "sink"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert time.monotonic() - began < 20
    assert ended.stderr.startswith("early-kill: PostgreSQL: ")
    assert ended.stderr.count("\n") == 1
    assert says in ended.stderr
    assert "wrong-word" not in ended.stderr

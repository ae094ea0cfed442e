"""The schema on a real server: made, updated, and left alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from models.errors import Retry, Stop
from models.records import Base
from streams.local.child import free_port
from streams.settings import Settings
from streams.store import migrate

Sql = Callable[..., list[tuple]]

CATALOGUE = {
    "constraints": "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = '{}'::regnamespace ORDER BY 1, 2",
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = '{}' ORDER BY 1, 2",
    "columns": """SELECT table_name, column_name, data_type, is_nullable, column_default, is_identity, identity_generation
                  FROM information_schema.columns WHERE table_schema = '{}' ORDER BY 1, 2""",
}


def catalogue(sql: Sql, schema: str) -> dict[str, list[tuple[str, ...]]]:
    """What the tables of a schema are, without its name."""
    rows = {name: sql(query.format(schema)) for name, query in CATALOGUE.items()}
    return {name: [tuple(str(cell).replace(f"{schema}.", "") for cell in row) for row in found if "early_kill_version" not in str(row)] for name, found in rows.items()}


def test_migrations_make_what_the_models_say(migrated: Settings, sql: Sql):
    """Alembic finds no difference, nor does the catalogue (Alembic does not compare CHECKs)."""
    engine = sa.create_engine(migrated.sqlalchemy_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True, "version_table": "early_kill_version"}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata) == []
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE SCHEMA models"))
        connection.execute(sa.text("SET search_path = models"))
        Base.metadata.create_all(connection)
    assert catalogue(sql, "models") == catalogue(sql, "public")


def test_a_second_migration_changes_nothing(migrated: Settings, sql: Sql):
    """It can be run before each start."""
    before = catalogue(sql, "public")
    migrate(migrated)
    assert catalogue(sql, "public") == before


def test_two_migrations_at_once_are_safe(database_settings: Settings, sql: Sql):
    """Each worker may run it at its start: in threads of one process, and in several processes."""
    program = "import sys; from streams.settings import Settings; from streams.store import migrate; migrate(Settings.model_validate({'database_url': sys.stdin.read()}))"
    url = database_settings.database_url.get_secret_value()
    others = [subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, cwd=Path(__file__).parents[2], text=True) for _ in range(3)]
    for other in others:
        assert other.stdin
        other.stdin.write(url)
        other.stdin.close()
    with ThreadPoolExecutor(3) as threads:
        for done in [threads.submit(migrate, database_settings) for _ in range(3)]:
            done.result()
    assert [other.wait(60) for other in others] == [0, 0, 0]
    assert sql("SELECT version_num FROM early_kill_version") == [("0003",)]


def test_tables_of_others_are_left_alone(database_settings: Settings, sql: Sql):
    """With the contract's columns, whatever else they have, and whatever their types."""
    sql("CREATE TABLE variant_pool (variant_id varchar(200) PRIMARY KEY, persona_id text, status text, killed_at timestamptz, kill_id text, updated_at timestamptz, extra int)")
    sql("CREATE TABLE scheduled_post (id uuid, variant_id text, scheduled_for timestamptz, status text, cancelled_at timestamptz, cancel_reason text, updated_at timestamptz)")
    before = [row for row in catalogue(sql, "public")["columns"] if row[0] in ("variant_pool", "scheduled_post")]
    migrate(database_settings)
    migrate(database_settings)
    assert [row for row in catalogue(sql, "public")["columns"] if row[0] in ("variant_pool", "scheduled_post")] == before
    assert sql("SELECT tgname FROM pg_trigger WHERE tgrelid = 'scheduled_post'::regclass") == []


def test_a_schema_of_the_first_version_is_brought_up_to_date(migrated: Settings, sql: Sql):
    """And is then what a new one is; rows stay, but for repetitions of one request for a stop."""
    new = catalogue(sql, "public")
    sql("DROP TABLE outbound_call")
    sql("DROP INDEX scheduled_post_runnable_idx")
    sql("DROP INDEX monitoring_audit_stop_request_key")
    session, request = uuid4(), uuid4()
    for facts in ('{"n": 1}', '{"n": 2}'):
        for action in ("stop_requested", "start_requested"):
            sql("INSERT INTO monitoring_audit (actor, action, session_id, request_id, facts) VALUES ('somebody', %s, %s, %s, %s)", action, session, request, facts)
    sql("INSERT INTO scheduled_post (variant_id, scheduled_for) VALUES ('v', now())")
    sql("UPDATE early_kill_version SET version_num = '0001'")
    migrate(migrated)
    assert catalogue(sql, "public") == new
    assert sql("SELECT status FROM scheduled_post") == [("scheduled",)]
    assert sql("SELECT action, facts ->> 'n' FROM monitoring_audit ORDER BY id") == [("stop_requested", "1"), ("start_requested", "1"), ("start_requested", "2")]


def test_a_table_that_lacks_columns_is_named_with_them(database_settings: Settings, sql: Sql):
    """And nothing is created beside it."""
    sql("CREATE TABLE variant_pool (variant_id text PRIMARY KEY, persona_id text, status text, updated_at timestamptz)")
    with pytest.raises(Stop, match=r"table variant_pool exists but lacks the columns killed_at, kill_id"):
        migrate(database_settings)
    assert sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == [("variant_pool",)]


def test_a_schema_from_the_future_is_refused(migrated: Settings, sql: Sql):
    """An old program must not guess."""
    sql("UPDATE early_kill_version SET version_num = '9999'")
    with pytest.raises(Stop, match="of another version than this program"):
        migrate(migrated)


def test_no_server_is_a_reason_to_try_again():
    """It may still come."""
    with pytest.raises(Retry, match="Connection refused"):
        migrate(Settings.model_validate({"database_url": f"postgresql://early_kill@127.0.0.1:{free_port()}/early_kill"}))


@pytest.mark.usefixtures("migrated")
def test_others_need_to_insert_only_what_they_know(sql: Sql):
    """The rest has server defaults."""
    sql("INSERT INTO variant_pool (variant_id, persona_id, status) VALUES ('v', 'anna', 'active')")
    sql("INSERT INTO scheduled_post (variant_id, scheduled_for, status) VALUES ('v', now(), 'retry_scheduled')")
    assert sql("SELECT status, killed_at, kill_id, updated_at IS NOT NULL FROM variant_pool") == [("active", None, None, True)]
    assert sql("SELECT id, status, cancelled_at, cancel_reason, updated_at IS NOT NULL FROM scheduled_post") == [(1, "retry_scheduled", None, None, True)]


@pytest.mark.usefixtures("migrated")
@pytest.mark.parametrize("change", ["UPDATE monitoring_audit SET actor = 'x'", "DELETE FROM monitoring_audit", "TRUNCATE monitoring_audit"])
def test_the_audit_only_grows(sql: Sql, change: str):
    """Its rows can't be changed or removed, not even by their owner."""
    sql("INSERT INTO monitoring_audit (actor, action) VALUES ('somebody', 'something')")
    with pytest.raises(Exception, match="append-only"):
        sql(change)
    assert sql("SELECT actor, action, facts FROM monitoring_audit") == [("somebody", "something", {})]

"""What PostgreSQL knows of sessions, for the API; and ``migrate``, which brings its schema up to date."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from importlib.resources import files
from typing import Any
from uuid import UUID

import psycopg
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import NullPool

from models.errors import Reject, Stop
from models.moments import from_datetime, to_datetime
from models.records import ACTIVE, OUTCOMES, Base, ScheduledPost, VariantMonitoring, VariantPool
from models.views import Place, SessionRecord
from streams.database import connection_parameters, explained, is_storable
from streams.settings import Settings

MAX_LIMIT = 1_000
"""Most sessions that are read at once."""

_MIGRATION_LOCK = 0x6B696C6C  # any number that nobody else in this database uses
# As the project's own table has it from the start.
_ADD_POST_TRIGGER = sa.text("""
CREATE OR REPLACE TRIGGER scheduled_post_of_killed_variant BEFORE INSERT OR UPDATE OF status, variant_id ON scheduled_post
FOR EACH ROW WHEN (NEW.status IN ('scheduled', 'retry_scheduled')) EXECUTE FUNCTION early_kill_cancel_post()
""")
_one_migration = threading.Lock()  # Alembic keeps its context in module globals
_Row = sa.Row[Any]


class Store:
    """Reads of the session records. Every call raises ``Retry`` or ``Stop`` with one clear line when PostgreSQL fails it."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def latest_session(self, variant_id: str, post_id: str | None = None) -> SessionRecord | None:
        """The session of the variant that was posted last, or that of one posting; None if there is no record of it."""
        if not is_storable(variant_id, post_id):
            return None
        table = VariantMonitoring
        query = sa.select(table).where(table.variant_id == variant_id).order_by(table.started_at.desc(), table.session_id.desc()).limit(1)
        if post_id is not None:
            query = query.where(table.post_id == post_id)
        rows = await self._rows(query)
        return _session(rows[0]) if rows else None

    async def sessions(
        self, *, variant_id: str | None = None, persona_id: str | None = None, outcome: str | None = None, limit: int = 100, after: Place | None = None
    ) -> list[SessionRecord]:
        """Sessions, newest ``started_at`` first.

        Args:
            variant_id: Only this variant's.
            persona_id: Only this persona's.
            outcome: ``killed``, ``timed_out``, ``stopped``, or ``active`` for those without an end.
            limit: 1 to 1,000; no more are returned.
            after: Only those that stand strictly after this place. A session that starts meanwhile does not shift them.

        Raises:
            Reject: An unknown outcome, or a limit out of range.
        """
        if not 1 <= limit <= MAX_LIMIT:
            raise Reject(f"must be 1 to {MAX_LIMIT}", "limit")
        table = VariantMonitoring
        query = sa.select(table).order_by(table.started_at.desc(), table.session_id.desc()).limit(limit)
        if outcome is not None:
            query = query.where(_outcome(outcome))
        if after is not None:
            query = query.where(sa.tuple_(table.started_at, table.session_id) < sa.tuple_(*_bound(after)))
        if not is_storable(variant_id, persona_id):
            return []
        if variant_id is not None:
            query = query.where(table.variant_id == variant_id)
        if persona_id is not None:
            query = query.where(table.persona_id == persona_id)
        return [_session(row) for row in await self._rows(query)]

    async def _rows(self, query: sa.Select[Any]) -> Sequence[_Row]:
        with explained():
            async with self._engine.connect() as connection:
                rows: Sequence[_Row] = (await connection.execute(query)).all()
                return rows


def migrate(settings: Settings, *, post_trigger: bool = False) -> None:
    """Bring the schema up to date, in one transaction; two at once are safe, and a second run changes nothing.

    ``variant_pool`` and ``scheduled_post`` may exist already, filled by other programs: they are left alone then. A post that is
    inserted into such a table after the kill of its variant is cancelled by the sink's sweep, some seconds later.

    Args:
        settings: Where the database is.
        post_trigger: Give a ``scheduled_post`` that existed already the project's trigger too, which cancels such a post at once.

    Raises:
        Stop: One of those two lacks columns (it is named, with the columns), the schema is newer than this program, or PostgreSQL
            will never take us.
        Retry: PostgreSQL is away, or others hold locks on the tables for over 60 s.
    """
    parameters = connection_parameters(settings, statement_timeout_seconds=0, lock_timeout_seconds=60)
    engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(**parameters), poolclass=NullPool)
    config = Config()
    config.set_main_option("script_location", str(files("models") / "migrations").replace("%", "%%"))
    with explained(), _one_migration, engine.begin() as connection:
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        _check_columns(connection)
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise Stop(f"the database's schema is of another version than this program: {error}") from error
        if post_trigger:
            connection.execute(_ADD_POST_TRIGGER)


def _check_columns(connection: sa.Connection) -> None:
    inspector = sa.inspect(connection)
    for table in (Base.metadata.tables[VariantPool.__tablename__], Base.metadata.tables[ScheduledPost.__tablename__]):
        if not inspector.has_table(table.name):
            continue
        present = {column["name"] for column in inspector.get_columns(table.name)}
        missing = [column.name for column in table.columns if column.name not in present]
        if missing:
            raise Stop(f"table {table.name} exists but lacks the columns {', '.join(missing)}: add them, or move the table away, and migrate again")


def _session(row: _Row) -> SessionRecord:
    metadata: dict[str, Any] = row.monitoring_metadata
    counts = metadata.get("counts")
    return SessionRecord(
        session_id=str(row.session_id),
        variant_id=row.variant_id,
        persona_id=row.persona_id,
        post_id=row.post_id,
        expected_engagement_rate=row.expected_engagement_rate,
        kill_threshold=row.kill_threshold,
        min_interactions=row.min_interactions,
        timeout_minutes=row.timeout_minutes,
        started_at_us=from_datetime(row.started_at),
        ended_at_us=None if row.ended_at is None else from_datetime(row.ended_at),
        is_active=row.is_active,
        was_killed=row.was_killed,
        outcome=row.outcome,
        kill_reason=row.kill_reason,
        final_engagement_rate=row.final_engagement_rate,
        final_interaction_count=row.final_interaction_count,
        final_view_count=row.final_view_count,
        policy=metadata.get("policy", "ratio"),
        counts=counts if isinstance(counts, dict) else None,
        updated_at_us=from_datetime(row.updated_at),
    )


def _outcome(wanted: str) -> sa.ColumnElement[bool]:
    if wanted == ACTIVE:
        return sa.and_(VariantMonitoring.is_active)
    if wanted in OUTCOMES:
        return sa.and_(VariantMonitoring.outcome == wanted, ~VariantMonitoring.is_active)  # the second lets the partial index serve
    raise Reject(f"must be one of {', '.join((ACTIVE, *OUTCOMES))}", "outcome")


def _bound(place: Place) -> tuple[sa.BindParameter[Any], sa.BindParameter[Any]]:
    started_at_us, session_id = place
    return sa.literal(to_datetime(started_at_us), sa.DateTime(timezone=True)), sa.literal(UUID(session_id), sa.Uuid())

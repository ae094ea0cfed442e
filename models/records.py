"""The tables of PostgreSQL: what is recorded of each session, and what a kill cleans up. No engine here.

All moments are ``timestamptz``, all counts ``bigint``. ``variant_pool`` and ``scheduled_post`` are filled by other
programs, so their columns default to what an insert of the three obvious ones means.

Source:
    CONTRACT.md, section 5.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, DateTime, Double, Identity, Index, MetaData, Text, UniqueConstraint, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

ACTIVE = "active"
CALL_STATES = ("pending", "confirmed", "given_up", "withdrawn")
"""States of an outbound call; only ``pending`` ones are sent."""

OUTCOMES = ("killed", "timed_out", "stopped")

_NOW = text("now()")
_EMPTY = text("'{}'::jsonb")


class Base(DeclarativeBase):
    """Common names for constraints and indexes, so that a migration can name them too."""

    metadata = MetaData(
        naming_convention={
            "pk": "%(table_name)s_pkey",
            "uq": "%(table_name)s_%(column_0_N_name)s_key",
            "ck": "%(table_name)s_%(constraint_name)s_check",
            "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {datetime: DateTime(timezone=True), int: BigInteger(), float: Double(), str: Text(), UUID: Uuid(), dict[str, Any]: JSONB()}


class VariantMonitoring(Base):
    """One session: the monitoring of one posting, from ``started_at`` (when it was posted) to its only end.

    ``kill_reason`` is the reason of whatever end it was. ``final_engagement_rate`` is null after the end of a session that nobody viewed.
    """

    __tablename__ = "variant_monitoring"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    session_id: Mapped[UUID]
    variant_id: Mapped[str]
    persona_id: Mapped[str]
    post_id: Mapped[str]
    expected_engagement_rate: Mapped[float] = mapped_column(server_default=text("0.06"))
    kill_threshold: Mapped[float] = mapped_column(server_default=text("0.5"))
    min_interactions: Mapped[int] = mapped_column(server_default=text("10"))
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    timeout_minutes: Mapped[float] = mapped_column(server_default=text("10"))
    is_active: Mapped[bool] = mapped_column(server_default=text("true"))
    was_killed: Mapped[bool] = mapped_column(server_default=text("false"))
    outcome: Mapped[str | None]
    kill_reason: Mapped[str | None]
    final_engagement_rate: Mapped[float | None]
    final_interaction_count: Mapped[int | None]
    final_view_count: Mapped[int | None]
    monitoring_metadata: Mapped[dict[str, Any]] = mapped_column(server_default=_EMPTY)
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    updated_at: Mapped[datetime] = mapped_column(server_default=_NOW)

    __table_args__ = (
        UniqueConstraint("session_id"),
        CheckConstraint("outcome IN ('killed', 'timed_out', 'stopped')", name="outcome"),
        CheckConstraint("is_active = (outcome IS NULL) AND was_killed = (outcome IS NOT NULL AND outcome = 'killed')", name="one_end"),
        CheckConstraint("(ended_at IS NULL) = is_active", name="ended_at"),
        CheckConstraint("expected_engagement_rate > 0 AND expected_engagement_rate <= 1 AND kill_threshold > 0 AND kill_threshold <= 1", name="line"),
        CheckConstraint("min_interactions BETWEEN 1 AND 1000000 AND timeout_minutes > 0 AND timeout_minutes <= 43200", name="window"),
        CheckConstraint("final_engagement_rate >= 0 AND final_interaction_count >= 0 AND final_view_count >= 0", name="finals"),
        # Each list of sessions is newest first and cut into pages at (started_at, session_id): these are read backwards.
        Index("variant_monitoring_newest_idx", "started_at", "session_id"),
        Index("variant_monitoring_variant_id_idx", "variant_id", "started_at", "session_id"),
        Index("variant_monitoring_persona_id_idx", "persona_id", "started_at", "session_id"),
        Index("variant_monitoring_is_active_idx", "started_at", "session_id", postgresql_where=text("is_active")),
        Index("variant_monitoring_outcome_idx", "outcome", "started_at", "session_id", postgresql_where=text("NOT is_active")),
        Index("variant_monitoring_ended_at_idx", "ended_at", postgresql_where=text("NOT is_active")),
    )


class VariantPool(Base):
    """One variant that may be posted; a kill takes it out of use. Rows are written by others, never invented here."""

    __tablename__ = "variant_pool"

    variant_id: Mapped[str] = mapped_column(primary_key=True)
    persona_id: Mapped[str]
    status: Mapped[str] = mapped_column(server_default=text("'active'"))
    killed_at: Mapped[datetime | None]
    kill_id: Mapped[UUID | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=_NOW)

    __table_args__ = (CheckConstraint("status IN ('active', 'killed')", name="status"),)


class ScheduledPost(Base):
    """One post that is to go out, went out, or was cancelled; ``cancel_reason`` ends with the id of the kill that cancelled it."""

    __tablename__ = "scheduled_post"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    variant_id: Mapped[str]
    scheduled_for: Mapped[datetime]
    status: Mapped[str] = mapped_column(server_default=text("'scheduled'"))
    cancelled_at: Mapped[datetime | None]
    cancel_reason: Mapped[str | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=_NOW)

    __table_args__ = (
        CheckConstraint("status IN ('scheduled', 'retry_scheduled', 'published', 'failed', 'cancelled')", name="status"),
        Index(None, "variant_id"),
        Index("scheduled_post_runnable_idx", "variant_id", postgresql_where=text("status IN ('scheduled', 'retry_scheduled')")),
    )


class MonitoringAudit(Base):
    """Who or what did what to which session, when, with the facts it acted on. Append-only: a trigger refuses the rest.

    One request for a stop is there once for each session, whoever has written it.
    """

    __tablename__ = "monitoring_audit"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    actor: Mapped[str]
    action: Mapped[str]
    session_id: Mapped[UUID | None]
    variant_id: Mapped[str | None]
    request_id: Mapped[UUID | None]
    facts: Mapped[dict[str, Any]] = mapped_column(server_default=_EMPTY)

    __table_args__ = (
        Index(None, "session_id"),
        Index(None, "variant_id"),
        Index(None, "at"),
        Index("monitoring_audit_stop_request_key", "session_id", "request_id", unique=True, postgresql_where=text("action = 'stop_requested'")),
    )


class OutboundCall(Base):
    """One HTTP call that tells another system of a kill, or of its undoing; written in the same transaction, sent until it is answered.

    ``pending`` calls are sent when ``next_attempt_at`` comes, one at a time for each variant, in the order of ``id``; whoever sends one
    holds it until ``leased_until``. ``target`` is for people and for the key: where a call goes, the settings of the sender say.
    """

    __tablename__ = "outbound_call"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    idempotency_key: Mapped[UUID]
    event: Mapped[str]
    kill_id: Mapped[UUID]
    session_id: Mapped[UUID]
    variant_id: Mapped[str]
    target: Mapped[str]
    body: Mapped[str]
    state: Mapped[str] = mapped_column(server_default=text("'pending'"))
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    pending_since: Mapped[datetime] = mapped_column(server_default=_NOW)
    next_attempt_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    lease: Mapped[UUID | None]
    leased_until: Mapped[datetime | None]
    last_status: Mapped[int | None]
    last_error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        UniqueConstraint("idempotency_key"),
        CheckConstraint("event IN ('variant_killed', 'variant_revived')", name="event"),
        CheckConstraint("state IN ('pending', 'confirmed', 'given_up', 'withdrawn')", name="state"),
        CheckConstraint("(finished_at IS NULL) = (state = 'pending')", name="finished_at"),
        CheckConstraint("(lease IS NULL) = (leased_until IS NULL)", name="lease"),
        Index("outbound_call_variant_id_idx", "variant_id", "id"),
        Index("outbound_call_due_idx", "next_attempt_at", "id", postgresql_where=text("state = 'pending'")),
        Index("outbound_call_given_up_idx", "id", postgresql_where=text("state = 'given_up'")),
        Index("outbound_call_finished_at_idx", "finished_at", postgresql_where=text("state <> 'pending'")),
    )

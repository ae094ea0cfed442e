"""Writes a batch of monitoring records, with all that they entail, in one transaction. No Kafka, no retries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from models.moments import format_moment
from models.monitoring_record import MonitoringRecord
from streams.audit import AuditEntry, add_entries
from streams.cleanup import Cleaned, Kill, clean_up
from streams.crash_points import crash_point
from streams.outbound.messages import killed_call
from streams.outbound.pending import add_calls


@dataclass(frozen=True, slots=True)
class Persisted:
    """What a batch changed; all zero for a repetition.

    Attributes:
        started: Sessions that are new, whether their start or their end was seen first.
        killed: Sessions that ended so, as ``timed_out`` and ``stopped``.
        variants_killed: Rows of the pool that went from active to killed.
        posts_cancelled: Posts that will not go out.
    """

    started: int = 0
    killed: int = 0
    timed_out: int = 0
    stopped: int = 0
    variants_killed: int = 0
    posts_cancelled: int = 0

    def __add__(self, other: Persisted) -> Persisted:
        return Persisted(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


# Inserts sessions and ends those that are active; the first end wins. Rows are locked in the order of their ids, so that two sinks
# can't wait for each other. Returns what this transaction changed, and only that; xmax is 0 in a row that was inserted.
_WRITE_SESSIONS = text("""
INSERT INTO variant_monitoring AS v (
    session_id, variant_id, persona_id, post_id, expected_engagement_rate, kill_threshold, min_interactions, timeout_minutes, started_at, ended_at,
    is_active, was_killed, outcome, kill_reason, final_engagement_rate, final_interaction_count, final_view_count, monitoring_metadata
)
SELECT
    r.session_id, r.variant_id, r.persona_id, r.post_id, r.expected_engagement_rate, r.kill_threshold, r.min_interactions, r.timeout_minutes, r.started_at, r.ended_at,
    r.outcome IS NULL, coalesce(r.outcome = 'killed', false), r.outcome, r.kill_reason, r.final_engagement_rate, r.final_interaction_count, r.final_view_count,
    r.monitoring_metadata
FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (
    session_id uuid, variant_id text, persona_id text, post_id text, expected_engagement_rate float8, kill_threshold float8, min_interactions bigint,
    timeout_minutes float8, started_at timestamptz, ended_at timestamptz, outcome text, kill_reason text, final_engagement_rate float8,
    final_interaction_count bigint, final_view_count bigint, monitoring_metadata jsonb
)
ORDER BY r.session_id
ON CONFLICT (session_id) DO UPDATE SET
    ended_at = excluded.ended_at, is_active = false, was_killed = excluded.was_killed, outcome = excluded.outcome, kill_reason = excluded.kill_reason,
    final_engagement_rate = excluded.final_engagement_rate, final_interaction_count = excluded.final_interaction_count, final_view_count = excluded.final_view_count,
    monitoring_metadata = v.monitoring_metadata || excluded.monitoring_metadata, updated_at = now()
WHERE v.is_active AND NOT excluded.is_active
RETURNING session_id, outcome IS NOT NULL AS is_ended, xmax = 0 AS is_new
""")

_COLUMNS = (
    "session_id",
    "variant_id",
    "persona_id",
    "post_id",
    "expected_engagement_rate",
    "kill_threshold",
    "min_interactions",
    "timeout_minutes",
    "outcome",
    "kill_reason",
    "final_engagement_rate",
    "final_interaction_count",
    "final_view_count",
)


async def persist(engine: AsyncEngine, records: Sequence[MonitoringRecord], target: str | None = None) -> Persisted:
    """Write the batch: sessions, the cleanup of those that this transaction ended as killed, the audit. All of it or nothing.

    A repetition, of the batch or within it, changes nothing. Of several ends of one session the first counts, in the database or else
    in the batch. An end may come before its start.

    Args:
        engine: Where to.
        records: In their order.
        target: Name of another system that is to be told of the kills, if there is one.

    Raises:
        SQLAlchemyError, OSError: ``streams.database.classify`` says what it asks for.
    """
    sessions = _by_session(records)
    if not sessions:
        return Persisted()
    crash_point("before_begin")
    async with engine.begin() as connection:
        written = (await connection.execute(_WRITE_SESSIONS, {"rows": msgspec.json.encode([_row(records) for records in sessions.values()]).decode()})).all()
        crash_point("after_sessions_statement")
        changed = {row.session_id: row for row in written}
        started = [session for session in sessions if session in changed and changed[session].is_new]
        ends = [sessions[session][-1] for session in sessions if session in changed and changed[session].is_ended]
        await add_entries(connection, [*map(_start_entry, (sessions[session][0] for session in started)), *_stop_entries(ends), *map(_end_entry, ends)])
        crash_point("after_audit_statement")
        kills = _in_order(ends, records)
        cleaned = await clean_up(connection, [_kill(end) for end in kills])
        if target is not None:
            await add_calls(connection, [killed_call(end, target) for end in kills])
        crash_point("before_commit")
    crash_point("after_commit")
    return _count(len(started), ends, cleaned)


def _by_session(records: Iterable[MonitoringRecord]) -> dict[UUID, list[MonitoringRecord]]:
    """At most two records of each session: the first start, and after it the first end."""
    starts: dict[UUID, MonitoringRecord] = {}
    ends: dict[UUID, MonitoringRecord] = {}
    for record in records:
        (starts if record.outcome is None else ends).setdefault(record.session_id, record)
    return {session: [found[session] for found in (starts, ends) if session in found] for session in starts | ends}


def _in_order(ends: Iterable[MonitoringRecord], records: Iterable[MonitoringRecord]) -> list[MonitoringRecord]:
    """The kills among the ends, as they came: the first of a variant gives its id to the pool's row."""
    kills = {end.session_id: end for end in ends if end.was_killed}
    return [record for record in records if kills.get(record.session_id) is record]


def _row(records: Sequence[MonitoringRecord]) -> dict[str, Any]:
    last = records[-1]
    row: dict[str, Any] = {name: getattr(last, name) for name in _COLUMNS}
    row["started_at"] = format_moment(last.started_at_us)
    row["ended_at"] = None if last.ended_at_us is None else format_moment(last.ended_at_us)
    metadata: dict[str, Any] = {}
    for record in records:
        metadata |= record.monitoring_metadata
    row["monitoring_metadata"] = metadata | _decision(last)
    return row


def _decision(record: MonitoringRecord) -> dict[str, Any]:
    """What else is known of an end, and has no column."""
    decided = {} if record.decided_at_us is None else {"decided_at": format_moment(record.decided_at_us)}
    return decided if record.kill_id is None else {**decided, "kill_id": record.kill_id}


def _start_entry(record: MonitoringRecord) -> AuditEntry:
    facts = {
        "record_id": record.record_id,
        "persona_id": record.persona_id,
        "post_id": record.post_id,
        "started_at": format_moment(record.started_at_us),
        "policy": record.policy,
        "expected_engagement_rate": record.expected_engagement_rate,
        "kill_threshold": record.kill_threshold,
        "min_interactions": record.min_interactions,
        "timeout_minutes": record.timeout_minutes,
    }
    return AuditEntry(actor="monitor", action="session_started", session_id=record.session_id, variant_id=record.variant_id, facts=facts)


def _stop_entries(ends: Iterable[MonitoringRecord]) -> Iterator[AuditEntry]:
    """What the API writes of a stop as it is asked for, for the case that its worker died before it had."""
    for end in ends:
        request, at = end.stop_request, end.ended_at_us
        if request is not None and at is not None:
            yield AuditEntry(
                actor=request.requested_by,
                action="stop_requested",
                session_id=end.session_id,
                variant_id=end.variant_id,
                request_id=UUID(request.request_id),
                facts={"post_id": end.post_id},
                at=format_moment(at),
            )


def _end_entry(record: MonitoringRecord) -> AuditEntry:
    facts = {
        "record_id": record.record_id,
        "outcome": record.outcome,
        "reason": record.kill_reason,
        "ended_at": None if record.ended_at_us is None else format_moment(record.ended_at_us),
        "final_engagement_rate": record.final_engagement_rate,
        "final_interaction_count": record.final_interaction_count,
        "final_view_count": record.final_view_count,
        **record.decided_on,
        **_decision(record),
    }
    return AuditEntry(actor="monitor", action="session_ended", session_id=record.session_id, variant_id=record.variant_id, facts=facts)


def _kill(record: MonitoringRecord) -> Kill:
    if record.kill_id is None or record.kill_reason is None or record.decided_at_us is None:
        raise ValueError(f"record {record.record_id} is a kill without its id, reason or moment")  # parse lets none through
    return Kill(kill_id=record.kill_id, session_id=record.session_id, variant_id=record.variant_id, reason=record.kill_reason, killed_at=format_moment(record.decided_at_us))


def _count(started: int, ends: Sequence[MonitoringRecord], cleaned: Cleaned) -> Persisted:
    outcomes = [end.outcome for end in ends]
    return Persisted(started, outcomes.count("killed"), outcomes.count("timed_out"), outcomes.count("stopped"), cleaned.variants, cleaned.posts)

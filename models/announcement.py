"""What the world is told of a session: the kill event, and the record of its start or end."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from models import ids
from models.moments import SECOND, format_moment
from models.monitoring_record import Kind, MonitoringRecord
from models.session import End, Origin, Outcome, Session


def kill_event(session: Session) -> dict[str, Any]:
    """Return the value of the ``variant_killed`` record of a killed ``session``. Source: contract, section 2."""
    end, policy, counts = _end(session), session.policy, session.counts
    if end.origin is None:
        raise ValueError("the session was not killed")
    return {
        "schema_version": 1,
        "kill_id": str(ids.kill_id(session.id)),
        "session_id": str(session.id),
        "variant_id": session.variant_id,
        "persona_id": session.persona_id,
        "post_id": session.post_id,
        "reason": end.reason,
        "policy": policy.rule,
        "expected_engagement_rate": policy.expected_engagement_rate,
        "kill_threshold": policy.kill_threshold,
        "min_interactions": policy.min_interactions,
        "final_engagement_rate": counts.rate,
        "final_interaction_count": counts.interactions,
        "final_view_count": counts.views,
        "counts": counts.by_kind(),
        "posted_at": format_moment(session.posted_at),
        "decided_at": format_moment(end.decided_at),
        "deciding_event": _deciding_event(end.origin),
        "time_to_kill_seconds": (end.origin.occurred_at - session.posted_at) / SECOND,
    }


def start_record(session: Session) -> MonitoringRecord:
    """Return the ``monitoring_record`` of the session's start."""
    return _record(session, "started", {"policy": session.policy.rule, "source": session.source, "event_metadata": session.metadata}, None)


def end_record(session: Session) -> MonitoringRecord:
    """Return the ``monitoring_record`` of the session's end."""
    end = _end(session)
    metadata = {
        "policy": session.policy.rule,
        "counts": session.counts.by_kind(),
        "deciding_event": _deciding_event(end.origin) if end.origin else None,
        "source": session.source,
        "event_metadata": session.metadata,
    }
    if end.request is not None:
        metadata["stop_request"] = asdict(end.request)
    return _record(session, end.outcome.value, metadata, end)


def _end(session: Session) -> End:
    if session.end is None:
        raise ValueError("the session has not ended")
    return session.end


def _deciding_event(origin: Origin) -> dict[str, Any]:
    return {"topic": origin.topic, "partition": origin.partition, "offset": origin.offset, "occurred_at": format_moment(origin.occurred_at)}


def _record(session: Session, kind: Kind, metadata: dict[str, Any], end: End | None) -> MonitoringRecord:
    session_id = session.id
    return MonitoringRecord(
        record_id=ids.record_id(session_id, kind),
        session_id=session_id,
        kind=kind,
        variant_id=session.variant_id,
        persona_id=session.persona_id,
        post_id=session.post_id,
        expected_engagement_rate=session.policy.expected_engagement_rate,
        kill_threshold=session.policy.kill_threshold,
        min_interactions=session.policy.min_interactions,
        timeout_minutes=session.policy.timeout_minutes,
        policy=session.policy.rule,
        started_at_us=session.posted_at,
        ended_at_us=end.ended_at if end else None,
        kill_reason=end.reason if end else None,
        final_engagement_rate=session.counts.rate if end else None,
        final_interaction_count=session.counts.interactions if end else None,
        final_view_count=session.counts.views if end else None,
        kill_id=ids.kill_id(session_id) if end is not None and end.outcome is Outcome.KILLED else None,
        decided_at_us=end.decided_at if end else None,
        monitoring_metadata=metadata,
    )

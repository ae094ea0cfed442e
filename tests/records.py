"""Monitoring records for tests to which it does not matter which they are."""

from __future__ import annotations

from models import ids
from models.monitoring_record import MonitoringRecord


def start_of(variant_id: str, post_id: str = "p", started_at_us: int = 0) -> MonitoringRecord:
    """The start of a session."""
    session = ids.session_id(variant_id, post_id)
    return MonitoringRecord(
        record_id=ids.record_id(session, "started"),
        session_id=session,
        kind="started",
        variant_id=variant_id,
        persona_id="anna",
        post_id=post_id,
        expected_engagement_rate=0.06,
        kill_threshold=0.5,
        min_interactions=10,
        timeout_minutes=10.0,
        policy="ratio",
        started_at_us=started_at_us,
        monitoring_metadata={},
    )

"""Records for tests to which it does not matter which they are."""

from __future__ import annotations

import uuid
from typing import Any

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


def kill_of(number: int, **more: Any) -> dict[str, Any]:
    """A kill event as the contract has it; its ids tell the number."""
    moment = "2026-01-01T00:00:00.000001Z"
    return {
        "schema_version": 1,
        "kill_id": str(uuid.UUID(int=number)),
        "session_id": str(uuid.UUID(int=1_000_000 + number)),
        "variant_id": f"v-{number}",
        "persona_id": "p",
        "post_id": f"post-{number}",
        "reason": "Below 50% of expected engagement rate",
        "policy": "ratio",
        "expected_engagement_rate": 0.06,
        "kill_threshold": 0.5,
        "min_interactions": 10,
        "final_engagement_rate": 0.02,
        "final_interaction_count": 10,
        "final_view_count": 500,
        "counts": {"view": 500, "like": 10},
        "posted_at": moment,
        "decided_at": moment,
        "deciding_event": {"topic": "interaction", "partition": 0, "offset": 7, "occurred_at": moment},
        "time_to_kill_seconds": 12.5,
        **more,
    }

"""A session as the API shows it: live, or from its record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.moments import format_moment
from models.views import SessionFacts, SessionRecord, SessionView

Shown = dict[str, Any]


def show_live(view: SessionView, now_us: int) -> Shown:
    """Show a session as its owner holds it at ``now_us``."""
    return {
        **_identity(view),
        "deadline": format_moment(view.deadline_us),
        "view_count": view.view_count,
        "interaction_count": view.interaction_count,
        "engagement_rate": view.engagement_rate,
        "kill_rate": view.kill_rate,
        "counts": dict(view.counts),
        "live": True,
        "as_of": format_moment(now_us),
    }


def show_recorded(record: SessionRecord) -> Shown:
    """Show a session as the database holds it; of an active one the counts are not known there (null)."""
    return {
        **_identity(record),
        "deadline": format_moment(record.deadline_us),
        "view_count": record.final_view_count,
        "interaction_count": record.final_interaction_count,
        "engagement_rate": record.final_engagement_rate,
        "kill_rate": record.kill_threshold * record.expected_engagement_rate,
        "counts": None if record.counts is None else dict(record.counts),
        "live": False,
        "as_of": format_moment(record.updated_at_us),
    }


def _identity(session: SessionFacts) -> Shown:
    return {
        "variant_id": session.variant_id,
        "persona_id": session.persona_id,
        "post_id": session.post_id,
        "session_id": session.session_id,
        "is_active": session.is_active,
        "outcome": session.outcome,
        "started_at": format_moment(session.started_at_us),
        "ended_at": None if session.ended_at_us is None else format_moment(session.ended_at_us),
        "was_killed": session.was_killed,
        "kill_reason": session.kill_reason,
        "policy": session.policy,
        "expected_engagement_rate": session.expected_engagement_rate,
        "kill_threshold": session.kill_threshold,
        "min_interactions": session.min_interactions,
        "timeout_minutes": session.timeout_minutes,
        "final_engagement_rate": session.final_engagement_rate,
        "final_interaction_count": session.final_interaction_count,
        "final_view_count": session.final_view_count,
    }


def view_from(wire: Mapping[str, Any]) -> SessionView:
    """Return the view that another worker sent with ``dataclasses.asdict``; unknown fields of a newer one are ignored.

    Raises:
        TypeError: A field is missing.
    """
    return SessionView(**{name: wire[name] for name in SessionView.__dataclass_fields__ if name in wire})

"""What people and programs see of a session while it lives in a worker."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SessionView:
    """One session at one moment. Moments (``_us``) are microseconds since the epoch, rates interactions per view."""

    session_id: str
    variant_id: str
    persona_id: str
    post_id: str
    partition: int
    is_active: bool
    outcome: str | None
    started_at_us: int
    ended_at_us: int | None
    deadline_us: int
    was_killed: bool
    kill_reason: str | None
    policy: str
    expected_engagement_rate: float
    kill_threshold: float
    min_interactions: int
    timeout_minutes: float
    view_count: int
    interaction_count: int
    engagement_rate: float | None
    kill_rate: float
    counts: dict[str, int]
    final_engagement_rate: float | None
    final_interaction_count: int | None
    final_view_count: int | None

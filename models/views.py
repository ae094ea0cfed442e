"""What people and programs see of a session: as a worker holds it, and as the database does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from models.moments import minutes

Place = tuple[int, str]
"""Where a session stands in a list that is newest first: (started_at in microseconds, session_id)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFacts:
    """What both say. Moments (``_us``) are microseconds since the epoch, rates interactions per view."""

    session_id: str
    variant_id: str
    persona_id: str
    post_id: str
    is_active: bool
    outcome: str | None
    started_at_us: int
    ended_at_us: int | None
    was_killed: bool
    kill_reason: str | None
    policy: str
    expected_engagement_rate: float
    kill_threshold: float
    min_interactions: int
    timeout_minutes: float
    final_engagement_rate: float | None
    final_interaction_count: int | None
    final_view_count: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionView(SessionFacts):
    """One session at one moment, as its worker holds it.

    Attributes:
        posted_offset: Of the ``variant_posted`` record that began it; None if its worker does not say, as earlier versions do not.
    """

    partition: int
    deadline_us: int
    view_count: int
    interaction_count: int
    engagement_rate: float | None
    kill_rate: float
    counts: Mapping[str, int]
    posted_offset: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord(SessionFacts):
    """A session as the database holds it, since ``updated_at_us``; counts are known only after the end."""

    counts: Mapping[str, int] | None
    updated_at_us: int

    @property
    def deadline_us(self) -> int:
        """When the monitoring window closes, exclusive."""
        return self.started_at_us + minutes(self.timeout_minutes)


def place_of(session: SessionFacts) -> Place:
    """Return where a session stands in a list that is newest first."""
    return session.started_at_us, session.session_id

"""One session: the monitoring of one posting, from its ``variant_posted`` to its one end."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from models import ids
from models.duplicates import EventIds
from models.engagement import Engagement
from models.events import Interaction, Posting
from models.moments import DAY
from models.policy import Policy
from models.rules import RULES, Kill, Rule
from models.stop_request import StopRequest
from models.views import SessionView


class Outcome(StrEnum):
    """How a session ended."""

    KILLED = "killed"
    TIMED_OUT = "timed_out"
    STOPPED = "stopped"


class Result(StrEnum):
    """What became of a record; each record read has exactly one. Source: contract, section 6."""

    COUNTED = "counted"
    DUPLICATE = "duplicate"
    REDELIVERED = "redelivered"
    EARLY = "early"
    LATE = "late"
    AFTER_END = "after_end"
    WAITING = "waiting"
    DEAD_LETTER = "dead_letter"


@dataclass(frozen=True, slots=True)
class Origin:
    """The record that decided, and the moment it tells of (microseconds since the epoch)."""

    topic: str
    partition: int
    offset: int
    occurred_at: int


@dataclass(frozen=True, slots=True)
class End:
    """How, when (event time) and why a session ended, and on whose request; ``decided_at`` is wall clock. All in microseconds since the epoch."""

    outcome: Outcome
    reason: str
    ended_at: int
    decided_at: int
    origin: Origin | None = None
    label: str = ""
    request: StopRequest | None = None


@dataclass(slots=True, eq=False)
class Session:
    """The state of one session. It is told what happened and answers what follows; it performs nothing.

    Attributes:
        posted_offset: Offset of the ``variant_posted`` record that started it.
        applied: Interactions up to this offset have had their effect on it; they are not folded again.
        floor: Records without ``post_id`` up to this offset were another session's, if one took them.
        start_pending: Its start has not been acknowledged on ``monitoring_record`` yet.
        end_pending: Likewise its end.
        is_end_durable: Its end will not be decided otherwise any more; until then nobody is told of it.
        older: The next session of the same variant in its partition, in no order that matters.
        is_changed: Its state has changed since it was last written down.
        rule: Judges its counts; the one that ``policy`` names.
    """

    variant_id: str
    persona_id: str
    post_id: str
    policy: Policy
    posted_at: int
    deadline: int
    posted_offset: int
    applied: int
    floor: int
    counts: Engagement = field(default_factory=Engagement)
    event_ids: EventIds | None = None
    end: End | None = None
    start_pending: bool = True
    end_pending: bool = False
    is_end_durable: bool = False
    source: str | None = None
    metadata: dict[str, Any] | None = None
    older: Session | None = field(default=None, repr=False)
    is_changed: bool = False
    rule: Rule = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.rule = RULES[self.policy.rule]

    @classmethod
    def start(cls, posting: Posting, offset: int, applied: int, floor: int) -> Session:
        """Begin the session of ``posting``, read at ``offset``."""
        return cls(
            variant_id=posting.variant_id,
            persona_id=posting.persona_id,
            post_id=posting.post_id,
            policy=posting.policy,
            posted_at=posting.posted_at,
            deadline=posting.posted_at + posting.policy.timeout,
            posted_offset=offset,
            applied=applied,
            floor=floor,
            source=posting.source,
            metadata=posting.metadata,
        )

    @property
    def id(self) -> uuid.UUID:
        """The session's id, worked out each time."""
        return ids.session_id(self.variant_id, self.post_id)

    @property
    def forget_at(self) -> int:
        """Its state is needed until everything appended before this moment has been read."""
        return self.deadline + DAY

    def holds(self, moment: int) -> bool:
        """Tell whether ``moment`` lies in the window; the deadline itself does not."""
        return self.posted_at <= moment < self.deadline

    def shares_moments_with(self, other: Session) -> bool:
        """Tell whether some moment lies in both windows."""
        return self.posted_at < other.deadline and other.posted_at < self.deadline

    def count(self, event: Interaction, offset: int, append_us: int, origin_topic: str, partition: int, now: int, grace: int) -> Result:
        """Fold one interaction, and ask the rule if it counted.

        Args:
            event: What happened.
            offset: Its record's offset. Whether it was folded before is the caller's to check, against ``applied``.
            append_us: Its record's append time.
            origin_topic: Name of its topic.
            partition: Its partition.
            now: Wall clock.
            grace: How long after the deadline a record may still be appended.

        Returns:
            What became of it. After ``COUNTED`` the caller looks at ``end``.
        """
        moment = event.occurred_at
        missed = self._missed(moment, append_us, grace)
        if missed is not None:
            return missed
        if event.event_id is not None and not self.reserve(ids.event_hash(event.event_id)):
            return Result.DUPLICATE
        if event.totals is None:
            self.counts.add(event.kind, event.count)
        else:
            self.counts.raise_to(event.totals)
        if offset > self.applied:  # noqa: PLR1730 - max() would cost every record a call
            self.applied = offset
        self.judge(Origin(origin_topic, partition, offset, moment), now)
        return Result.COUNTED

    def reserve(self, value: int) -> bool:
        """Remember the hash of an event id that counts; False if it has counted before."""
        if self.event_ids is None:
            self.event_ids = EventIds()
        return self.event_ids.reserve(value)

    def judge(self, origin: Origin, now: int) -> None:
        """Ask the rule, after the event at ``origin`` has counted, and end the session if it says so; ``now`` is wall clock."""
        verdict = self.rule(self.counts, self.policy)
        if isinstance(verdict, Kill):
            self.finish(End(Outcome.KILLED, verdict.reason, origin.occurred_at, now, origin, verdict.label))

    def _missed(self, moment: int, append_us: int, grace: int) -> Result | None:
        """Say why an event cannot count; None if it may. A session that timed out still tells early and late events apart."""
        end = self.end
        if end is not None and end.outcome is not Outcome.TIMED_OUT:
            return Result.AFTER_END
        if moment < self.posted_at:
            return Result.EARLY
        if moment >= self.deadline or append_us >= self.deadline + grace:
            return Result.LATE
        return None if end is None else Result.AFTER_END

    def finish(self, end: End) -> None:
        """End the session; counts freeze."""
        self.end = end
        self.end_pending = True

    @property
    def told_end(self) -> End | None:
        """Its end, as far as anybody may know of it."""
        return self.end if self.is_end_durable else None

    def view(self, partition: int) -> SessionView:
        """Show the session as it stands, as far as anybody may know."""
        end, counts, policy = self.told_end, self.counts, self.policy
        killed = end is not None and end.outcome is Outcome.KILLED
        return SessionView(
            session_id=str(self.id),
            variant_id=self.variant_id,
            persona_id=self.persona_id,
            post_id=self.post_id,
            partition=partition,
            is_active=end is None,
            outcome=end.outcome.value if end else None,
            started_at_us=self.posted_at,
            ended_at_us=end.ended_at if end else None,
            deadline_us=self.deadline,
            was_killed=killed,
            kill_reason=end.reason if end else None,
            policy=policy.rule,
            expected_engagement_rate=policy.expected_engagement_rate,
            kill_threshold=policy.kill_threshold,
            min_interactions=policy.min_interactions,
            timeout_minutes=policy.timeout_minutes,
            view_count=counts.views,
            interaction_count=counts.interactions,
            engagement_rate=counts.rate,
            kill_rate=policy.kill_rate,
            counts=counts.by_kind(),
            posted_offset=self.posted_offset,
            final_engagement_rate=counts.rate if end else None,
            final_interaction_count=counts.interactions if end else None,
            final_view_count=counts.views if end else None,
        )

"""The ports in memory: one little world of sessions that several workers share, for tests and trying out the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from models.engagement import KINDS
from models.errors import NotKilled, Retry, Stop
from models.ids import session_id
from models.moments import minutes
from models.views import Place, SessionFacts, SessionRecord, SessionView, place_of
from streams.web.ports import SessionFilter


def view(variant_id: str, post_id: str = "post", *, partition: int = 0, started_at_us: int = 1_764_000_000_000_000, views: int = 0, likes: int = 0, **changes: Any) -> SessionView:
    """Return an active session with the contract's defaults; ``changes`` replace fields."""
    made = SessionView(
        session_id=str(session_id(variant_id, post_id)),
        variant_id=variant_id,
        persona_id="persona",
        post_id=post_id,
        partition=partition,
        is_active=True,
        outcome=None,
        started_at_us=started_at_us,
        ended_at_us=None,
        deadline_us=started_at_us + minutes(10),
        was_killed=False,
        kill_reason=None,
        policy="ratio",
        expected_engagement_rate=0.06,
        kill_threshold=0.5,
        min_interactions=10,
        timeout_minutes=10.0,
        view_count=views,
        interaction_count=likes,
        engagement_rate=likes / views if views else None,
        kill_rate=0.03,
        counts={**dict.fromkeys(KINDS, 0), "view": views, "like": likes},
        final_engagement_rate=None,
        final_interaction_count=None,
        final_view_count=None,
    )
    return replace(made, **changes)


def ended(session: SessionView, outcome: str, reason: str, ended_at_us: int) -> SessionView:
    """Return the session with its end."""
    return replace(
        session,
        is_active=False,
        outcome=outcome,
        was_killed=outcome == "killed",
        kill_reason=reason,
        ended_at_us=ended_at_us,
        final_engagement_rate=session.engagement_rate,
        final_interaction_count=session.interaction_count,
        final_view_count=session.view_count,
    )


def recorded(session: SessionView, updated_at_us: int = 1_764_000_300_000_000) -> SessionRecord:
    """Return the record that the sink would have written of this session."""
    facts = {name: getattr(session, name) for name in SessionFacts.__dataclass_fields__}
    return SessionRecord(**facts, counts=None if session.is_active else session.counts, updated_at_us=updated_at_us)


class MemoryLive:
    """``LiveSessions`` of one worker. Set its attributes as the test's story goes."""

    def __init__(self, assigned: list[int] | None = None) -> None:
        self.sessions: dict[str, SessionView] = {}
        self.partitions = [0, 1, 2, 3] if assigned is None else assigned
        self.recovering = False
        self.owner_urls: dict[int, str] = {}
        self.worker_urls: list[str] = []

    def put(self, session: SessionView) -> None:
        """Hold this session, in place of an earlier state of it."""
        self.sessions[session.session_id] = session

    def sessions_of(self, variant_id: str) -> list[SessionView]:
        """Return the variant's sessions, posted last first."""
        return sorted((session for session in self.sessions.values() if session.variant_id == variant_id), key=place_of, reverse=True)

    def active(self, limit: int, after: Place | None) -> list[SessionView]:
        """Return a page of active sessions, newest first."""
        found = [session for session in self.sessions.values() if session.is_active and (after is None or place_of(session) < after)]
        return sorted(found, key=place_of, reverse=True)[:limit]

    def active_count(self) -> int:
        """Return how many are active."""
        return sum(session.is_active for session in self.sessions.values())

    def assigned(self) -> list[int]:
        """Return the partitions owned now."""
        return list(self.partitions)

    def is_recovering(self) -> bool:
        """Say whether state is still being restored."""
        return self.recovering

    def owners(self) -> dict[int, str]:
        """Return each partition's owner."""
        return dict(self.owner_urls)

    def peers(self) -> list[str]:
        """Return all workers."""
        return list(self.worker_urls)


class MemoryStore:
    """``StorePort`` in memory; ``is_away`` makes every call fail like a stopped PostgreSQL, ``is_wrong`` like one without the tables."""

    def __init__(self) -> None:
        self.records: dict[str, SessionRecord] = {}
        self.audits: list[dict[str, Any]] = []
        self.killed: dict[str, bool] = {}
        self.is_away = False
        self.is_wrong = False

    def put(self, record: SessionRecord) -> None:
        """Hold this record."""
        self.records[record.session_id] = record

    def _ask(self) -> None:
        if self.is_away:
            raise Retry("PostgreSQL: connection refused")
        if self.is_wrong:
            raise Stop("PostgreSQL: relation does not exist")

    async def latest(self, variant_id: str, post_id: str | None) -> SessionRecord | None:
        """Return the session posted last, or that of ``post_id``."""
        self._ask()
        found = [record for record in self.records.values() if record.variant_id == variant_id and post_id in (None, record.post_id)]
        return max(found, key=place_of, default=None)

    async def sessions(self, wanted: SessionFilter, limit: int, after: Place | None) -> list[SessionRecord]:
        """Return a page of records, newest first."""
        self._ask()
        found = [
            record
            for record in self.records.values()
            if wanted.variant_id in (None, record.variant_id)
            and wanted.persona_id in (None, record.persona_id)
            and (wanted.outcome in (None, record.outcome) or (wanted.outcome == "active" and record.is_active))
            and (after is None or place_of(record) < after)
        ]
        return sorted(found, key=place_of, reverse=True)[:limit]

    async def ping(self) -> None:
        """Return unless it is away."""
        self._ask()

    async def revive(self, variant_id: str, *, actor: str, request_id: str, is_key: bool = False) -> Mapping[str, Any]:  # noqa: ARG002 - keys are for a database to remember
        """Undo a kill of ``killed``."""
        self._ask()
        if variant_id not in self.killed:
            raise LookupError(variant_id)
        if not self.killed[variant_id]:
            raise NotKilled("the variant is not killed")
        self.killed[variant_id] = False
        await self.audit(actor=actor, action="variant_revived", session_id=None, variant_id=variant_id, request_id=request_id, facts={})
        return {"kill_id": None, "in_pool": True, "posts_restored": [], "posts_passed": 0}

    async def audit(self, *, actor: str, action: str, session_id: str | None, variant_id: str | None, request_id: str, facts: Mapping[str, Any]) -> None:
        """Keep an audit row."""
        self._ask()
        self.audits.append({"actor": actor, "action": action, "session_id": session_id, "variant_id": variant_id, "request_id": request_id, "facts": dict(facts)})


class MemoryPublish:
    """``PublishPort`` that hands messages to the test's stand-in for the monitor; ``is_away`` makes it fail like a stopped Kafka."""

    def __init__(
        self, on_posted: Callable[[dict[str, Any], int], None] = lambda _message, _offset: None, on_stop: Callable[[str, str | None], None] = lambda _variant, _post: None
    ) -> None:
        self.posted: list[dict[str, Any]] = []
        self.stops: list[dict[str, Any]] = []
        self.on_posted = on_posted
        self.on_stop = on_stop
        self.is_away = False

    async def publish_posted(self, message: dict[str, Any]) -> int | None:
        """Publish a ``variant_posted``; its offset is how many there were."""
        if self.is_away:
            raise Retry("no broker answers")
        offset = len(self.posted)
        self.posted.append(message)
        self.on_posted(message, offset)
        return offset

    async def publish_stop(self, variant_id: str, post_id: str | None, partition: int, request_id: str, requested_by: str) -> None:
        """Publish a stop."""
        if self.is_away:
            raise Retry("no broker answers")
        self.stops.append({"variant_id": variant_id, "post_id": post_id, "partition": partition, "request_id": request_id, "requested_by": requested_by})
        self.on_stop(variant_id, post_id)

"""``StorePort`` on PostgreSQL. It is given the database's own functions, so that this package needs none of their modules."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any, Protocol
from uuid import UUID

from streams.web.inputs import to_cursor
from streams.web.ports import Place, Recorded, SessionFilter


class Reads(Protocol):
    """What ``streams.store.Store`` offers. Its cursors are those of ``inputs.to_cursor``."""

    async def latest_session(self, variant_id: str, post_id: str | None = None) -> Any | None:
        """Return the session posted last, or that of ``post_id``."""

    async def sessions(self, *, variant_id: str | None, persona_id: str | None, outcome: str | None, limit: int, cursor: str | None) -> Any:
        """Return a page with ``items``."""


class Database:
    """The database as the API needs it.

    Args:
        reads: ``Store(engine)``.
        ping: ``partial(ping, engine)``.
        revive: ``partial(revive, engine)`` of ``streams.cleanup``.
        audit: ``partial(audit, engine)`` of ``streams.audit``.
        now_us: The wall clock, in microseconds since the epoch.
    """

    def __init__(
        self, *, reads: Reads, ping: Callable[[], Awaitable[None]], revive: Callable[..., Awaitable[Any]], audit: Callable[..., Awaitable[None]], now_us: Callable[[], int]
    ) -> None:
        self._reads = reads
        self._ping = ping
        self._revive = revive
        self._audit = audit
        self._now_us = now_us

    async def latest(self, variant_id: str, post_id: str | None) -> Recorded | None:
        """Return the variant's session that was posted last, or that of ``post_id``."""
        row = await self._reads.latest_session(variant_id, post_id)
        return None if row is None else _recorded(row)

    async def sessions(self, wanted: SessionFilter, limit: int, after: Place | None) -> list[Recorded]:
        """Return at most ``limit`` sessions, newest first, strictly after that place."""
        page = await self._reads.sessions(**asdict(wanted), limit=limit, cursor=None if after is None else to_cursor(after))
        return [_recorded(row) for row in page.items]

    async def ping(self) -> None:
        """Return if the database answers."""
        await self._ping()

    async def revive(self, variant_id: str, *, actor: str, request_id: str) -> Mapping[str, Any]:
        """Undo a kill and return what was restored; errors as ``StorePort``."""
        revived = await self._revive(variant_id, actor=actor, request_id=UUID(request_id), now_us=self._now_us())
        return {
            "kill_id": None if revived.kill_id is None else str(revived.kill_id),
            "in_pool": revived.is_in_pool,
            "posts_restored": list(revived.posts),
            "posts_passed": revived.posts_passed,
        }

    async def audit(self, *, actor: str, action: str, session_id: str | None, variant_id: str | None, request_id: str, facts: Mapping[str, Any]) -> None:
        """Add a row to the audit trail."""
        session = None if session_id is None else UUID(session_id)
        await self._audit(actor=actor, action=action, now_us=self._now_us(), variant_id=variant_id, session_id=session, request_id=UUID(request_id), facts=facts)


def _recorded(row: Any) -> Recorded:
    metadata = row.monitoring_metadata or {}
    counts = metadata.get("counts")
    return Recorded(
        session_id=row.session_id,
        variant_id=row.variant_id,
        persona_id=row.persona_id,
        post_id=row.post_id,
        is_active=row.is_active,
        outcome=row.outcome,
        started_at_us=row.started_at_us,
        ended_at_us=row.ended_at_us,
        was_killed=row.was_killed,
        kill_reason=row.kill_reason,
        policy=metadata.get("policy", "ratio"),
        expected_engagement_rate=row.expected_engagement_rate,
        kill_threshold=row.kill_threshold,
        min_interactions=row.min_interactions,
        timeout_minutes=row.timeout_minutes,
        counts=counts if isinstance(counts, dict) else None,
        final_engagement_rate=row.final_engagement_rate,
        final_interaction_count=row.final_interaction_count,
        final_view_count=row.final_view_count,
        updated_at_us=row.updated_at_us,
    )

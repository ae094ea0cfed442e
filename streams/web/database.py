"""``StorePort`` on PostgreSQL. It is given the database's own functions, so that this package needs none of their modules."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any, Protocol
from uuid import UUID

from models.views import Place, SessionRecord
from streams.web.ports import SessionFilter


class Reads(Protocol):
    """What ``streams.store.Store`` offers."""

    async def latest_session(self, variant_id: str, post_id: str | None = None) -> SessionRecord | None:
        """Return the session posted last, or that of ``post_id``."""

    async def sessions(self, *, variant_id: str | None, persona_id: str | None, outcome: str | None, limit: int, after: Place | None) -> list[SessionRecord]:
        """Return at most ``limit`` sessions, newest first, strictly after that place."""


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

    async def latest(self, variant_id: str, post_id: str | None) -> SessionRecord | None:
        """Return the variant's session that was posted last, or that of ``post_id``."""
        return await self._reads.latest_session(variant_id, post_id)

    async def sessions(self, wanted: SessionFilter, limit: int, after: Place | None) -> list[SessionRecord]:
        """Return at most ``limit`` sessions, newest first, strictly after that place."""
        return await self._reads.sessions(**asdict(wanted), limit=limit, after=after)

    async def ping(self) -> None:
        """Return if the database answers."""
        await self._ping()

    async def revive(self, variant_id: str, *, actor: str, request_id: str, is_key: bool = False) -> Mapping[str, Any]:
        """Undo a kill and return what was restored; errors as ``StorePort``."""
        revived = await self._revive(variant_id, actor=actor, request_id=UUID(request_id), is_key=is_key, now_us=self._now_us())
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

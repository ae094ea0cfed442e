"""What the HTTP API needs of the rest, as Protocols: live sessions, the database, Kafka."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from models.views import Place, SessionRecord, SessionView


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """Which recorded sessions to list; None does not restrict. ``outcome`` may also be ``active``."""

    variant_id: str | None = None
    persona_id: str | None = None
    outcome: str | None = None


class LiveSessions(Protocol):
    """The sessions of the partitions that this worker owns, and who owns the others."""

    def sessions_of(self, variant_id: str) -> list[SessionView]:
        """Return all sessions of the variant that this worker holds, active and ended, posted last first."""

    def active(self, limit: int, after: Place | None) -> list[SessionView]:
        """Return at most ``limit`` active sessions, newest first, strictly after that place."""

    def active_count(self) -> int:
        """Return how many sessions are monitored here."""

    def assigned(self) -> list[int]:
        """Return the partitions owned now."""

    def is_recovering(self) -> bool:
        """Say whether state is still being restored; what is held is not complete then."""

    def owners(self) -> dict[int, str]:
        """Return each partition's owner as the base URL of its API; some may lack during a rebalance."""

    def peers(self) -> list[str]:
        """Return the base URLs of all workers, this one included."""


class StorePort(Protocol):
    """The database. Each call raises ``Retry`` while PostgreSQL is away."""

    async def latest(self, variant_id: str, post_id: str | None) -> SessionRecord | None:
        """Return the variant's session that was posted last, or that of ``post_id``."""

    async def sessions(self, wanted: SessionFilter, limit: int, after: Place | None) -> list[SessionRecord]:
        """Return at most ``limit`` sessions, newest first, strictly after that place."""

    async def ping(self) -> None:
        """Return if the database answers."""

    async def revive(self, variant_id: str, *, actor: str, request_id: str, is_key: bool = False) -> Mapping[str, Any]:
        """Undo a kill and return what was restored; asked again under an id that is a key, return the same again.

        Raises:
            LookupError: There is no such variant.
            NotKilled: It is known, but not killed.
            Reject: The database refuses what a revival would write, by a rule of its own.
        """

    async def audit(self, *, actor: str, action: str, session_id: str | None, variant_id: str | None, request_id: str, facts: Mapping[str, Any]) -> None:
        """Add a row to the audit trail."""


class PublishPort(Protocol):
    """Kafka. Each call returns once Kafka has acknowledged, and raises ``Retry`` when it does not."""

    async def publish_posted(self, message: dict[str, Any]) -> int | None:
        """Publish a ``variant_posted``; returns its offset, if it is there under that one only."""

    async def publish_stop(self, variant_id: str, post_id: str | None, partition: int, request_id: str, requested_by: str) -> None:
        """Publish a stop to ``monitoring_control``, on the session's partition."""

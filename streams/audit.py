"""Rows of ``monitoring_audit``: who or what did what to which session, when, with the facts it acted on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from models.moments import format_moment
from streams.database import explained


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was done.

    Attributes:
        actor: Who or what did it: a part of this system, or the name behind a token.
        action: What was done, in the past tense: ``session_started``, ``session_ended``, ``variant_killed``, ``posts_cancelled``, ``variant_revived``, ``call_confirmed``,
            ``call_given_up``, ``calls_withdrawn``, …
        request_id: Of the call that asked for it, if one did.
        facts: JSON object; what it acted on.
        at: RFC 3339; the transaction's clock if None.
    """

    actor: str
    action: str
    session_id: UUID | None = None
    variant_id: str | None = None
    request_id: UUID | None = None
    facts: Mapping[str, Any] = msgspec.field(default_factory=dict)
    at: str | None = None


# Adds all entries at once. A stop that was asked for in one request is noted by the API, and with the end of its session; the second time nothing is added.
_ADD = text("""
INSERT INTO monitoring_audit (at, actor, action, session_id, variant_id, request_id, facts)
SELECT coalesce(e.at, clock_timestamp()), e.actor, e.action, e.session_id, e.variant_id, e.request_id, e.facts
FROM jsonb_to_recordset(CAST(:entries AS jsonb))
     AS e (at timestamptz, actor text, action text, session_id uuid, variant_id text, request_id uuid, facts jsonb)
ON CONFLICT DO NOTHING
""")


async def add_entries(connection: AsyncConnection, entries: Sequence[AuditEntry]) -> None:
    """Add rows within the caller's transaction, but for requests for a stop that are there already."""
    if entries:
        await connection.execute(_ADD, {"entries": msgspec.json.encode(entries).decode()})


async def audit(
    engine: AsyncEngine,
    *,
    actor: str,
    action: str,
    now_us: int,
    variant_id: str | None = None,
    session_id: UUID | None = None,
    request_id: UUID | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Add one row, in a transaction of its own.

    Args:
        engine: Where to.
        actor: As in ``AuditEntry``, as are the others.
        action: What was done.
        now_us: When, in microseconds since the epoch.
        variant_id: To which variant.
        session_id: To which session.
        request_id: On which request.
        facts: On which facts.

    Raises:
        Retry: PostgreSQL is away.
        Stop: It will never take the row.
        Reject: A text that PostgreSQL can't hold (U+0000).
    """
    entry = AuditEntry(actor=actor, action=action, at=format_moment(now_us), variant_id=variant_id, session_id=session_id, request_id=request_id, facts=facts or {})
    with explained():
        async with engine.begin() as connection:
            await add_entries(connection, [entry])

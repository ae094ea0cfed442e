"""Outbound calls as people look at them, and try them again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from models.moments import format_moment, from_datetime
from streams.database import explained

# The newest calls in some states; without what only the receiver is told.
_LIST = text("""
SELECT id, event, variant_id, kill_id, session_id, idempotency_key, target, state, attempts, last_status, last_error, created_at, finished_at,
       CASE WHEN state = 'pending' THEN next_attempt_at END AS next_attempt_at
FROM outbound_call WHERE state = ANY(CAST(:states AS text[])) ORDER BY id DESC LIMIT :most
""")

# Makes calls due at once, and gives them their whole time again: those that were given up, and those that pause between two attempts.
_RETRY = text("""
WITH chosen AS MATERIALIZED (
    SELECT id, state AS former, attempts AS made FROM outbound_call
    WHERE CASE WHEN CAST(:ids AS bigint[]) IS NULL THEN state = 'given_up' ELSE id = ANY(CAST(:ids AS bigint[])) AND state IN ('given_up', 'pending') END
    ORDER BY id FOR UPDATE
), reopened AS (
    UPDATE outbound_call AS c SET state = 'pending', finished_at = NULL, pending_since = clock_timestamp(), next_attempt_at = clock_timestamp()
    FROM chosen WHERE c.id = chosen.id
    RETURNING c.id, c.session_id, c.variant_id, c.kill_id, chosen.former, chosen.made
), audited AS (
    INSERT INTO monitoring_audit (actor, action, session_id, variant_id, facts)
    SELECT CAST(:actor AS text), 'call_retried', session_id, variant_id, jsonb_build_object('call', id, 'kill_id', kill_id, 'former_state', former, 'attempts', made) FROM reopened
)
SELECT id FROM reopened ORDER BY id
""")


async def list_calls(engine: AsyncEngine, states: Sequence[str], most: int) -> list[dict[str, Any]]:
    """Return the newest calls in these states, newest first, as JSON values.

    Raises:
        Retry: PostgreSQL is away.
        Stop: It will never answer.
    """
    with explained():
        async with engine.connect() as connection:
            rows = await connection.execute(_LIST, {"states": list(states), "most": most})
            return [{name: _plain(value) for name, value in row.items()} for row in rows.mappings()]


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return format_moment(from_datetime(value))
    return value if value is None or isinstance(value, int | str) else str(value)


async def retry_calls(engine: AsyncEngine, ids: Sequence[int] | None, *, actor: str) -> list[int]:
    """Let calls be tried again at once, and return which: those of ``ids`` that are given up or pending, or all that are given up.

    Errors as ``list_calls``.
    """
    with explained():
        async with engine.begin() as connection:
            reopened = await connection.execute(_RETRY, {"ids": None if ids is None else list(ids), "actor": actor})
            return list(reopened.scalars())

"""Removes what is old: ended sessions, audit rows and outbound calls that are over, in bounded batches that hold no lock for long."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncEngine

from models.errors import Reject
from models.moments import DAY, to_datetime
from streams.cleanup import KILL_STANDS
from streams.database import explained
from streams.outbound.pending import IS_TO_UNDO

BATCH_ROWS = 1_000
MAX_DAYS = 36_500


@dataclass(frozen=True, slots=True)
class Purged:
    """How many rows were removed so far."""

    sessions: int
    audit_rows: int
    outbound_calls: int = 0


# A session that has not ended is never removed, however old.
_SESSIONS = text("""
DELETE FROM variant_monitoring WHERE id IN (
    SELECT id FROM variant_monitoring WHERE NOT is_active AND ended_at < :cutoff ORDER BY ended_at LIMIT :rows FOR UPDATE SKIP LOCKED
)
""")
_AUDIT = text("DELETE FROM monitoring_audit WHERE id IN (SELECT id FROM monitoring_audit WHERE at < :cutoff ORDER BY at LIMIT :rows)")

# A call that is to be made stays. So does one that a revival would have to undo: its variant is killed still, as the pool says, or else its records.
# These are passed over once, however many there are: each batch begins where the last one ended.
_CALLS = text(f"""
WITH looked AS MATERIALIZED (
    SELECT id, finished_at FROM outbound_call
    WHERE state <> 'pending' AND finished_at < :cutoff AND (finished_at, id) > (:after, :after_id) ORDER BY finished_at, id LIMIT :rows
), removed AS (
    DELETE FROM outbound_call AS c USING looked
    WHERE c.id = looked.id AND c.state <> 'pending' AND c.finished_at < :cutoff AND NOT ({IS_TO_UNDO} AND coalesce(
        (SELECT p.status = 'killed' FROM variant_pool AS p WHERE p.variant_id = c.variant_id),
        EXISTS (SELECT FROM variant_monitoring AS m WHERE m.variant_id = c.variant_id AND {KILL_STANDS})
    ))
    RETURNING c.id
)
SELECT finished_at AS after, id AS after_id, (SELECT count(*) FROM looked) AS looked, (SELECT count(*) FROM removed) AS removed
FROM looked ORDER BY finished_at DESC, id DESC LIMIT 1
""")  # noqa: S608 - a constant

# The audit's trigger lets a transaction delete that says so; nothing else may.
_SAY_PURGE = text("SELECT set_config('early_kill.purge', 'on', true)")


async def purge(engine: AsyncEngine, older_than_days: float, now_us: int, progress: Callable[[Purged], None] = lambda _: None) -> Purged:
    """Remove sessions that ended, audit rows that were written, and outbound calls that were over, more than ``older_than_days`` before ``now_us``.

    Choose more days than ``monitoring_record`` keeps its records: a session that is gone, and read again from the start of the topic,
    would be written, and its kill done, a second time.

    A call that tells of a kill stays for as long as the kill can be undone, for then it has to be taken back.

    Args:
        engine: Where from.
        older_than_days: 0 to 36,500; exclusive, so a row of exactly that age stays.
        now_us: Microseconds since the epoch.
        progress: Called after each batch with the sum so far.

    Raises:
        Reject: ``older_than_days`` is out of range.
        Retry: PostgreSQL is away; what was removed stays removed.
        Stop: It will never do it.
    """
    if not (math.isfinite(older_than_days) and 0 <= older_than_days <= MAX_DAYS):
        raise Reject(f"must be 0 to {MAX_DAYS}", "older_than_days")
    cutoff = to_datetime(now_us - round(older_than_days * DAY))
    purged = Purged(0, 0)
    for statement, name in ((_SESSIONS, "sessions"), (_AUDIT, "audit_rows")):
        removed = BATCH_ROWS
        while removed == BATCH_ROWS:
            removed = await _remove(engine, statement, cutoff)
            purged = replace(purged, **{name: getattr(purged, name) + removed})
            progress(purged)
    looked, position = BATCH_ROWS, {"after": to_datetime(0), "after_id": 0}
    while looked == BATCH_ROWS:
        looked, removed, position = await _remove_calls(engine, cutoff, position)
        purged = replace(purged, outbound_calls=purged.outbound_calls + removed)
        progress(purged)
    return purged


async def _remove(engine: AsyncEngine, statement: TextClause, cutoff: datetime) -> int:
    with explained():
        async with engine.begin() as connection:
            await connection.execute(_SAY_PURGE)
            return (await connection.execute(statement, {"cutoff": cutoff, "rows": BATCH_ROWS})).rowcount


async def _remove_calls(engine: AsyncEngine, cutoff: datetime, position: dict[str, Any]) -> tuple[int, int, dict[str, Any]]:
    """Return how many were looked at, how many of them removed, and the position of the last."""
    with explained():
        async with engine.begin() as connection:
            row = (await connection.execute(_CALLS, {"cutoff": cutoff, "rows": BATCH_ROWS, **position})).one_or_none()
            return (0, 0, position) if row is None else (row.looked, row.removed, {"after": row.after, "after_id": row.after_id})

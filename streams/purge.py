"""Removes what is old: ended sessions, audit rows and outbound calls that are over, in bounded batches that hold no lock for long."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncEngine

from models.errors import Reject
from models.moments import DAY, to_datetime
from streams.database import explained

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

# Those that are given up too: people had that long to see them. A call that is to be made stays.
_CALLS = text("""
DELETE FROM outbound_call WHERE id IN (
    SELECT id FROM outbound_call WHERE state <> 'pending' AND finished_at < :cutoff ORDER BY finished_at LIMIT :rows FOR UPDATE SKIP LOCKED
)
""")

# The audit's trigger lets a transaction delete that says so; nothing else may.
_SAY_PURGE = text("SELECT set_config('early_kill.purge', 'on', true)")


async def purge(engine: AsyncEngine, older_than_days: float, now_us: int, progress: Callable[[Purged], None] = lambda _: None) -> Purged:
    """Remove sessions that ended, audit rows that were written, and outbound calls that were over, more than ``older_than_days`` before ``now_us``.

    Choose more days than ``monitoring_record`` keeps its records: a session that is gone, and read again from the start of the topic,
    would be written, and its kill done, a second time.

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
    for statement, name in ((_SESSIONS, "sessions"), (_AUDIT, "audit_rows"), (_CALLS, "outbound_calls")):
        removed = BATCH_ROWS
        while removed == BATCH_ROWS:
            removed = await _remove(engine, statement, cutoff)
            purged = replace(purged, **{name: getattr(purged, name) + removed})
            progress(purged)
    return purged


async def _remove(engine: AsyncEngine, statement: TextClause, cutoff: datetime) -> int:
    with explained():
        async with engine.begin() as connection:
            await connection.execute(_SAY_PURGE)
            return (await connection.execute(statement, {"cutoff": cutoff, "rows": BATCH_ROWS})).rowcount

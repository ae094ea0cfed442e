"""Cancels posts that were made runnable although their variant is killed: whatever wrote them, whenever, in whichever table there is.

The project's own ``scheduled_post`` has a trigger that lets none in. A table that others made may have none, and a kill cannot see a
post that another transaction has not committed yet. So the sink looks again and again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from models.errors import Reject, Retry
from streams.cleanup import KILL_STANDS
from streams.database import PATIENCE_SECONDS, explained, sqlstate

SWEEP_SECONDS = 2.0
SHARE = 20
"""A sweep takes one part in so many of the time at most, also one that fails: where posts are many, sweeps are rarer."""
MOST_POSTS = 1_000
"""Most posts that one statement cancels, and most variants outside the pool that a sweep holds: each has such a post, and a lock of PostgreSQL's few thousand for everybody."""

log = logging.getLogger(__name__)

_CANCEL = """
), changed AS (
    UPDATE scheduled_post AS p
    SET status = 'cancelled', cancelled_at = clock_timestamp(), updated_at = clock_timestamp(),
        cancel_reason = 'Variant is killed' || coalesce(' (kill ' || found.kill_id || ')', '')
    FROM found WHERE p.id = found.id
    RETURNING p.variant_id, p.id, found.former, found.kill_id
), audited AS (
    INSERT INTO monitoring_audit (actor, action, variant_id, facts)
    SELECT 'sweep', 'posts_cancelled', variant_id, jsonb_build_object('kill_id', kill_id, 'posts', jsonb_agg(jsonb_build_object('id', id, 'status', former) ORDER BY id))
    FROM changed GROUP BY variant_id, kill_id
)
SELECT count(*) FROM changed
"""

# Posts of variants that the pool says are killed. The pool's row is held, so that no revival is under way meanwhile; what others hold
# is left to the next sweep, so that this one waits for nobody.
_SWEEP_POOLED = text(
    """
WITH found AS MATERIALIZED (
    SELECT p.id, p.status AS former, v.kill_id FROM scheduled_post AS p JOIN variant_pool AS v USING (variant_id)
    WHERE p.status IN ('scheduled', 'retry_scheduled') AND v.status = 'killed'
    ORDER BY p.variant_id, p.id LIMIT :most FOR NO KEY UPDATE OF p SKIP LOCKED FOR SHARE OF v SKIP LOCKED
"""  # noqa: S608 - constants
    + _CANCEL
)

_KILLED_UNPOOLED = f"""
    NOT EXISTS (SELECT FROM variant_pool AS v WHERE v.variant_id = p.variant_id) AND EXISTS (
        SELECT FROM variant_monitoring AS m WHERE m.variant_id = p.variant_id AND {KILL_STANDS}
    )
"""  # noqa: S608 - constants

# Variants that the pool does not know, with a kill that no revival has undone; each is held against a revival, or left to the next sweep. No more
# of them than the next statement can do with, and in its order; the others have their turn when those are done.
_HOLD_UNPOOLED = text(
    """
WITH found AS MATERIALIZED (
    SELECT DISTINCT p.variant_id FROM scheduled_post AS p WHERE p.status IN ('scheduled', 'retry_scheduled') AND
"""  # noqa: S608 - constants
    + _KILLED_UNPOOLED
    + """
    ORDER BY p.variant_id LIMIT :most
)
SELECT variant_id FROM found WHERE pg_try_advisory_xact_lock(hashtextextended(variant_id, 0))
"""
)

# A statement of its own, which sees what was committed before the variants were held.
_SWEEP_UNPOOLED = text(
    """
WITH found AS MATERIALIZED (
    SELECT p.id, p.status AS former, (
        SELECT m.monitoring_metadata ->> 'kill_id' FROM variant_monitoring AS m WHERE m.variant_id = p.variant_id AND m.was_killed ORDER BY m.updated_at DESC LIMIT 1
    ) AS kill_id
    FROM scheduled_post AS p WHERE p.variant_id = ANY(CAST(:variants AS text[])) AND p.status IN ('scheduled', 'retry_scheduled') AND
"""  # noqa: S608 - constants
    + _KILLED_UNPOOLED
    + """
    ORDER BY p.variant_id, p.id LIMIT :most FOR NO KEY UPDATE SKIP LOCKED
"""
    + _CANCEL
)


async def sweep(engine: AsyncEngine) -> int:
    """Cancel the runnable posts of killed variants, and return how many; up to ``MOST_POSTS`` of variants in the pool, as many of others.

    A cancelled post carries the kill's id, so that a revival restores it as it does the others.

    Raises:
        Retry: PostgreSQL is away, or was too slow.
        Stop: It will never do it.
    """
    with explained():
        async with asyncio.timeout(PATIENCE_SECONDS):
            async with engine.begin() as connection:
                pooled: int = (await connection.execute(_SWEEP_POOLED, {"most": MOST_POSTS})).scalar_one()
            async with engine.begin() as connection:
                return pooled + await _sweep_unpooled(connection)


async def _sweep_unpooled(connection: AsyncConnection) -> int:
    variants = list((await connection.execute(_HOLD_UNPOOLED, {"most": MOST_POSTS})).scalars())
    if not variants:
        return 0
    swept: int = (await connection.execute(_SWEEP_UNPOOLED, {"variants": variants, "most": MOST_POSTS})).scalar_one()
    return swept


class Sweeper:
    """Sweeps again and again.

    Args:
        engine: Where.
        swept: Told of the posts that were cancelled.
        clock: Seconds, monotonic.
        sleep: Pauses for seconds.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        swept: Callable[[int], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._engine, self._swept, self._clock, self._sleep = engine, swept, clock, sleep
        self._owed_seconds = 0.0

    async def step(self) -> float:
        """Sweep once; returns the pause in seconds until the next time. Errors as ``sweep``; if PostgreSQL was at work until then, the next step begins with a pause."""
        owed, self._owed_seconds = self._owed_seconds, 0.0
        await self._sleep(owed)
        began = self._clock()
        try:
            posts = await sweep(self._engine)
        except (Retry, Reject) as error:
            if error.__cause__ is not None and sqlstate(error.__cause__) is not None:  # without one it is away: nobody's time was taken
                self._owed_seconds = SHARE * (self._clock() - began)
            raise
        if posts:
            self._swept(posts)
            log.info("cancelled %d posts of killed variants that had become runnable", posts)
        return 0.0 if posts >= MOST_POSTS else max(SWEEP_SECONDS, SHARE * (self._clock() - began))

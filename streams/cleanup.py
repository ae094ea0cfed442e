"""What a kill does beyond its session's record, and how a wrong kill is undone.

A kill takes its variant out of the pool and cancels the posts that were still to go out. Each such post carries the kill's id at the
end of its ``cancel_reason``: that is how a revival knows them, also long after the audit was purged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from models.errors import NotKilled, Reject
from models.moments import to_datetime
from streams.audit import AuditEntry, add_entries
from streams.crash_points import crash_point
from streams.database import explained, is_storable
from streams.outbound.pending import withdraw_calls

PostId = int | str
"""A ``bigint`` in this project's own table; whatever it is in another program's."""


class UnknownVariant(Reject, LookupError):
    """Neither the pool nor any record knows the variant (HTTP 404)."""


class Kill(msgspec.Struct, frozen=True, kw_only=True):
    """What the cleanup has to know of a kill; ``killed_at`` as RFC 3339."""

    kill_id: UUID
    session_id: UUID
    variant_id: str
    reason: str
    killed_at: str


@dataclass(frozen=True, slots=True)
class Cleaned:
    """How many rows were changed."""

    variants: int
    posts: int


@dataclass(frozen=True, slots=True)
class Revived:
    """What a revival restored.

    Attributes:
        variant_id: Of the variant.
        kill_id: The kill that was undone; None if the pool did not name one.
        is_in_pool: Whether the pool has a row, which is active again.
        posts: Ids of the posts that are scheduled again, in order.
        posts_passed: How many of the kill's posts stay cancelled, for their time has passed.
    """

    variant_id: str
    kill_id: UUID | None
    is_in_pool: bool
    posts: tuple[PostId, ...]
    posts_passed: int


# Locks the pool's rows in their order, whatever their status: a revival that is under way must be over before the posts are
# looked at. A row that is killed already keeps its first kill.
_KILL_VARIANTS = text("""
WITH kill AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(CAST(:kills AS jsonb)) AS k (variant_id text, kill_id uuid, session_id uuid, reason text, killed_at timestamptz)
), locked AS MATERIALIZED (
    SELECT variant_id, status FROM variant_pool WHERE variant_id = ANY(CAST(:variants AS text[])) ORDER BY variant_id FOR NO KEY UPDATE
), changed AS (
    UPDATE variant_pool AS p SET status = 'killed', killed_at = kill.killed_at, kill_id = kill.kill_id, updated_at = now()
    FROM locked JOIN kill USING (variant_id)
    WHERE p.variant_id = locked.variant_id AND locked.status = 'active'
    RETURNING p.variant_id
), audited AS (
    INSERT INTO monitoring_audit (actor, action, session_id, variant_id, facts)
    SELECT 'sink', 'variant_killed', kill.session_id, kill.variant_id, jsonb_build_object('kill_id', kill.kill_id, 'reason', kill.reason, 'former_status', 'active')
    FROM changed JOIN kill USING (variant_id)
)
SELECT count(*) FROM changed
""")

KILL_STANDS = """(m.was_killed AND NOT EXISTS (
    SELECT FROM monitoring_audit AS a WHERE a.variant_id = m.variant_id AND a.action = 'variant_revived' AND a.at >= m.updated_at
))"""
"""SQL: session ``m`` of ``variant_monitoring`` was killed, and no revival has undone that. For variants without a row in the pool, whose status says it of the others."""

# A variant that the pool does not know has no row to lock: it is held as a revival holds it, all in one order. The kill is then dated, so that no revival
# that was committed before counts as its undoing; ``updated_at`` was the begin of this transaction until then.
_HOLD_UNPOOLED = text("""
WITH unpooled AS MATERIALIZED (
    SELECT variant_id, hashtextextended(variant_id, 0) AS key FROM unnest(CAST(:variants AS text[])) AS k (variant_id)
    WHERE NOT EXISTS (SELECT FROM variant_pool AS v WHERE v.variant_id = k.variant_id) ORDER BY key
), held AS MATERIALIZED (
    SELECT variant_id, pg_advisory_xact_lock(key) FROM unpooled
)
UPDATE variant_monitoring AS m SET updated_at = clock_timestamp() FROM held WHERE m.variant_id = held.variant_id AND m.session_id = ANY(CAST(:sessions AS uuid[]))
""")

# Locks the posts in their order, and notes what they were. They get the mark of the kill that holds their variant, which may be an
# earlier one, of another session: it is that one that a revival undoes. Runs after the variants are locked, as a statement of its own: it must
# see the posts that were inserted, or restored, while it waited for those locks.
_CANCEL_POSTS = text("""
WITH kill AS MATERIALIZED (
    SELECT k.variant_id, coalesce(v.kill_id::text, k.kill_id::text) AS kill_id, k.session_id, k.reason
    FROM jsonb_to_recordset(CAST(:kills AS jsonb)) AS k (variant_id text, kill_id uuid, session_id uuid, reason text) LEFT JOIN variant_pool AS v USING (variant_id)
), locked AS MATERIALIZED (
    SELECT variant_id, id, status FROM scheduled_post
    WHERE variant_id = ANY(CAST(:variants AS text[])) AND status IN ('scheduled', 'retry_scheduled')
    ORDER BY variant_id, id FOR NO KEY UPDATE
), changed AS (
    UPDATE scheduled_post AS p
    SET status = 'cancelled', cancelled_at = now(), cancel_reason = kill.reason || ' (kill ' || kill.kill_id || ')', updated_at = now()
    FROM locked JOIN kill USING (variant_id)
    WHERE p.id = locked.id
    RETURNING p.variant_id, p.id, locked.status AS former_status
), of_variant AS (
    SELECT variant_id, jsonb_agg(jsonb_build_object('id', id, 'status', former_status) ORDER BY id) AS posts FROM changed GROUP BY variant_id
), audited AS (
    INSERT INTO monitoring_audit (actor, action, session_id, variant_id, facts)
    SELECT 'sink', 'posts_cancelled', kill.session_id, kill.variant_id, jsonb_build_object('kill_id', kill.kill_id, 'reason', kill.reason, 'posts', of_variant.posts)
    FROM of_variant JOIN kill USING (variant_id)
)
SELECT count(*) FROM changed
""")


async def clean_up(connection: AsyncConnection, kills: Sequence[Kill]) -> Cleaned:
    """Do what kills do beyond their sessions, within the caller's transaction. Several kills of a variant: the first one's id counts.

    Call it only for sessions that this very transaction ended, so that a repetition does nothing.
    """
    first: dict[str, Kill] = {}
    for kill in kills:
        first.setdefault(kill.variant_id, kill)
    if not first:
        return Cleaned(0, 0)
    given = {"variants": list(first), "kills": msgspec.json.encode(list(first.values())).decode()}
    variants = (await connection.execute(_KILL_VARIANTS, given)).scalar_one()
    await connection.execute(_HOLD_UNPOOLED, {"variants": list(first), "sessions": [str(kill.session_id) for kill in kills]})
    crash_point("after_pool_statement")
    posts = (await connection.execute(_CANCEL_POSTS, given)).scalar_one()
    crash_point("after_posts_statement")
    return Cleaned(variants, posts)


_LOCK_POOL_ROW = text("SELECT status, kill_id FROM variant_pool WHERE variant_id = :variant_id FOR NO KEY UPDATE")
_ACTIVATE = text("UPDATE variant_pool SET status = 'active', killed_at = NULL, kill_id = NULL, updated_at = now() WHERE variant_id = :variant_id")
_LOCK_VARIANT = text("SELECT pg_advisory_xact_lock(hashtextextended(:variant_id, 0))")
_KILLED_SESSIONS = text(f"""
SELECT m.monitoring_metadata ->> 'kill_id' AS kill_id, {KILL_STANDS} AS holds
FROM variant_monitoring AS m WHERE m.variant_id = :variant_id ORDER BY m.started_at DESC, m.session_id DESC
""")  # noqa: S608 - a constant
_EARLIER_ANSWER = text(
    "SELECT facts FROM monitoring_audit WHERE variant_id = :variant_id AND action = 'variant_revived' AND request_id = CAST(:request_id AS uuid) ORDER BY id LIMIT 1"
)

# Restores the posts whose time has not passed. The pool's row is active by then, or there is none.
_RESTORE_POSTS = text("""
WITH locked AS MATERIALIZED (
    SELECT id, scheduled_for >= :now AS is_ahead FROM scheduled_post
    WHERE variant_id = :variant_id AND status = 'cancelled' AND substring(cancel_reason FROM '\\(kill ([0-9a-f-]{36})\\)$') = ANY(CAST(:kill_ids AS text[]))
    ORDER BY id FOR NO KEY UPDATE
), restored AS (
    UPDATE scheduled_post AS p SET status = 'scheduled', cancelled_at = NULL, cancel_reason = NULL, updated_at = now()
    FROM locked WHERE p.id = locked.id AND locked.is_ahead
    RETURNING p.id
)
SELECT coalesce((SELECT jsonb_agg(id ORDER BY id) FROM restored), '[]') AS posts, (SELECT count(*) FROM locked WHERE NOT is_ahead) AS passed
""")


async def revive(engine: AsyncEngine, variant_id: str, *, actor: str, request_id: UUID | None, now_us: int, is_key: bool = False) -> Revived:
    """Undo the kill of a variant, in one transaction; the session's record stays as it was.

    The kill that is undone is the one that the pool's row names. Of the posts that it cancelled (and of those that were cancelled
    because they were scheduled while it held), those with ``scheduled_for`` at ``now_us`` or later are scheduled again.

    If the pool does not know the variant, all kills in its records since it was last revived are undone. Calls that tell another
    system of the variant's kills are withdrawn, or followed by one that tells it of the revival.

    Args:
        engine: Where to.
        variant_id: Of the variant.
        actor: Who asked, for the audit.
        request_id: Of the request.
        now_us: Microseconds since the epoch.
        is_key: The caller repeats this request under the same id (an ``Idempotency-Key``): it gets the same answer again, and nothing is changed.

    Raises:
        UnknownVariant: Neither the pool nor any record has it.
        NotKilled: It is not killed, or no longer: of two at once, one gets this.
        Retry: PostgreSQL is away.
        Stop: It will never do it.
    """
    if not is_storable(variant_id):
        raise UnknownVariant("the variant is not known")
    with explained():
        async with engine.begin() as connection:
            pool = (await connection.execute(_LOCK_POOL_ROW, {"variant_id": variant_id})).one_or_none()
            if pool is None:
                await connection.execute(_LOCK_VARIANT, {"variant_id": variant_id})
            # Only now, for the same request may be under way elsewhere: whoever has the lock sees what it did.
            if is_key and request_id is not None and (earlier := await _earlier_answer(connection, variant_id, request_id)) is not None:
                return earlier
            revived = await (_revive_unknown(connection, variant_id, now_us) if pool is None else _revive_pooled(connection, variant_id, pool, now_us))
            facts = {"kill_id": revived.kill_id, "is_in_pool": revived.is_in_pool, "posts": revived.posts, "posts_passed": revived.posts_passed}
            await add_entries(connection, [AuditEntry(actor=actor, action="variant_revived", variant_id=variant_id, request_id=request_id, facts=facts)])
            await withdraw_calls(connection, variant_id, actor=actor, request_id=request_id, now_us=now_us)
            return revived


async def _revive_pooled(connection: AsyncConnection, variant_id: str, pool: Row[Any], now_us: int) -> Revived:
    if pool.status != "killed":
        raise NotKilled("the variant is not killed")
    kill_id = None if pool.kill_id is None else UUID(str(pool.kill_id))
    await connection.execute(_ACTIVATE, {"variant_id": variant_id})
    posts, passed = await _restore_posts(connection, variant_id, [] if kill_id is None else [str(kill_id)], now_us)
    return Revived(variant_id, kill_id, is_in_pool=True, posts=posts, posts_passed=passed)


async def _revive_unknown(connection: AsyncConnection, variant_id: str, now_us: int) -> Revived:
    sessions = (await connection.execute(_KILLED_SESSIONS, {"variant_id": variant_id})).all()
    if not sessions:
        raise UnknownVariant("the variant is not known")
    kill_ids = [session.kill_id for session in sessions if session.holds and session.kill_id]
    if not kill_ids:
        raise NotKilled("the variant is not killed")
    posts, passed = await _restore_posts(connection, variant_id, kill_ids, now_us)
    return Revived(variant_id, UUID(kill_ids[0]), is_in_pool=False, posts=posts, posts_passed=passed)


async def _restore_posts(connection: AsyncConnection, variant_id: str, kill_ids: list[str], now_us: int) -> tuple[tuple[PostId, ...], int]:
    row = (await connection.execute(_RESTORE_POSTS, {"variant_id": variant_id, "kill_ids": kill_ids, "now": to_datetime(now_us)})).one()
    return tuple(row.posts), row.passed


async def _earlier_answer(connection: AsyncConnection, variant_id: str, request_id: UUID) -> Revived | None:
    facts = (await connection.execute(_EARLIER_ANSWER, {"variant_id": variant_id, "request_id": str(request_id)})).scalar_one_or_none()
    if facts is None:
        return None
    kill_id = None if facts["kill_id"] is None else UUID(facts["kill_id"])
    return Revived(variant_id, kill_id, is_in_pool=facts["is_in_pool"], posts=tuple(facts["posts"]), posts_passed=facts["posts_passed"])

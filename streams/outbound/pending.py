"""The table of outbound calls: written with a kill, withdrawn with its undoing, claimed by one relay at a time, settled."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from streams.audit import AuditEntry, add_entries
from streams.database import PATIENCE_SECONDS, explained
from streams.outbound.messages import Call, revived_call

Verdict = Literal["confirmed", "refused", "failed"]
State = Literal["pending", "confirmed", "given_up", "withdrawn"]


@dataclass(frozen=True, slots=True)
class Claimed:
    """A call that this relay alone may make, until its lease is over. ``attempt`` counts from 1."""

    id: int
    lease: UUID
    idempotency_key: UUID
    event: str
    variant_id: str
    body: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt.

    Attributes:
        verdict: ``confirmed``; ``refused``, for good; ``failed``, so try again.
        status: HTTP status of the answer, if there was one.
        error: For people, one line without secrets; None if confirmed.
        retry_after_seconds: Earliest next attempt that the receiver asks for, if it does.
    """

    verdict: Verdict
    status: int | None = None
    error: str | None = None
    retry_after_seconds: float | None = None


_ADD = text("""
INSERT INTO outbound_call (idempotency_key, event, kill_id, session_id, variant_id, target, body)
SELECT c.idempotency_key, c.event, c.kill_id, c.session_id, c.variant_id, c.target, c.body
FROM jsonb_to_recordset(CAST(:calls AS jsonb)) AS c (idempotency_key uuid, event text, kill_id uuid, session_id uuid, variant_id text, target text, body text)
ON CONFLICT (idempotency_key) DO NOTHING
""")


async def add_calls(connection: AsyncConnection, calls: Sequence[Call]) -> None:
    """Write calls within the caller's transaction; one that is there already stays as it is."""
    if calls:
        await connection.execute(_ADD, {"calls": msgspec.json.encode(calls).decode()})


IS_TO_UNDO = """c.event = 'variant_killed' AND c.state <> 'withdrawn' AND NOT EXISTS (
    SELECT FROM outbound_call AS r WHERE r.variant_id = c.variant_id AND r.event = 'variant_revived' AND r.kill_id = c.kill_id AND r.target = c.target
)"""
"""Whether a call ``c`` tells of a kill that another system was to hear of, and has not been told to undo."""

_KILLS_TO_UNDO = text(f"""
SELECT id, kill_id, session_id, target, state, attempts FROM outbound_call AS c WHERE variant_id = :variant_id AND {IS_TO_UNDO} ORDER BY id FOR UPDATE
""")  # noqa: S608 - a constant
_WITHDRAW = text("UPDATE outbound_call SET state = 'withdrawn', finished_at = now() WHERE id = ANY(CAST(:ids AS bigint[]))")


async def withdraw_calls(connection: AsyncConnection, variant_id: str, *, actor: str, request_id: UUID | None, now_us: int) -> None:
    """Undo what a variant's kills told others, within the caller's transaction, that of the revival.

    A call that is still to be made, or was given up, is withdrawn. Where an attempt was made at all, so that the receiver may have
    acted, it is told of the revival.
    """
    kills = (await connection.execute(_KILLS_TO_UNDO, {"variant_id": variant_id})).all()
    withdrawn = [kill for kill in kills if kill.state in {"pending", "given_up"}]
    told = [kill for kill in kills if kill.attempts > 0]
    if withdrawn:
        await connection.execute(_WITHDRAW, {"ids": [kill.id for kill in withdrawn]})
    await add_calls(connection, [revived_call(kill.kill_id, kill.session_id, variant_id, kill.target, now_us) for kill in told])
    if kills:
        facts = {"withdrawn": [kill.kill_id for kill in withdrawn], "told_of_revival": [kill.kill_id for kill in told]}
        await add_entries(connection, [AuditEntry(actor=actor, action="calls_withdrawn", variant_id=variant_id, request_id=request_id, facts=facts)])


# Takes calls that are due, each for this relay alone. A variant's calls are made in their order: none while an earlier one is to be
# made, or may still be under way.
_CLAIM = text("""
WITH due AS MATERIALIZED (
    SELECT id FROM outbound_call AS c
    WHERE state = 'pending' AND next_attempt_at <= clock_timestamp() AND (leased_until IS NULL OR leased_until <= clock_timestamp())
      AND NOT EXISTS (
          SELECT FROM outbound_call AS e WHERE e.variant_id = c.variant_id AND e.id < c.id AND (e.state = 'pending' OR e.leased_until > clock_timestamp())
      )
    ORDER BY next_attempt_at, id LIMIT :most FOR UPDATE SKIP LOCKED
)
UPDATE outbound_call AS c
SET lease = gen_random_uuid(), leased_until = clock_timestamp() + make_interval(secs => :lease_seconds), attempts = attempts + 1
FROM due WHERE c.id = due.id
RETURNING c.id, c.lease, c.idempotency_key, c.event, c.variant_id, c.body, c.attempts AS attempt
""")

# Writes down what came of an attempt, by whoever holds the lease; a confirmation counts from anybody. A call that was withdrawn
# meanwhile stays so.
_SETTLE = text("""
WITH held AS MATERIALIZED (
    SELECT id, state AS former, CASE
        WHEN state <> 'pending' THEN state
        WHEN CAST(:verdict AS text) = 'confirmed' THEN 'confirmed'
        WHEN CAST(:verdict AS text) = 'refused' OR pending_since + make_interval(secs => :give_up_seconds) <= clock_timestamp() THEN 'given_up'
        ELSE 'pending'
    END AS state
    FROM outbound_call WHERE id = :id AND (lease = CAST(:lease AS uuid) OR (CAST(:verdict AS text) = 'confirmed' AND state = 'pending')) FOR UPDATE
), settled AS (
    UPDATE outbound_call AS c
    SET state = held.state, lease = NULL, leased_until = NULL, last_status = CAST(:status AS bigint), last_error = CAST(:error AS text),
        next_attempt_at = clock_timestamp() + make_interval(secs => :pause_seconds),
        finished_at = CASE WHEN held.state = 'pending' THEN NULL ELSE coalesce(c.finished_at, clock_timestamp()) END
    FROM held WHERE c.id = held.id
    RETURNING held.former, c.*
), audited AS (
    INSERT INTO monitoring_audit (actor, action, session_id, variant_id, facts)
    SELECT 'relay', 'call_' || state, session_id, variant_id, jsonb_build_object(
        'call', id, 'event', event, 'kill_id', kill_id, 'idempotency_key', idempotency_key, 'target', target, 'attempts', attempts, 'status', last_status, 'error', last_error
    )
    FROM settled WHERE former = 'pending' AND state <> 'pending'
)
SELECT state FROM settled
""")

# How much there is to do, and how long the oldest has been waiting for it.
_BACKLOG = text("""
SELECT (SELECT count(*) FROM outbound_call WHERE state = 'pending') AS pending, (SELECT count(*) FROM outbound_call WHERE state = 'given_up') AS given_up,
       coalesce((SELECT extract(epoch FROM clock_timestamp() - min(pending_since)) FROM outbound_call WHERE state = 'pending'), 0)::float8 AS oldest_seconds
""")


@dataclass(frozen=True, slots=True)
class Backlog:
    """Calls that are to be made, those that were given up, and since when (seconds) the oldest of the former waits."""

    pending: int
    given_up: int
    oldest_seconds: float


class PendingCalls:
    """The table, for relays: any number of them, in any number of processes. Each call raises ``Retry`` or ``Stop`` if PostgreSQL fails it.

    Args:
        engine: Where it is.
        lease_seconds: How long a claimed call is left to its relay; longer than an attempt may take.
        give_up_seconds: Age from which a call that fails is given up.
    """

    def __init__(self, engine: AsyncEngine, *, lease_seconds: float, give_up_seconds: float) -> None:
        self._engine = engine
        self.lease_seconds = lease_seconds
        self._give_up_seconds = give_up_seconds

    async def claim(self, most: int) -> list[Claimed]:
        """Take up to ``most`` calls that are due; nobody else gets them until their lease is over."""
        with explained():
            async with asyncio.timeout(PATIENCE_SECONDS), self._engine.begin() as connection:
                rows = await connection.execute(_CLAIM, {"most": most, "lease_seconds": self.lease_seconds})
                return [Claimed(**row) for row in rows.mappings()]

    async def settle(self, call: Claimed, outcome: Outcome, pause_seconds: float) -> State | None:
        """Write down what came of a call, and return its state now; None if another relay has it by now.

        Args:
            call: As it was claimed.
            outcome: Of this attempt.
            pause_seconds: Until the next one, if it failed.
        """
        given = {"id": call.id, "lease": str(call.lease), "verdict": outcome.verdict, "status": outcome.status, "error": outcome.error}
        with explained():
            async with asyncio.timeout(PATIENCE_SECONDS), self._engine.begin() as connection:
                result = await connection.execute(_SETTLE, {**given, "pause_seconds": pause_seconds, "give_up_seconds": self._give_up_seconds})
                state: State | None = result.scalar_one_or_none()
                return state

    async def backlog(self) -> Backlog:
        """Return how much there is to do."""
        with explained():
            async with asyncio.timeout(PATIENCE_SECONDS), self._engine.connect() as connection:
                return Backlog(**(await connection.execute(_BACKLOG)).mappings().one())

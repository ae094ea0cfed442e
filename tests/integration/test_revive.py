"""A wrong kill is undone, once, and only that."""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from models import ids
from models.errors import NotKilled, Reject
from models.monitoring_record import MonitoringRecord
from streams.cleanup import Revived, UnknownVariant, revive
from streams.database import create_engine
from streams.outbound.pending import Outcome, PendingCalls
from streams.persistence import Persisted, persist
from streams.settings import Settings
from streams.sweep import sweep

Sql = Callable[..., list[tuple[Any, ...]]]
Record = Callable[..., MonitoringRecord]
Undo = Callable[..., Any]

NOW_US = time.time_ns() // 1_000
KILL = ids.kill_id(ids.session_id("v1", "p1"))
NAME = "https://receiver.example"
RELAY = {"lease_seconds": 60.0, "give_up_seconds": 3_600.0}


@pytest.fixture
def undo(engine: AsyncEngine) -> Undo:
    """Revives ``v1``."""

    def call(variant_id: str = "v1", **changes: object) -> Any:
        return revive(engine, variant_id, **{"actor": "ada", "request_id": uuid.uuid4(), "is_key": True, "now_us": NOW_US} | changes)  # type: ignore[arg-type]

    return call


def fill(sql: Sql) -> None:
    """One variant in the pool, with posts: 1 long past, 2 a microsecond past, 3 now, 4 ahead, 5 ahead and to be retried, 6 cancelled by somebody."""
    sql("INSERT INTO variant_pool (variant_id, persona_id, status) VALUES ('v1', 'anna', 'active')")
    posts = [(-3_600_000_000, "scheduled"), (-1, "scheduled"), (0, "scheduled"), (60_000_000, "scheduled"), (60_000_000, "retry_scheduled"), (60_000_000, "cancelled")]
    for offset, status in posts:
        moment = "to_timestamp(0) + make_interval(secs => %s::numeric / 1000000)"
        sql(f"INSERT INTO scheduled_post (variant_id, scheduled_for, status) VALUES ('v1', {moment}, %s)", NOW_US + offset, status)  # noqa: S608 - constant


def statuses(sql: Sql) -> list[Any]:
    """Of the posts, in order."""
    return [status for (status,) in sql("SELECT status FROM scheduled_post ORDER BY id")]


async def test_a_revival_restores_pool_and_posts_that_can_still_go_out(engine: AsyncEngine, sql: Sql, record: Record, undo: Undo):
    """A post whose time is this very moment has not passed; one that somebody else cancelled stays so. The session's record too."""
    fill(sql)
    await persist(engine, [record("killed")])
    session = sql("SELECT ctid, xmin, v.* FROM variant_monitoring v")
    request = uuid.uuid4()
    assert await undo(request_id=request) == Revived("v1", KILL, is_in_pool=True, posts=(3, 4, 5), posts_passed=2)
    assert statuses(sql) == ["cancelled", "cancelled", "scheduled", "scheduled", "scheduled", "cancelled"]
    assert sql("SELECT DISTINCT cancelled_at, cancel_reason FROM scheduled_post WHERE status = 'scheduled'") == [(None, None)]
    assert sql("SELECT status, killed_at, kill_id FROM variant_pool") == [("active", None, None)]
    assert sql("SELECT ctid, xmin, v.* FROM variant_monitoring v") == session
    assert sql("SELECT actor, variant_id, request_id, facts FROM monitoring_audit WHERE action = 'variant_revived'") == [
        ("ada", "v1", request, {"kill_id": str(KILL), "is_in_pool": True, "posts": [3, 4, 5], "posts_passed": 2})
    ]


async def test_a_kill_that_is_read_again_does_not_undo_the_revival(engine: AsyncEngine, sql: Sql, record: Record, undo: Undo):
    """Its session has ended; another session's kill takes the variant down again, under its own id."""
    fill(sql)
    await persist(engine, [record("killed")])
    await undo()
    assert await persist(engine, [record("started"), record("killed")]) == Persisted()
    assert sql("SELECT status FROM variant_pool") == [("active",)]
    assert (await persist(engine, [record("killed", post_id="p2")])).variants_killed == 1
    assert sql("SELECT kill_id FROM variant_pool") == [(ids.kill_id(ids.session_id("v1", "p2")),)]
    assert (await undo()).posts == (3, 4, 5)


async def test_posts_of_another_kill_stay_cancelled(engine: AsyncEngine, sql: Sql, record: Record, undo: Undo):
    """Only the kill that holds the variant is undone."""
    fill(sql)
    sql("INSERT INTO scheduled_post (variant_id, scheduled_for, status, cancel_reason) VALUES ('v1', now() + interval '1 day', 'cancelled', %s)", f"earlier (kill {uuid.uuid4()})")
    await persist(engine, [record("killed")])
    assert (await undo()).posts == (3, 4, 5)
    assert statuses(sql)[6] == "cancelled"


async def test_a_post_that_was_scheduled_while_the_kill_held_comes_back_too(engine: AsyncEngine, sql: Sql, record: Record, undo: Undo):
    """It was cancelled for that kill only; and after the revival posts can be scheduled as ever."""
    fill(sql)
    await persist(engine, [record("killed")])
    sql("INSERT INTO scheduled_post (variant_id, scheduled_for, status) VALUES ('v1', now() + interval '1 day', 'scheduled')")
    assert statuses(sql)[6] == "cancelled"
    assert (await undo()).posts == (3, 4, 5, 7)
    sql("INSERT INTO scheduled_post (variant_id, scheduled_for, status) VALUES ('v1', now() + interval '1 day', 'scheduled')")
    assert statuses(sql)[6:] == ["scheduled", "scheduled"]


async def test_a_variant_that_is_not_killed_has_nothing_to_undo(engine: AsyncEngine, sql: Sql, record: Record, undo: Undo):
    """Active in the pool, or revived before: nothing changes, and nothing is said in the audit."""
    fill(sql)
    with pytest.raises(NotKilled):
        await undo()
    await persist(engine, [record("killed")])
    await undo()
    with pytest.raises(NotKilled):
        await undo()
    assert sql("SELECT count(*) FROM monitoring_audit WHERE action = 'variant_revived'") == [(1,)]


async def test_an_unknown_variant_is_not_found(undo: Undo):
    """A ``LookupError`` and a ``Reject`` in one; so is one that no row can name."""
    with pytest.raises(UnknownVariant) as caught:
        await undo("nobody")
    assert isinstance(caught.value, LookupError)
    assert isinstance(caught.value, Reject)
    with pytest.raises(UnknownVariant):
        await undo("no\0body")


async def test_of_many_revivals_at_once_one_happens(engine: AsyncEngine, sql: Sql, record: Record, undo: Undo):
    """The others learn that it is not killed."""
    fill(sql)
    await persist(engine, [record("killed")])
    outcomes = await asyncio.gather(*(undo() for _ in range(5)), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NotKilled"] * 4 + ["Revived"]
    assert sql("SELECT count(*) FROM monitoring_audit WHERE action = 'variant_revived'") == [(1,)]


async def test_an_id_that_is_no_key_is_only_written_down(engine: AsyncEngine, sql: Sql, record: Record, undo: Undo):
    """As one that a proxy gives to each request it passes on, and to its repetition as well."""
    fill(sql)
    await persist(engine, [record("killed")])
    request = uuid.uuid4()
    await undo(request_id=request, is_key=False)
    with pytest.raises(NotKilled):
        await undo(request_id=request, is_key=False)
    assert sql("SELECT request_id FROM monitoring_audit WHERE action = 'variant_revived'") == [(request,)]


async def test_the_same_request_again_gets_the_same_answer(engine: AsyncEngine, sql: Sql, record: Record, undo: Undo):
    """As when the first answer was lost; at once, or after the variant was killed again."""
    fill(sql)
    await persist(engine, [record("killed")])
    request = uuid.uuid4()
    first, *others = await asyncio.gather(*(undo(request_id=request) for _ in range(5)))
    await persist(engine, [record("killed", post_id="p2")])
    assert [*others, await undo(request_id=request)] == [first] * 5
    assert sql("SELECT status FROM variant_pool") == [("killed",)]


async def test_the_same_request_at_once_gets_the_same_answer_outside_the_pool_too(engine: AsyncEngine, database: str, record: Record, undo: Undo):
    """As at two workers, or at one after its answer was waited for too long: both have looked for an earlier answer before either has the variant."""
    await persist(engine, [record("killed")])
    request = uuid.uuid4()
    with psycopg.connect(database) as other:
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended('v1', 0))")
        calls = [asyncio.create_task(undo(request_id=request)) for _ in range(2)]
        await asyncio.sleep(0.3)
    assert await asyncio.gather(*calls, return_exceptions=True) == [Revived("v1", KILL, is_in_pool=False, posts=(), posts_passed=0)] * 2


async def test_a_variant_outside_the_pool_gets_its_posts_back(engine: AsyncEngine, sql: Sql, record: Record, undo: Undo):
    """Those of all its kills; then there is nothing left to undo. Its sessions alone make it known."""
    sql("INSERT INTO scheduled_post (variant_id, scheduled_for, status) VALUES ('v1', now() + interval '1 day', 'scheduled')")
    await persist(engine, [record("started", "v2"), record("killed")])
    sql("INSERT INTO scheduled_post (variant_id, scheduled_for, status) VALUES ('v1', now() + interval '1 day', 'scheduled')")
    await persist(engine, [record("killed", post_id="p2", started_at_us=NOW_US)])
    revived = await undo()
    assert revived == Revived("v1", ids.kill_id(ids.session_id("v1", "p2")), is_in_pool=False, posts=(1, 2), posts_passed=0)
    assert sql("SELECT * FROM variant_pool") == []
    for variant in ("v1", "v2"):
        with pytest.raises(NotKilled):
            await undo(variant)


async def test_a_variant_that_others_killed_becomes_active(sql: Sql, undo: Undo):
    """No kill is named, so no post is known to be its."""
    fill(sql)
    sql("UPDATE variant_pool SET status = 'killed'")
    assert await undo(request_id=None) == Revived("v1", None, is_in_pool=True, posts=(), posts_passed=0)


async def test_a_kill_of_a_variant_outside_the_pool_is_undone_once(engine: AsyncEngine, sql: Sql, record: Record, undo: Undo):
    """Though there is nothing to restore: it is killed until somebody says otherwise, and again when it is killed again."""
    await persist(engine, [record("killed")])
    assert await undo() == Revived("v1", KILL, is_in_pool=False, posts=(), posts_passed=0)
    with pytest.raises(NotKilled):
        await undo()
    await persist(engine, [record("killed", post_id="p2")])
    answers = await asyncio.gather(*(undo() for _ in range(5)), return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["NotKilled"] * 4 + ["Revived"]
    assert sql("SELECT count(*) FROM monitoring_audit WHERE action = 'variant_revived'") == [(2,)]


async def test_a_kill_that_began_before_a_revival_of_another_one_is_not_undone_by_it(engine: AsyncEngine, database: str, sql: Sql, record: Record, undo: Undo):
    """Nor does it miss the posts that the revival restored, of a variant outside the pool; and it can be undone by another one."""
    await persist(engine, [record("killed")])
    sql("INSERT INTO scheduled_post (variant_id, scheduled_for, status) VALUES ('v1', now() + interval '1 day', 'scheduled')")
    await sweep(engine)
    second = ids.kill_id(ids.session_id("v1", "p2"))
    await persist(engine, [record("started", post_id="p2")])
    with psycopg.connect(database) as other:
        other.execute("SELECT FROM variant_monitoring WHERE post_id = 'p2' FOR UPDATE")
        kill = asyncio.create_task(persist(engine, [record("killed", post_id="p2")]))
        await asyncio.sleep(0.3)
        assert await undo() == Revived("v1", KILL, is_in_pool=False, posts=(1,), posts_passed=0)
    assert (await kill).posts_cancelled == 1
    sql("INSERT INTO scheduled_post (variant_id, scheduled_for, status) VALUES ('v1', now() + interval '1 day', 'scheduled')")
    assert await sweep(engine) == 1
    assert await undo() == Revived("v1", second, is_in_pool=False, posts=(1, 2), posts_passed=0)


async def test_a_kill_waits_for_a_revival_under_way(engine: AsyncEngine, database: str, sql: Sql, record: Record, undo: Undo):
    """Also of a variant that the pool does not know: it cancels what the revival restores."""
    sql("INSERT INTO scheduled_post (variant_id, scheduled_for, status) VALUES ('v1', now() + interval '1 day', 'scheduled')")
    await persist(engine, [record("killed")])
    with psycopg.connect(database) as reviver:
        reviver.execute("SELECT pg_advisory_xact_lock(hashtextextended('v1', 0))")
        reviver.execute("UPDATE scheduled_post SET status = 'scheduled', cancel_reason = NULL")
        kill = asyncio.create_task(persist(engine, [record("killed", post_id="p2")]))
        await asyncio.sleep(0.3)
        assert not kill.done()
        reviver.execute("INSERT INTO monitoring_audit (actor, action, variant_id) VALUES ('ada', 'variant_revived', 'v1')")
        reviver.commit()
        assert (await kill).posts_cancelled == 1
    assert (await undo()).kill_id == ids.kill_id(ids.session_id("v1", "p2"))


async def test_kills_and_revivals_of_variants_outside_the_pool_do_not_wait_for_each_other_in_a_ring(engine: AsyncEngine, migrated: Settings, sql: Sql, record: Record, undo: Undo):
    """Batches of the same variants in any order, from two sinks, and revivals: each kill is done once, and undone at most once."""
    variants = [f"v{number}" for number in range(20)]
    other = create_engine(migrated)

    async def kill(engine: AsyncEngine, sink: int) -> int:
        randomness = random.Random(sink)
        batches = [[record("killed", variant, f"p{sink} {batch}") for variant in randomness.sample(variants, 20)] for batch in range(8)]
        return sum([(await persist(engine, batch)).killed for batch in batches])

    async def revive_some(seed: int) -> int:
        outcomes = [await asyncio.gather(undo(random.Random(seed + number).choice(variants)), return_exceptions=True) for number in range(40)]
        assert {type(outcome) for (outcome,) in outcomes} <= {Revived, NotKilled, UnknownVariant}
        return sum(isinstance(outcome, Revived) for (outcome,) in outcomes)

    killed, killed_too, *revived = await asyncio.gather(kill(engine, 0), kill(other, 1), revive_some(2), revive_some(3))
    await other.dispose()
    assert (killed, killed_too) == (160, 160)
    assert sql("SELECT count(*) FROM monitoring_audit WHERE action = 'variant_revived'") == [(sum(revived),)]


def calls(sql: Sql) -> list[tuple[Any, ...]]:
    """What is to be told, in order."""
    return sql("SELECT event, kill_id, state FROM outbound_call ORDER BY id")


async def test_a_call_that_was_not_made_is_withdrawn(engine: AsyncEngine, sql: Sql, record: Record, undo: Undo):
    """Nobody ever hears of the kill, nor of its undoing."""
    fill(sql)
    await persist(engine, [record("killed")], NAME)
    await undo()
    assert calls(sql) == [("variant_killed", KILL, "withdrawn")]
    assert await PendingCalls(engine, **RELAY).claim(8) == []
    assert sql("SELECT actor, facts FROM monitoring_audit WHERE action = 'calls_withdrawn'") == [("ada", {"withdrawn": [str(KILL)], "told_of_revival": []})]


@pytest.mark.parametrize(("outcome", "state"), [(Outcome("confirmed", 200), "confirmed"), (Outcome("failed"), "withdrawn"), (Outcome("refused", 404), "withdrawn")])
async def test_who_may_have_heard_of_a_kill_is_told_of_its_undoing(engine: AsyncEngine, sql: Sql, record: Record, undo: Undo, outcome: Outcome, state: str):
    """After any attempt, for one that failed may have arrived; once, and in a call with a key of its own."""
    fill(sql)
    await persist(engine, [record("killed")], NAME)
    pending = PendingCalls(engine, **RELAY)
    [call] = await pending.claim(8)
    await pending.settle(call, outcome, 3_600)
    request = uuid.uuid4()
    await undo(request_id=request)
    await undo(request_id=request)
    assert calls(sql) == [("variant_killed", KILL, state), ("variant_revived", KILL, "pending")]
    [told] = await pending.claim(8)
    body = json.loads(told.body)
    assert (told.event, body.pop("revived_at")[-1]) == ("variant_revived", "Z")
    assert body == {
        "schema_version": 1,
        "event": "variant_revived",
        "idempotency_key": str(told.idempotency_key),
        "kill_id": str(KILL),
        "session_id": str(ids.session_id("v1", "p1")),
        "variant_id": "v1",
    }
    assert told.idempotency_key != call.idempotency_key


async def test_the_undoing_waits_for_a_call_under_way(engine: AsyncEngine, sql: Sql, record: Record, undo: Undo):
    """Or it could arrive first. The call that is withdrawn in mid-call is not made again, whatever comes of it."""
    fill(sql)
    await persist(engine, [record("killed")], NAME)
    pending = PendingCalls(engine, **RELAY)
    [call] = await pending.claim(8)
    await undo()
    assert calls(sql) == [("variant_killed", KILL, "withdrawn"), ("variant_revived", KILL, "pending")]
    assert await pending.claim(8) == []
    assert await pending.settle(call, Outcome("failed"), 0) == "withdrawn"
    assert [told.event for told in await pending.claim(8)] == ["variant_revived"]


async def test_all_kills_of_a_variant_are_taken_back_and_a_new_one_is_told(engine: AsyncEngine, sql: Sql, record: Record, undo: Undo):
    """Two sessions of it were killed; after the revival a third one is, and the receiver hears of things in their order."""
    fill(sql)
    await persist(engine, [record("killed")], NAME)
    pending = PendingCalls(engine, **RELAY)
    [call] = await pending.claim(8)
    await pending.settle(call, Outcome("confirmed", 200), 0)
    await persist(engine, [record("killed", post_id="p2")], NAME)
    await undo()
    await persist(engine, [record("killed", post_id="p3")], NAME)
    second, third = (ids.kill_id(ids.session_id("v1", post)) for post in ("p2", "p3"))
    assert calls(sql) == [
        ("variant_killed", KILL, "confirmed"),
        ("variant_killed", second, "withdrawn"),
        ("variant_revived", KILL, "pending"),
        ("variant_killed", third, "pending"),
    ]
    told = []
    while claimed := await pending.claim(8):
        assert len(claimed) == 1
        told.append(claimed[0].event)
        await pending.settle(claimed[0], Outcome("confirmed", 200), 0)
    assert told == ["variant_revived", "variant_killed"]
    await undo()
    assert calls(sql)[4:] == [("variant_revived", third, "pending")]

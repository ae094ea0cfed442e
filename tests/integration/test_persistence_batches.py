"""What one batch of records does to the tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from models import ids
from models.monitoring_record import MonitoringRecord
from streams.audit import audit
from streams.persistence import Persisted, persist

Sql = Callable[..., list[tuple[Any, ...]]]
Record = Callable[..., MonitoringRecord]

EVERYTHING = [
    "SELECT ctid, xmin, v.* FROM variant_monitoring v ORDER BY id",
    "SELECT ctid, xmin, p.* FROM variant_pool p ORDER BY variant_id",
    "SELECT ctid, xmin, s.* FROM scheduled_post s ORDER BY id",
    "SELECT ctid, xmin, a.* FROM monitoring_audit a ORDER BY id",
]


def everything(sql: Sql) -> list[list[tuple[Any, ...]]]:
    """All rows, with their versions: equal only if not even a rewrite of the same happened."""
    return [sql(query) for query in EVERYTHING]


def actions(sql: Sql) -> list[tuple[Any, ...]]:
    """What the audit says was done to which variant."""
    return sql("SELECT actor, action, variant_id FROM monitoring_audit ORDER BY id")


@pytest.fixture
def pool(engine: AsyncEngine, sql: Sql) -> None:  # noqa: ARG001 - the schema has to be there
    """Two variants, each with a post of every status."""
    for variant in ("v1", "v2"):
        sql("INSERT INTO variant_pool (variant_id, persona_id, status) VALUES (%s, 'anna', 'active')", variant)
        for status in ("scheduled", "retry_scheduled", "published", "failed", "cancelled"):
            sql("INSERT INTO scheduled_post (variant_id, scheduled_for, status) VALUES (%s, now() + interval '1 day', %s)", variant, status)


async def test_a_start_is_recorded_with_all_its_columns(engine: AsyncEngine, sql: Sql, record: Record):
    """An active session, with what was posted and when, to the microsecond."""
    assert await persist(engine, [record("started", started_at_us=1_700_000_000_000_001)]) == Persisted(started=1)
    columns = "variant_id, persona_id, post_id, expected_engagement_rate, kill_threshold, min_interactions, timeout_minutes, is_active, was_killed, outcome, ended_at"
    assert sql(f"SELECT {columns} FROM variant_monitoring") == [("v1", "anna", "p1", 0.06, 0.5, 10, 10.0, True, False, None, None)]  # noqa: S608 - constant
    assert sql("SELECT to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US'), monitoring_metadata ->> 'source' FROM variant_monitoring") == [
        ("2023-11-14T22:13:20.000001", "test")
    ]
    assert actions(sql) == [("monitor", "session_started", "v1")]


REQUEST = "390c3896-29b9-43ac-95f0-031d3760aa74"
REQUESTS = "SELECT actor, session_id, request_id::text, facts, at = to_timestamp(1700000060.000001) FROM monitoring_audit WHERE action = 'stop_requested'"


def stopped(record: Record, **request: Any) -> MonitoringRecord:
    """The end of a session on somebody's request."""
    end = record("stopped")
    return record("stopped", monitoring_metadata={**end.monitoring_metadata, "stop_request": request})


async def test_a_stop_is_audited_with_who_asked_for_it(engine: AsyncEngine, sql: Sql, record: Record):
    """In the transaction of the end, with its append time; once, however often the end comes, and together with the start too."""
    end = stopped(record, requested_by="token 0011aabb", request_id=REQUEST)
    for _ in range(2):
        await persist(engine, [record("started"), end])
    assert sql(REQUESTS) == [("token 0011aabb", end.session_id, REQUEST, {"post_id": "p1"}, True)]
    assert actions(sql) == [("monitor", "session_started", "v1"), ("token 0011aabb", "stop_requested", "v1"), ("monitor", "session_ended", "v1")]


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_stop_that_the_api_has_noted_is_not_noted_again(engine: AsyncEngine, sql: Sql, record: Record, is_first: bool):
    """Whoever comes first; another request for the same session has a row of its own."""
    end = stopped(record, requested_by="token 0011aabb", request_id=REQUEST)

    async def note(request_id: UUID) -> None:
        await audit(engine, actor="token 0011aabb", action="stop_requested", now_us=1, variant_id="v1", session_id=end.session_id, request_id=request_id, facts={"post_id": "p1"})

    if is_first:
        await note(UUID(REQUEST))
    await persist(engine, [record("started"), end])
    await note(UUID(REQUEST))
    assert [row[2] for row in sql(REQUESTS)] == [REQUEST]
    await note(uuid4())
    assert len(sql(REQUESTS)) == 2


@pytest.mark.parametrize("request_", [{}, {"requested_by": "me"}, {"requested_by": 1, "request_id": REQUEST}, {"requested_by": "me", "request_id": "7"}])
async def test_a_stop_of_which_nobody_knows_who_asked_ends_all_the_same(engine: AsyncEngine, sql: Sql, record: Record, request_: dict[str, Any]):
    """Its record may come from anybody."""
    assert await persist(engine, [stopped(record, **request_)]) == Persisted(started=1, stopped=1)
    assert sql(REQUESTS) == []


@pytest.mark.usefixtures("pool")
async def test_a_kill_ends_the_session_and_cleans_up(engine: AsyncEngine, sql: Sql, record: Record):
    """Session, pool, posts that were still to go out, and the audit; nothing of another variant."""
    await persist(engine, [record("started")])
    kill = record("killed")
    assert await persist(engine, [kill]) == Persisted(killed=1, variants_killed=1, posts_cancelled=2)
    assert sql(
        "SELECT is_active, was_killed, outcome, kill_reason, final_engagement_rate, final_interaction_count, final_view_count, ended_at > started_at FROM variant_monitoring"
    ) == [(False, True, "killed", "Below 50% of expected engagement rate", 0.02, 10, 500, True)]
    assert sql("SELECT monitoring_metadata ->> 'kill_id', monitoring_metadata #>> '{counts,view}', monitoring_metadata ->> 'source' FROM variant_monitoring") == [
        (str(kill.kill_id), "500", "test")
    ]
    assert sql("SELECT variant_id, status, kill_id, killed_at IS NOT NULL FROM variant_pool ORDER BY variant_id") == [
        ("v1", "killed", kill.kill_id, True),
        ("v2", "active", None, False),
    ]
    reason = f"Below 50% of expected engagement rate (kill {kill.kill_id})"
    assert sql("SELECT status, cancel_reason, cancelled_at IS NOT NULL FROM scheduled_post WHERE variant_id = 'v1' ORDER BY id") == [
        ("cancelled", reason, True),
        ("cancelled", reason, True),
        ("published", None, False),
        ("failed", None, False),
        ("cancelled", None, False),
    ]
    assert sql("SELECT count(*) FROM scheduled_post WHERE variant_id = 'v2' AND status = 'cancelled'") == [(1,)]
    assert actions(sql) == [
        ("monitor", "session_started", "v1"),
        ("monitor", "session_ended", "v1"),
        ("sink", "variant_killed", "v1"),
        ("sink", "posts_cancelled", "v1"),
    ]
    assert sql("SELECT facts -> 'posts' FROM monitoring_audit WHERE action = 'posts_cancelled'") == [([{"id": 1, "status": "scheduled"}, {"id": 2, "status": "retry_scheduled"}],)]


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("kind", ["timed_out", "stopped"])
async def test_other_ends_leave_pool_and_posts_alone(engine: AsyncEngine, sql: Sql, record: Record, kind: str):
    """Only a kill takes a variant down."""
    before = everything(sql)[1:3]
    assert await persist(engine, [record("started"), record(kind, final_engagement_rate=None, final_view_count=0)]) == Persisted(started=1, **{kind: 1})
    assert sql("SELECT outcome, was_killed, kill_reason, final_engagement_rate FROM variant_monitoring") == [(kind, False, f"reason of {kind}", None)]
    assert everything(sql)[1:3] == before


@pytest.mark.usefixtures("pool")
async def test_a_repetition_changes_nothing(engine: AsyncEngine, sql: Sql, record: Record):
    """Not a row, not a row's version, no audit row: in one batch, in two, and when the records come apart."""
    batch = [record("started"), record("started"), record("killed"), record("killed"), record("started", "v2"), record("timed_out", "v2")]
    assert await persist(engine, batch) == Persisted(started=2, killed=1, timed_out=1, variants_killed=1, posts_cancelled=2)
    before = everything(sql)
    for again in (batch, batch[::-1], *([one] for one in batch)):
        assert await persist(engine, again) == Persisted()
    assert everything(sql) == before


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("apart", [True, False])
async def test_an_end_may_come_before_its_start(engine: AsyncEngine, sql: Sql, record: Record, apart: bool):
    """The rows are those of the usual order, audit included; the start that follows changes nothing."""
    batch = [record("killed"), record("started")]
    for part in [[batch[0]], [batch[1]]] if apart else [batch]:
        await persist(engine, part)
    assert sql("SELECT is_active, outcome, persona_id FROM variant_monitoring") == [(False, "killed", "anna")]
    assert [action for _, action, _ in actions(sql)] == ["session_started", "session_ended", "variant_killed", "posts_cancelled"]


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("apart", [True, False])
async def test_the_first_of_several_ends_wins(engine: AsyncEngine, sql: Sql, record: Record, apart: bool):
    """In the database, or else in the batch. A later kill cleans nothing up."""
    batch = [record("timed_out"), record("killed"), record("stopped")]
    total = Persisted()
    for part in [[one] for one in batch] if apart else [batch]:
        total += await persist(engine, part)
    assert total == Persisted(started=1, timed_out=1)
    assert sql("SELECT outcome, kill_reason FROM variant_monitoring") == [("timed_out", "reason of timed_out")]
    assert sql("SELECT DISTINCT status FROM variant_pool") == [("active",)]


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("order", [("b", "a"), ("a", "b")])
async def test_of_several_kills_of_a_variant_the_first_names_the_cleanup(engine: AsyncEngine, sql: Sql, record: Record, order: tuple[str, str]):
    """Both sessions end; pool and posts carry the id of the kill that came first in the batch."""
    batch = [record("killed", post_id=post) for post in order]
    assert await persist(engine, batch) == Persisted(started=2, killed=2, variants_killed=1, posts_cancelled=2)
    first = ids.kill_id(ids.session_id("v1", order[0]))
    assert sql("SELECT kill_id FROM variant_pool WHERE variant_id = 'v1'") == [(first,)]
    assert sql("SELECT count(*) FROM scheduled_post WHERE cancel_reason LIKE %s", f"%{first})") == [(2,)]


async def test_a_variant_that_the_pool_does_not_know_is_not_invented(engine: AsyncEngine, sql: Sql, record: Record):
    """Its posts are cancelled all the same."""
    sql("INSERT INTO scheduled_post (variant_id, scheduled_for, status) VALUES ('v1', now(), 'scheduled')")
    assert await persist(engine, [record("killed")]) == Persisted(started=1, killed=1, posts_cancelled=1)
    assert sql("SELECT * FROM variant_pool") == []


@pytest.mark.usefixtures("pool")
async def test_a_post_that_is_scheduled_after_the_kill_does_not_go_out(engine: AsyncEngine, sql: Sql, record: Record):
    """It is cancelled as it is inserted, or made runnable again, with the kill's id; the audit says so."""
    await persist(engine, [record("killed")])
    sql("INSERT INTO scheduled_post (variant_id, scheduled_for, status) VALUES ('v1', now(), 'scheduled'), ('v2', now(), 'scheduled')")
    sql("UPDATE scheduled_post SET status = 'retry_scheduled' WHERE variant_id = 'v1' AND status = 'failed'")
    assert sql("SELECT count(*) FROM scheduled_post WHERE variant_id = 'v1' AND status IN ('scheduled', 'retry_scheduled')") == [(0,)]
    kill = f"Variant is killed (kill {ids.kill_id(ids.session_id('v1', 'p1'))})"
    assert sql("SELECT count(*) FROM scheduled_post WHERE variant_id = 'v1' AND cancel_reason = %s", kill) == [(2,)]
    assert sql("SELECT count(*) FROM scheduled_post WHERE variant_id = 'v2' AND status = 'scheduled'") == [(2,)]
    assert sql("SELECT actor, facts #>> '{posts,0,status}' FROM monitoring_audit WHERE actor = 'scheduled_post' ORDER BY id") == [
        ("scheduled_post", "scheduled"),
        ("scheduled_post", "retry_scheduled"),
    ]


async def test_cleanup_works_on_tables_of_others(database: str, sql: Sql, record: Record):
    """Their ids may be uuids, their kill_id a text, their status an enum."""
    from streams.database import create_engine
    from streams.settings import Settings
    from streams.store import migrate

    sql("CREATE TYPE post_status AS ENUM ('scheduled', 'retry_scheduled', 'published', 'failed', 'cancelled')")
    sql("CREATE TYPE pool_status AS ENUM ('active', 'killed')")
    sql("CREATE TABLE variant_pool (variant_id varchar(200) PRIMARY KEY, persona_id text, status pool_status, killed_at timestamptz, kill_id text, updated_at timestamptz)")
    sql(
        "CREATE TABLE scheduled_post (id uuid DEFAULT gen_random_uuid(), variant_id varchar(99), scheduled_for timestamptz, status post_status,"
        " cancelled_at timestamptz, cancel_reason text, updated_at timestamptz)"
    )
    sql("INSERT INTO variant_pool (variant_id, status) VALUES ('v1', 'active')")
    sql("INSERT INTO scheduled_post (variant_id, scheduled_for, status) VALUES ('v1', now(), 'scheduled')")
    settings = Settings.model_validate({"database_url": database})
    migrate(settings)
    engine = create_engine(settings)
    assert await persist(engine, [record("killed")]) == Persisted(started=1, killed=1, variants_killed=1, posts_cancelled=1)
    await engine.dispose()
    assert sql("SELECT p.status, p.kill_id, s.status FROM variant_pool p JOIN scheduled_post s USING (variant_id)") == [
        ("killed", str(ids.kill_id(ids.session_id("v1", "p1"))), "cancelled")
    ]


async def test_odd_texts_are_ordinary(engine: AsyncEngine, sql: Sql, record: Record):
    """Quotes, SQL, paths, right-to-left marks, astral characters, and numbers beyond 64 bits in the metadata."""
    odd = "'; DROP TABLE variant_pool; --\\ ../\u202e\U0001f600{}$1:x%s"
    await persist(engine, [record("started", odd, odd, persona_id=odd, monitoring_metadata={"event_metadata": {odd: [10**30, 1e308, -0.5]}})])
    assert sql("SELECT variant_id, post_id, persona_id FROM variant_monitoring") == [(odd, odd, odd)]
    assert sql("SELECT monitoring_metadata #> ARRAY['event_metadata', %s, '0'] FROM variant_monitoring", odd) == [(10**30,)]


async def test_an_empty_batch_needs_no_server(engine: AsyncEngine):
    """Nothing to write, nothing asked."""
    assert await persist(engine, []) == Persisted()

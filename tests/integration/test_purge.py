"""What is old goes, in bounded batches; what is young or active stays."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from models.errors import Reject
from models.moments import DAY, to_datetime
from models.monitoring_record import MonitoringRecord
from streams import purge as purge_module
from streams.audit import audit
from streams.cleanup import revive
from streams.persistence import persist
from streams.purge import Purged, purge

Sql = Callable[..., list[tuple[Any, ...]]]
Record = Callable[..., MonitoringRecord]

NOW_US = 1_800_000_000_000_000


async def test_sessions_that_ended_before_the_limit_go(engine: AsyncEngine, sql: Sql, record: Record):
    """One of exactly that age stays, and so does one that is still active, however old."""
    ended = {"older": NOW_US - 30 * DAY - 1, "exactly": NOW_US - 30 * DAY, "younger": NOW_US - DAY}
    await persist(engine, [record("timed_out", variant, ended_at_us=moment) for variant, moment in ended.items()])
    await persist(engine, [record("started", "active", started_at_us=NOW_US - 90 * DAY)])
    assert (await purge(engine, 30, NOW_US)).sessions == 1
    assert sql("SELECT variant_id FROM variant_monitoring ORDER BY 1") == [("active",), ("exactly",), ("younger",)]


async def test_audit_rows_go_by_the_moment_they_tell(engine: AsyncEngine, sql: Sql):
    """Although nobody else may remove one, before or after."""
    for moment in (NOW_US - 30 * DAY - 1, NOW_US - 30 * DAY):
        await audit(engine, actor="ada", action="looked", now_us=moment)
    assert await purge(engine, 30.0, NOW_US) == Purged(sessions=0, audit_rows=1)
    assert sql("SELECT at FROM monitoring_audit") == [(to_datetime(NOW_US - 30 * DAY),)]
    with pytest.raises(Exception, match="append-only"):
        sql("DELETE FROM monitoring_audit")


async def test_a_purge_goes_in_batches_and_tells_how_far_it_is(engine: AsyncEngine, sql: Sql, monkeypatch: pytest.MonkeyPatch, record: Record):
    """Also when the rows are a multiple of the batch."""
    monkeypatch.setattr(purge_module, "BATCH_ROWS", 4)
    await persist(engine, [record("timed_out", f"v{number}") for number in range(8)])
    sql("INSERT INTO monitoring_audit (at, actor, action) SELECT '2001-01-01Z', 'a', 'b' FROM generate_series(1, 6)")
    seen: list[Purged] = []
    assert await purge(engine, 0, NOW_US, seen.append) == Purged(sessions=8, audit_rows=6 + 16)
    assert [one.sessions for one in seen[:4]] == [4, 8, 8, 8]
    assert seen[-1] == Purged(8, 22)
    assert sql("SELECT count(*) FROM variant_monitoring") == sql("SELECT count(*) FROM monitoring_audit") == [(0,)]


@pytest.mark.parametrize("days", [-0.001, 36_501, float("nan"), float("inf")])
async def test_an_age_that_makes_no_sense_is_refused(engine: AsyncEngine, days: float):
    """Nothing is removed."""
    with pytest.raises(Reject, match="must be 0 to 36500"):
        await purge(engine, days, NOW_US)


async def test_others_can_add_to_the_audit(engine: AsyncEngine, sql: Sql):
    """Who, what, when, to which session and variant, on which request, with which facts."""
    session, request = uuid.uuid4(), uuid.uuid4()
    await audit(engine, actor="api", action="stop_refused", now_us=NOW_US + 1, variant_id="v'1", session_id=session, request_id=request, facts={"status": 404, "": None})
    assert sql("SELECT at, actor, action, variant_id, session_id, request_id, facts FROM monitoring_audit") == [
        (to_datetime(NOW_US + 1), "api", "stop_refused", "v'1", session, request, {"status": 404, "": None})
    ]
    with pytest.raises(Reject):
        await audit(engine, actor="a\0b", action="x", now_us=NOW_US)


async def test_calls_that_were_over_before_the_limit_go(engine: AsyncEngine, sql: Sql):
    """One of exactly that age stays, and so does one that is still to be made, however old."""
    for variant, state, over_us in (("older", "confirmed", NOW_US - 30 * DAY - 1), ("exactly", "given_up", NOW_US - 30 * DAY), ("pending", "pending", None)):
        moment = None if over_us is None else to_datetime(over_us)
        sql(
            """INSERT INTO outbound_call (idempotency_key, event, kill_id, session_id, variant_id, target, body, state, created_at, finished_at)
               VALUES (gen_random_uuid(), 'variant_killed', gen_random_uuid(), gen_random_uuid(), %s, 't', '{}', %s, '2001-01-01Z', %s)""",
            variant,
            state,
            moment,
        )
    assert await purge(engine, 30, NOW_US) == Purged(sessions=0, audit_rows=0, outbound_calls=1)
    assert sql("SELECT variant_id FROM outbound_call ORDER BY 1") == [("exactly",), ("pending",)]


@pytest.mark.parametrize("is_in_pool", [True, False])
async def test_a_call_that_a_revival_has_to_take_back_stays(engine: AsyncEngine, sql: Sql, monkeypatch: pytest.MonkeyPatch, record: Record, is_in_pool: bool):
    """However old: as long as the variant is killed, by this kill or another one. Then it goes, and so does what told of the revival."""
    monkeypatch.setattr(purge_module, "BATCH_ROWS", 1)
    if is_in_pool:
        sql("INSERT INTO variant_pool (variant_id, persona_id, status) VALUES ('v1', 'anna', 'active'), ('v2', 'anna', 'active')")
    kills = [record("killed", variant, post, ended_at_us=ended) for variant, post, ended in (("v1", "p1", NOW_US - 2), ("v1", "p2", NOW_US), ("v2", "p1", NOW_US - 2))]
    await persist(engine, kills, "t")
    sql("UPDATE outbound_call SET state = 'confirmed', attempts = 1, finished_at = '2001-01-01Z'")
    if is_in_pool:
        sql("UPDATE variant_pool SET status = 'active' WHERE variant_id = 'v2'")
    assert (await purge(engine, 0, NOW_US)).outbound_calls == 1
    assert sql("SELECT variant_id FROM variant_monitoring") == [("v1",)]
    await revive(engine, "v1", actor="ada", request_id=None, now_us=NOW_US)
    told = sql("SELECT kill_id FROM outbound_call WHERE event = 'variant_revived' ORDER BY id")
    assert told == [(kill.kill_id,) for kill in kills[:2]]
    sql("UPDATE outbound_call SET state = 'confirmed', attempts = 1, finished_at = '2001-01-02Z' WHERE state = 'pending'")
    assert (await purge(engine, 0, NOW_US)).outbound_calls == 4

"""``StorePort``: one suite for the store in memory and for PostgreSQL; and the API's reads on real records."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncEngine

from models import ids
from models.errors import Reject, Retry, Stop
from models.moments import SECOND
from models.monitoring_record import MonitoringRecord
from models.views import SessionView, place_of
from streams.audit import audit
from streams.cleanup import revive
from streams.clock import wall_clock
from streams.database import create_engine, ping
from streams.local.child import free_port
from streams.metrics import Metrics
from streams.persistence import persist
from streams.settings import Settings
from streams.store import Store
from streams.web.database import Database
from streams.web.install import application_options, mount
from streams.web.memory import MemoryLive, MemoryPublish, MemoryStore, ended, recorded, view
from streams.web.ports import SessionFilter, StorePort

Api = tuple[aiohttp.ClientSession, MemoryLive]
BEGUN = 1_700_000_000_000_000
REQUEST = str(uuid.uuid4())


class Case:
    """A store under test, and how to fill it."""

    def __init__(self, store: StorePort, put: Callable[[SessionView], Awaitable[None]], kill: Callable[[str], Awaitable[None]]) -> None:
        self.store = store
        self.put = put
        self.kill = kill


def database(engine: AsyncEngine) -> Database:
    """The real store, wired as the worker does it."""
    return Database(reads=Store(engine), ping=partial(ping, engine), revive=partial(revive, engine), audit=partial(audit, engine), now_us=wall_clock)


@pytest.fixture
def memory_case() -> Case:
    """The store in memory."""
    memory = MemoryStore()

    async def put(session: SessionView) -> None:
        memory.put(recorded(session))

    async def kill(variant_id: str) -> None:
        memory.killed[variant_id] = True

    return Case(memory, put, kill)


@pytest.fixture
def postgresql_case(engine: AsyncEngine, record: Callable[..., MonitoringRecord], sql: Callable[..., list[tuple[Any, ...]]]) -> Case:
    """The real one."""

    async def put_row(session: SessionView) -> None:
        changes = {"started_at_us": session.started_at_us, "persona_id": session.persona_id}
        await persist(engine, [record("started", session.variant_id, session.post_id, **changes)])
        if session.outcome:
            finals = {"ended_at_us": session.ended_at_us, "final_view_count": session.final_view_count, "final_interaction_count": session.final_interaction_count}
            metadata = {"policy": "ratio", "counts": session.counts}
            end = record(
                session.outcome,
                session.variant_id,
                session.post_id,
                kill_reason=session.kill_reason,
                final_engagement_rate=session.final_engagement_rate,
                monitoring_metadata=metadata,
                **changes,
                **finals,
            )
            await persist(engine, [end])

    async def kill_row(variant_id: str) -> None:
        sql("INSERT INTO variant_pool (variant_id, persona_id, status) VALUES (%s, 'ada', 'active')", variant_id)
        sql("INSERT INTO scheduled_post (variant_id, scheduled_for, status) VALUES (%s, now() + interval '1 day', 'scheduled')", variant_id)
        await persist(engine, [record("killed", variant_id)])

    return Case(database(engine), put_row, kill_row)


@pytest.fixture(params=["memory", "postgresql"])
def case(request: pytest.FixtureRequest) -> Case:
    """Both, one after the other."""
    return request.getfixturevalue(f"{request.param}_case")


def session(number: int, *, outcome: str | None = None, variant_id: str | None = None, persona_id: str = "ada") -> SessionView:
    """The number-th session, each a second older than the one before."""
    made = view(variant_id or f"v{number}", f"p{number}", started_at_us=BEGUN - number * SECOND, persona_id=persona_id, views=500, likes=10)
    return ended(made, outcome, "why", BEGUN + SECOND) if outcome else made


async def test_the_latest_session_is_the_one_posted_last(case: Case):
    """Of the variant, or the one of a posting; None where there is none."""
    await case.put(session(1, variant_id="v"))
    await case.put(session(0, variant_id="v", outcome="killed"))
    latest, older = await case.store.latest("v", None), await case.store.latest("v", "p1")
    assert (latest.post_id, latest.outcome, latest.was_killed, latest.kill_reason, latest.ended_at_us) == ("p0", "killed", True, "why", BEGUN + SECOND)
    assert (latest.final_view_count, latest.final_interaction_count, latest.final_engagement_rate, latest.counts["view"], latest.policy) == (500, 10, 0.02, 500, "ratio")
    assert (older.is_active, older.started_at_us, older.counts, older.session_id) == (True, BEGUN - SECOND, None, str(ids.session_id("v", "p1")))
    assert await case.store.latest("v", "p9") is None
    assert await case.store.latest("nobody", None) is None


async def test_sessions_come_newest_first_in_pages_that_neither_repeat_nor_leave_out(case: Case):
    """Strictly after the place, by start and then by id; also where several started at the same moment."""
    for number in range(9):
        await case.put(view(f"v{number}", started_at_us=BEGUN - number // 3 * SECOND))
    seen, after = [], None
    while page := await case.store.sessions(SessionFilter(), 2, after):
        seen += page
        after = place_of(page[-1])
    assert [place_of(record) for record in seen] == sorted((place_of(record) for record in seen), reverse=True)
    assert len({record.session_id for record in seen}) == 9


async def test_sessions_are_filtered(case: Case):
    """By variant, persona and outcome, alone and together."""
    for number, outcome in enumerate([None, "killed", "timed_out", "stopped"]):
        await case.put(session(number, outcome=outcome, persona_id="ada" if number < 2 else "bo"))

    async def found(**wanted: str) -> list[str]:
        return [record.variant_id for record in await case.store.sessions(SessionFilter(**wanted), 10, None)]

    assert await found() == ["v0", "v1", "v2", "v3"]
    assert await found(outcome="active") == ["v0"]
    assert await found(outcome="killed") == ["v1"]
    assert await found(persona_id="bo") == ["v2", "v3"]
    assert await found(persona_id="bo", outcome="stopped") == ["v3"]
    assert await found(variant_id="v2") == ["v2"]
    assert await found(variant_id="v2", outcome="active") == []


async def test_a_revival_happens_once(case: Case):
    """Then the variant is not killed any more; an unknown one was never known."""
    await case.kill("v")
    restored = await case.store.revive("v", actor="somebody", request_id=str(uuid.uuid4()))
    assert (restored["in_pool"], restored["posts_passed"]) == (True, 0)
    with pytest.raises(Reject):
        await case.store.revive("v", actor="somebody", request_id=str(uuid.uuid4()))
    with pytest.raises(LookupError):
        await case.store.revive("nobody", actor="somebody", request_id=REQUEST)


async def test_it_answers_a_ping_and_takes_audit_rows(case: Case):
    """Also one without a session."""
    await case.store.ping()
    await case.store.audit(actor="token 0011aabb", action="stop_requested", session_id=str(ids.session_id("v", "p")), variant_id="v", request_id=REQUEST, facts={"post_id": "p"})
    await case.store.audit(actor="anonymous", action="call_refused", session_id=None, variant_id=None, request_id=REQUEST, facts={})


async def test_audit_rows_say_who_asked_for_what(engine: AsyncEngine, sql: Callable[..., list[tuple[Any, ...]]]):
    """They are in the table as they were given."""
    await database(engine).audit(
        actor="token 0011aabb", action="stop_requested", session_id=str(ids.session_id("v", "p")), variant_id="v", request_id=REQUEST, facts={"post_id": "p"}
    )
    assert sql("SELECT actor, action, variant_id, session_id, request_id::text, facts FROM monitoring_audit") == [
        ("token 0011aabb", "stop_requested", "v", ids.session_id("v", "p"), REQUEST, {"post_id": "p"})
    ]


async def test_without_postgresql_every_call_asks_to_be_repeated():
    """Nobody listens: Retry, quickly."""
    engine = create_engine(Settings.model_validate({"database_url": f"postgresql://early_kill@127.0.0.1:{free_port()}/early_kill"}))
    store = database(engine)
    for call in (store.latest("v", None), store.sessions(SessionFilter(), 10, None), store.ping(), store.revive("v", actor="a", request_id=REQUEST)):
        with pytest.raises((Retry, Stop)) as error:
            await call
        assert isinstance(error.value, Retry)
    await engine.dispose()


@asynccontextmanager
async def serving(migrated: Settings, engine: AsyncEngine) -> AsyncIterator[Api]:
    """The API on the real database; its live sessions are in memory."""
    settings = migrated.model_copy(update={"web_port": free_port()})
    live, app = MemoryLive(), web.Application(**application_options())
    store = database(engine)
    mount(app, settings=settings, live=live, store=store, publish=MemoryPublish(), metrics=Metrics(), kafka_ping=store.ping)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", settings.web_port).start()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{settings.web_port}") as http:
        yield http, live
    await runner.cleanup()


@pytest.fixture
async def api(migrated: Settings, engine: AsyncEngine) -> AsyncIterator[Api]:
    """One of them."""
    async with serving(migrated, engine) as api:
        yield api


async def test_the_api_reads_records_and_revives(api: Api, engine: AsyncEngine, record: Callable[..., MonitoringRecord], sql: Callable[..., list[tuple[Any, ...]]]):
    """Status and sessions from the record with its final numbers; a revival restores the post."""
    http, live = api
    sql("INSERT INTO variant_pool (variant_id, persona_id, status) VALUES ('v1', 'ada', 'active')")
    sql("INSERT INTO scheduled_post (variant_id, scheduled_for, status) VALUES ('v1', now() + interval '1 day', 'scheduled')")
    await persist(engine, [record("started"), record("killed"), record("started", "v2", started_at_us=BEGUN - SECOND)])
    live.put(view("v2", "p1", started_at_us=BEGUN - SECOND, views=7, likes=1))
    async with http.get("/performance-monitor/status/v1") as response:
        body = await response.json()
        assert (body["live"], body["outcome"], body["final_view_count"], body["counts"], body["kill_reason"]) == (
            False,
            "killed",
            500,
            {"view": 500, "like": 10},
            "Below 50% of expected engagement rate",
        )
    async with http.get("/performance-monitor/sessions?limit=1") as response:
        page = await response.json()
        assert [item["variant_id"] for item in page["items"]] == ["v1"]
    async with http.get(f"/performance-monitor/sessions?limit=1&cursor={page['next_cursor']}") as response:
        page = await response.json()
        assert [(item["variant_id"], item["live"], item["view_count"]) for item in page["items"]] == [("v2", True, 7)]
        assert page["next_cursor"] is None
    async with http.post("/performance-monitor/revive/v1") as response:
        body = await response.json()
        assert (response.status, body["in_pool"], len(body["posts_restored"]), body["kill_id"]) == (200, True, 1, str(ids.kill_id(ids.session_id("v1", "p1"))))
    assert sql("SELECT status FROM variant_pool") == [("active",)]


@pytest.mark.parametrize(("header", "again"), [("Idempotency-Key", 200), ("X-Request-Id", 409)])
async def test_a_revival_repeated_at_another_worker_is_done_once_if_it_has_a_key(
    migrated: Settings, engine: AsyncEngine, record: Callable[..., MonitoringRecord], sql: Callable[..., list[tuple[Any, ...]]], header: str, again: int
):
    """It gets the first answer; an id for the logs is no key."""
    sql("INSERT INTO variant_pool (variant_id, persona_id, status) VALUES ('v1', 'ada', 'active')")
    await persist(engine, [record("killed")])
    headers = {header: str(uuid.uuid4())}
    async with serving(migrated, engine) as (one, _), serving(migrated, engine) as (other, _):
        async with one.post("/performance-monitor/revive/v1", headers=headers) as response:
            first = await response.read()
            assert response.status == 200
        async with other.post("/performance-monitor/revive/v1", headers=headers) as response:
            assert response.status == again
            assert (await response.read() == first) is (again == 200)
    assert sql("SELECT request_id::text FROM monitoring_audit WHERE action = 'variant_revived'") == [(headers[header],)]


@pytest.mark.parametrize("hostile", ["'; DROP TABLE variant_monitoring; --", "\u202e\u0645", "%", "_", "\\", "x" * 200, "\U0001f600" * 200])
async def test_hostile_ids_are_ordinary_to_the_database(api: Api, engine: AsyncEngine, record: Callable[..., MonitoringRecord], hostile: str):
    """They are found as they are, and nothing else is."""
    http, _ = api
    await persist(engine, [record("started", hostile), record("started", "other")])
    async with http.get("/performance-monitor/sessions", params={"variant_id": hostile}) as response:
        assert [item["variant_id"] for item in (await response.json())["items"]] == [hostile]


async def test_requests_share_the_small_pool(api: Api):
    """A burst of reads waits for connections rather than failing."""
    http, _ = api

    async def status() -> int:
        async with http.get("/performance-monitor/sessions") as response:
            return response.status

    assert set(await asyncio.gather(*(status() for _ in range(60)))) == {200}

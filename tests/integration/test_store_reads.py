"""Reads of sessions, page by page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from models import ids
from models.errors import Retry
from models.moments import MINUTE
from models.monitoring_record import MonitoringRecord
from models.views import place_of
from streams.database import create_engine
from streams.persistence import persist
from streams.settings import Settings
from streams.store import Store

Sql = Callable[..., list[tuple[Any, ...]]]
Record = Callable[..., MonitoringRecord]

T = 1_700_000_000_000_000


@pytest.fixture
def store(engine: AsyncEngine) -> Store:
    """As the API has it."""
    return Store(engine)


async def test_the_latest_session_is_the_one_posted_last(engine: AsyncEngine, store: Store, record: Record):
    """Not the one recorded last; ``post_id`` picks one; of others nothing is known."""
    await persist(engine, [record("started", post_id="new", started_at_us=T + 2), record("started", "v2", "other", started_at_us=T + 3)])
    await persist(engine, [record("killed", post_id="old", started_at_us=T + 1)])
    latest, old = await store.latest_session("v1"), await store.latest_session("v1", "old")
    assert latest is not None
    assert old is not None
    assert (latest.post_id, latest.is_active, latest.outcome, latest.ended_at_us) == ("new", True, None, None)
    assert (old.session_id, old.outcome, old.was_killed, old.started_at_us, old.deadline_us) == (str(ids.session_id("v1", "old")), "killed", True, T + 1, T + 1 + 10 * MINUTE)
    assert (old.final_view_count, old.final_interaction_count, old.final_engagement_rate, old.ended_at_us) == (500, 10, 0.02, T + 60_000_001)
    assert old.counts == {"view": 500, "like": 10}
    for variant, post in (("v1", "other"), ("nobody", None), ("v\0", None), ("v1", "\0"), ("\ud800", None)):
        assert await store.latest_session(variant, post) is None


async def read(store: Store, **filters: Any) -> list[str]:
    """All pages of two."""
    found, after = [], None
    while page := await store.sessions(limit=2, after=after, **filters):
        assert len(page) <= 2
        found += [item.variant_id for item in page]
        after = place_of(page[-1])
    return found


async def test_pages_hold_every_session_once_newest_first(engine: AsyncEngine, store: Store, record: Record):
    """Filters together; sessions posted at the same microsecond are cut between pages like any others."""
    kinds = ["started", "killed", "timed_out", "stopped"]
    await persist(engine, [record(kinds[n % 4], f"v{n}", persona_id=f"persona{n % 2}", started_at_us=T + n // 3) for n in range(12)])
    everything = await read(store)
    assert sorted(everything) == sorted(f"v{n}" for n in range(12))
    assert [int(variant[1:]) // 3 for variant in everything] == [3, 3, 3, 2, 2, 2, 1, 1, 1, 0, 0, 0]
    assert await read(store, outcome="active") == ["v8", "v4", "v0"]
    assert await read(store, outcome="killed") == ["v9", "v5", "v1"]
    assert await read(store, outcome="killed", persona_id="persona0") == []
    assert await read(store, outcome="killed", persona_id="persona1", variant_id="v5") == ["v5"]
    assert sorted(await read(store, persona_id="persona1")) == sorted(f"v{n}" for n in range(1, 12, 2))
    assert await read(store, variant_id="\0") == []
    assert [item.variant_id for item in await store.sessions(outcome="active", limit=1)] == ["v8"]


async def test_a_session_that_starts_while_pages_are_read_shifts_none(engine: AsyncEngine, store: Store, record: Record):
    """A page goes on from a place, not from a number of rows."""
    await persist(engine, [record("started", f"v{n}", started_at_us=T + n) for n in range(4)])
    page = await store.sessions(limit=2)
    await persist(engine, [record("started", "new", started_at_us=T + 99)])
    assert [item.variant_id for item in await store.sessions(limit=2, after=place_of(page[-1]))] == ["v1", "v0"]


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        ({}, "variant_monitoring_newest_idx"),
        ({"outcome": "active"}, "variant_monitoring_is_active_idx"),
        ({"outcome": "killed"}, "variant_monitoring_outcome_idx"),
        ({"persona_id": "p7"}, "variant_monitoring_persona_id_idx"),
        ({"variant_id": "v7"}, "variant_monitoring_variant_id_idx"),
    ],
)
async def test_each_list_is_read_from_its_index(engine: AsyncEngine, sql: Sql, monkeypatch: pytest.MonkeyPatch, filters: dict[str, str], index: str):
    """In its order, so that a page costs the same in a table of millions: no sort, no scan of the whole."""
    sql(
        """INSERT INTO variant_monitoring (session_id, variant_id, persona_id, post_id, started_at, ended_at, is_active, was_killed, outcome)
           SELECT gen_random_uuid(), 'v' || i % 20, 'p' || i % 100, 'x', now() - i * interval '1 s', CASE WHEN i % 50 > 0 THEN now() END,
                  i % 50 = 0, i % 50 = 1, CASE i % 50 WHEN 0 THEN NULL WHEN 1 THEN 'killed' ELSE 'timed_out' END FROM generate_series(1, 20000) i"""
    )
    sql("VACUUM ANALYZE variant_monitoring")
    store = Store(engine)
    queries: list[sa.Select[Any]] = []
    rows = Store._rows

    async def explain(self: Store, query: sa.Select[Any]) -> object:
        queries.append(query)
        return await rows(self, query)

    monkeypatch.setattr(Store, "_rows", explain)
    page = await store.sessions(limit=10, **filters)  # type: ignore[arg-type]
    await store.sessions(limit=10, after=place_of(page[-1]), **filters)  # type: ignore[arg-type]
    for query in queries:
        async with engine.connect() as connection:
            statement = str(query.compile(connection.sync_engine, compile_kwargs={"literal_binds": True}))
            plan = "\n".join(row[0] for row in await connection.execute(sa.text("EXPLAIN " + statement.replace(":", "\\:"))))
        assert f"Scan Backward using {index}" in plan, plan
        assert "Sort" not in plan, plan


async def test_reads_say_when_the_server_is_away():
    """For a 503 with one clear line."""
    engine = create_engine(Settings.model_validate({"database_url": "postgresql://early_kill@127.0.0.1:1/early_kill"}))
    with pytest.raises(Retry, match=r"PostgreSQL: .*Connection refused"):
        await Store(engine).latest_session("v")
    await engine.dispose()


async def test_reads_survive_a_restart_without_an_error(store: Store, sql: Sql):
    """A connection that went stale in the pool is noticed before it is used."""
    assert await store.latest_session("v") is None
    sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
    assert await store.latest_session("v") is None

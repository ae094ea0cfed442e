"""The calls of the API, over real HTTP, on workers that share a world in memory."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

from models.errors import Reject
from models.ids import session_id
from models.moments import DAY, SECOND, format_moment
from streams.topics import partition_for
from streams.web import commands, lookups
from streams.web.memory import ended, recorded, view
from streams.web.playground import PARTITIONS, World

P = "/performance-monitor"
POSTED = {"variant_id": "v1", "persona_id": "ada", "post_id": "p1", "expected_engagement_rate": 0.06}
CONTRACT_FIELDS = {
    *("variant_id", "persona_id", "post_id", "session_id", "is_active", "outcome", "started_at", "ended_at", "deadline", "was_killed", "kill_reason", "expected_engagement_rate"),
    *("view_count", "interaction_count", "engagement_rate", "kill_rate", "counts", "final_engagement_rate", "final_interaction_count", "final_view_count", "live"),
}


def now_us() -> int:
    """The wall clock."""
    return time.time_ns() // 1000


def segment(text: str) -> str:
    """An id as one segment of a path."""
    return quote(text, safe="").replace(".", "%2E")


class Client:
    """Asks with no help from a client library: paths go out as they are given."""

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self.session = session
        self.base = base

    async def __call__(self, method: str, path: str, *, base: str | None = None, **how: object) -> tuple[int, dict, aiohttp.ClientResponse]:
        async with self.session.request(method, URL((base or self.base) + path, encoded=True), **how) as response:
            body = await response.json(content_type=None) if "json" in response.content_type else {"text": await response.text()}
            return response.status, body, response


@pytest.fixture
async def world():
    """One worker."""
    async with World() as made:
        yield made


@pytest.fixture
async def ask(world: World):
    """A client of the one worker."""
    async with aiohttp.ClientSession() as session:
        yield Client(session, world.url)


@pytest.fixture
async def three():
    """Three workers."""
    async with World(3, limits={"start_seconds": 1.0, "stop_seconds": 1.0}) as made:
        yield made


@pytest.fixture
async def ask_three(three: World):
    """A client of the first of three."""
    async with aiohttp.ClientSession() as session:
        yield Client(session, three.url)


async def test_a_start_is_answered_once_the_status_call_finds_it(world: World, ask: Client):
    """Read your writes: right after 201 the session is there, active and live."""
    world.delay_seconds = 0.1
    status, body, _ = await ask("POST", f"{P}/start-monitoring", json=POSTED)
    assert (status, body) == (201, {"status": "monitoring_started", "variant_id": "v1", "session_id": str(session_id("v1", "p1"))})
    status, body, _ = await ask("GET", f"{P}/status/v1")
    assert (status, body["is_active"], body["live"], body["post_id"]) == (200, True, True, "p1")


async def test_a_start_is_found_by_every_worker(three: World, ask_three: Client):
    """Whichever worker is asked next, it knows the session."""
    three.delay_seconds = 0.05
    for number in range(6):
        status, _, _ = await ask_three("POST", f"{P}/start-monitoring", json={**POSTED, "variant_id": f"v{number}"})
        assert status == 201
        answers = [await ask_three("GET", f"{P}/status/v{number}", base=worker.url) for worker in three.workers]
        assert [(status, body["live"]) for status, body, _ in answers] == [(200, True)] * 3


async def test_what_is_published_is_what_was_sent():
    """Optional fields go along, unknown ones and nulls do not."""
    async with World() as world, aiohttp.ClientSession() as session:
        sent = {**POSTED, "posted_at": "2025-11-24T16:00:00+01:00", "timeout_minutes": 43200, "metadata": {"k": [1]}, "source": None, "unknown": 1}
        sent["posted_at"] = format_moment(now_us())
        status, _, _ = await Client(session, world.url)("POST", f"{P}/start-monitoring", json=sent)
        assert status == 201
        assert world.publish.posted == [{**POSTED, "posted_at": sent["posted_at"], "timeout_minutes": 43200.0, "metadata": {"k": [1]}}]


async def test_what_would_be_too_large_on_the_topic_is_not_published(world: World, ask: Client):
    """A body on the limit that grows by a byte when it is published, for a number is written as one, is 413; one that does not is taken."""
    for post, timeout, status in [("p1", "43200.0", 201), ("p2", "43200", 413)]:
        start = json.dumps({**POSTED, "post_id": post, "source": ""}, separators=(",", ":"))[:-1] + f',"timeout_minutes":{timeout}}}'
        body = start.replace('"source":""', f'"source":"{"x" * (64 * 1024 - len(start))}"')
        assert (await ask("POST", f"{P}/start-monitoring", data=body, headers={"Content-Type": "application/json"}))[0] == status
    assert [message["post_id"] for message in world.publish.posted] == ["p1"]


async def test_what_is_monitored_is_not_started_again(world: World, ask: Client):
    """409 with the contract's title, while the session is active and after its end; nothing is published."""
    session = world.put("v1", "p1")
    status, body, response = await ask("POST", f"{P}/start-monitoring", json=POSTED)
    assert (status, body["title"], body["status"]) == (409, "Already monitoring variant", 409)
    assert response.content_type == "application/problem+json"
    world.workers[0].live.put(ended(session, "killed", "x", now_us()))
    assert (await ask("POST", f"{P}/start-monitoring", json=POSTED))[0] == 409
    assert world.publish.posted == []


async def test_what_only_the_database_remembers_is_not_started_again(world: World, ask: Client):
    """A posting that was monitored long ago is refused as well."""
    world.store.put(recorded(ended(view("v1", "p1"), "timed_out", "x", now_us())))
    assert (await ask("POST", f"{P}/start-monitoring", json=POSTED))[0] == 409


async def test_another_posting_of_the_variant_is_another_session(world: World, ask: Client):
    """The same variant may be monitored beside itself under another post_id."""
    world.put("v1", "p1")
    status, body, _ = await ask("POST", f"{P}/start-monitoring", json={**POSTED, "post_id": "p2"})
    assert (status, body["session_id"]) == (201, str(session_id("v1", "p2")))


async def test_of_two_equal_starts_at_once_one_is_refused(world: World, ask: Client):
    """One 201, one 409."""
    world.delay_seconds = 0.05
    answers = await asyncio.gather(*(ask("POST", f"{P}/start-monitoring", json=POSTED) for _ in range(2)))
    assert sorted(status for status, _, _ in answers) == [201, 409]


async def test_of_two_equal_starts_at_once_neither_is_refused_while_nobody_knows():
    """409 says that the posting is monitored, and here none is."""
    async with World(is_deaf=True, limits={"start_seconds": 0.3}) as world, aiohttp.ClientSession() as session:
        ask = Client(session, world.url)
        answers = await asyncio.gather(*(ask("POST", f"{P}/start-monitoring", json=POSTED) for _ in range(2)))
    assert [status for status, _, _ in answers] == [503, 503]


async def test_of_equal_starts_at_several_workers_the_one_whose_record_began_the_session_is_told_so(three: World, ask_three: Client):
    """Each has published before it could see another's record; the first record wins."""
    three.delay_seconds = 0.1
    answers = await asyncio.gather(
        *(ask_three("POST", f"{P}/start-monitoring", base=worker.url, json={**POSTED, "persona_id": f"asked-{index}"}) for index, worker in enumerate(three.workers))
    )
    assert len(three.publish.posted) == 3
    winner = int(three.publish.posted[0]["persona_id"].removeprefix("asked-"))
    assert [status for status, _, _ in answers] == [201 if index == winner else 409 for index in range(3)]


@pytest.mark.parametrize("is_offset_known", [True, False])
async def test_a_start_is_its_own_where_nobody_can_say_otherwise(three: World, ask_three: Client, is_offset_known: bool, monkeypatch: pytest.MonkeyPatch):
    """It had to be sent again, so that it may be there twice; or an owner of an earlier version does not say which record began the session."""
    publish = three.publish.publish_posted

    async def published(message: dict[str, Any]) -> int | None:
        await publish(message)
        return 7 if is_offset_known else None

    monkeypatch.setattr(three.publish, "publish_posted", published)
    if is_offset_known:
        put = three.put
        monkeypatch.setattr(three, "put", lambda *names, **changes: put(*names, **{**changes, "posted_offset": None}))
    assert (await ask_three("POST", f"{P}/start-monitoring", json=POSTED))[0] == 201


async def test_a_start_that_nobody_sees_is_not_called_started():
    """503 with Retry-After once the time is over."""
    async with World(is_deaf=True, limits={"start_seconds": 0.2}) as world, aiohttp.ClientSession() as session:
        begun = time.monotonic()
        status, body, response = await Client(session, world.url)("POST", f"{P}/start-monitoring", json=POSTED)
        assert (status, body["status"], response.headers["Retry-After"]) == (503, 503, "2")
        assert 0.2 <= time.monotonic() - begun < 1.5


async def test_without_kafka_a_start_asks_to_be_repeated(world: World, ask: Client):
    """503, and no traceback."""
    world.publish.is_away = True
    status, body, response = await ask("POST", f"{P}/start-monitoring", json=POSTED)
    assert (status, response.headers["Retry-After"]) == (503, "2")
    assert "Traceback" not in str(body)


async def test_without_postgresql_a_start_works(world: World, ask: Client):
    """The monitor goes on without its database; the owner knows what it monitors."""
    world.store.is_away = True
    assert (await ask("POST", f"{P}/start-monitoring", json=POSTED))[0] == 201


async def test_a_database_that_stands_still_holds_nobody_up_for_long(world: World, ask: Client, monkeypatch: pytest.MonkeyPatch):
    """Even if its driver takes long to call a question off."""

    async def hangs(*_: object) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(10)

    monkeypatch.setattr(world.store, "latest", hangs)
    monkeypatch.setattr(lookups, "_DATABASE_PATIENCE_SECONDS", 0.5)
    begun = time.monotonic()
    assert (await ask("POST", f"{P}/start-monitoring", json=POSTED))[0] == 201
    assert (await ask("GET", f"{P}/status/unknown"))[0] == 503
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"variant_id": None}, "variant_id"),
        ({"variant_id": ""}, "variant_id"),
        ({"variant_id": "x" * 201}, "variant_id"),
        ({"variant_id": "a\nb"}, "variant_id"),
        ({"persona_id": 5}, "persona_id"),
        ({"post_id": None}, "post_id"),
        ({"expected_engagement_rate": None}, "expected_engagement_rate"),
        ({"expected_engagement_rate": 0}, "expected_engagement_rate"),
        ({"expected_engagement_rate": 1.0001}, "expected_engagement_rate"),
        ({"expected_engagement_rate": True}, "expected_engagement_rate"),
        ({"expected_engagement_rate": "0.06"}, "expected_engagement_rate"),
        ({"kill_threshold": 0}, "kill_threshold"),
        ({"min_interactions": 10.0}, "min_interactions"),
        ({"min_interactions": 1_000_001}, "min_interactions"),
        ({"timeout_minutes": 43_201}, "timeout_minutes"),
        ({"posted_at": "yesterday"}, "posted_at"),
        ({"posted_at": "1999-12-31T23:59:59Z"}, "posted_at"),
        ({"posted_at": "2001-01-01T00:00:00Z"}, "posted_at"),
        ({"posted_at": 1e300}, "posted_at"),
        ({"policy": "coin"}, "policy"),
        ({"metadata": {"k": "x" * 5000}}, "metadata"),
        ({"schema_version": 2}, "schema_version"),
    ],
)
async def test_a_bad_start_names_the_field(world: World, ask: Client, change: dict[str, object], field: str):
    """422 with the field that is wrong; nothing is published."""
    status, body, response = await ask("POST", f"{P}/start-monitoring", json={**POSTED, **change})
    assert (status, response.content_type) == (422, "application/problem+json")
    assert field in [error["field"] for error in body["errors"]]
    assert all(error["detail"] for error in body["errors"])
    assert world.publish.posted == []


async def test_a_missing_expected_rate_is_named_although_topics_have_a_default(ask: Client):
    """Over HTTP it is required."""
    status, body, _ = await ask("POST", f"{P}/start-monitoring", json={name: value for name, value in POSTED.items() if name != "expected_engagement_rate"})
    assert (status, body["errors"]) == (422, [{"field": "expected_engagement_rate", "detail": "field required"}])


async def test_a_window_that_closed_over_a_day_ago_is_refused_on_the_bound(ask: Client):
    """The monitor would not take such a post, so it is not said to be monitored; just within the day it is."""
    old = {**POSTED, "posted_at": format_moment(now_us() - DAY - 10 * 60 * SECOND - SECOND)}
    assert (await ask("POST", f"{P}/start-monitoring", json=old))[1]["errors"][0]["field"] == "posted_at"
    young = {**POSTED, "posted_at": format_moment(now_us() - DAY - 10 * 60 * SECOND + 5 * SECOND)}
    assert (await ask("POST", f"{P}/start-monitoring", json=young))[0] == 201


async def test_status_has_every_field_of_the_contract(world: World, ask: Client):
    """Live: the numbers of this moment, and the line they are held against."""
    world.put("v1", "p1", started_at_us=now_us(), views=500, likes=20)
    status, body, _ = await ask("GET", f"{P}/status/v1")
    assert status == 200
    assert set(body) >= CONTRACT_FIELDS
    assert (body["view_count"], body["interaction_count"], body["engagement_rate"], body["kill_rate"], body["counts"]["like"], body["live"]) == (500, 20, 0.04, 0.03, 20, True)
    assert (body["ended_at"], body["outcome"], body["final_view_count"]) == (None, None, None)


async def test_status_shows_the_session_posted_last_or_the_one_asked_for(world: World, ask: Client):
    """The latest posting wins; post_id picks another."""
    world.put("v1", "old", started_at_us=now_us() - 60 * SECOND)
    world.put("v1", "new", started_at_us=now_us())
    assert (await ask("GET", f"{P}/status/v1"))[1]["post_id"] == "new"
    assert (await ask("GET", f"{P}/status/v1?post_id=old"))[1]["post_id"] == "old"
    assert (await ask("GET", f"{P}/status/v1?post_id=none"))[0] == 404


async def test_a_later_session_that_workers_have_forgotten_is_still_the_last(world: World, ask: Client):
    """A long window may outlive a later, short one, which only the database remembers."""
    world.put("v1", "long", started_at_us=now_us() - 5 * DAY)
    world.store.put(recorded(ended(view("v1", "short", started_at_us=now_us() - 3 * DAY), "timed_out", "x", now_us() - 3 * DAY)))
    assert (await ask("GET", f"{P}/status/v1"))[1]["post_id"] == "short"


async def test_an_ended_session_is_shown_from_its_record(world: World, ask: Client):
    """The record after the end, with the final numbers in the live fields too."""
    session = ended(view("v1", views=500, likes=10), "killed", "Below 50% of expected engagement rate", now_us())
    world.store.put(recorded(session, 1_764_000_300_000_000))
    body = (await ask("GET", f"{P}/status/v1"))[1]
    assert (body["live"], body["as_of"], body["outcome"], body["was_killed"]) == (False, "2025-11-24T16:05:00.000000Z", "killed", True)
    assert (body["view_count"], body["interaction_count"], body["engagement_rate"], body["counts"]["view"]) == (500, 10, 0.02, 500)
    assert (body["final_view_count"], body["final_interaction_count"], body["final_engagement_rate"]) == (500, 10, 0.02)


@pytest.mark.parametrize("is_away", [False, True])
async def test_a_session_just_ended_is_shown_as_ended_before_the_database_has_it(world: World, ask: Client, *, is_away: bool):
    """The owner's view of the end stands in until the record is there, also while PostgreSQL is away."""
    session = world.put("v1", views=500, likes=10)
    world.store.put(recorded(session))
    world.store.is_away = is_away
    world.workers[0].live.put(ended(session, "killed", "why", now_us()))
    body = (await ask("GET", f"{P}/status/v1"))[1]
    assert (body["is_active"], body["outcome"], body["kill_reason"], body["live"]) == (False, "killed", "why", True)


async def test_an_unknown_variant_is_not_found(ask: Client):
    """404 as a problem document."""
    status, body, response = await ask("GET", f"{P}/status/nobody")
    assert (status, body["status"], response.content_type) == (404, 404, "application/problem+json")


async def test_when_nobody_who_could_know_answers_status_says_so(world: World, ask: Client):
    """Unknown to the owner and PostgreSQL away: 503, not 404."""
    world.store.is_away = True
    status, _, response = await ask("GET", f"{P}/status/nobody")
    assert (status, "Retry-After" in response.headers) == (503, True)


@pytest.mark.parametrize("lost", ["stopped", "recovering"])
async def test_when_the_owner_cannot_be_asked_the_record_answers(three: World, ask_three: Client, lost: str):
    """Live is false, as_of says when it was true, counts that the record lacks are null."""
    variant_id = next(f"v{n}" for n in range(100) if three.owner(f"v{n}") is three.workers[1])
    session = three.put(variant_id, views=9, likes=1)
    three.store.put(recorded(session, 1_764_000_300_000_000))
    if lost == "stopped":
        await three.stop(three.workers[1])
    else:
        three.workers[1].live.recovering = True
    status, body, _ = await ask_three("GET", f"{P}/status/{variant_id}")
    assert (status, body["live"], body["as_of"], body["is_active"], body["view_count"]) == (200, False, "2025-11-24T16:05:00.000000Z", True, None)


async def test_the_worker_that_took_a_partition_over_is_found(three: World, ask_three: Client):
    """The owners' list is behind: the old owner is gone, another answers for its partition."""
    variant_id = next(f"v{n}" for n in range(100) if three.owner(f"v{n}") is three.workers[1])
    session = view(variant_id, views=3)
    await three.stop(three.workers[1])
    three.workers[2].live.partitions += three.workers[1].live.partitions
    three.workers[2].live.put(session)
    body = (await ask_three("GET", f"{P}/status/{variant_id}"))[1]
    assert (body["live"], body["view_count"]) == (True, 3)


async def test_a_worker_that_lost_a_partition_is_not_believed(three: World, ask_three: Client):
    """State left behind in a former owner's memory is not shown."""
    variant_id = next(f"v{n}" for n in range(100) if three.owner(f"v{n}") is three.workers[1])
    three.put(variant_id, views=1)
    three.workers[1].live.partitions = []
    three.workers[2].live.partitions += [1]
    three.workers[2].live.put(view(variant_id, views=2))
    assert (await ask_three("GET", f"{P}/status/{variant_id}"))[1]["view_count"] == 2


async def test_active_merges_all_workers_in_pages(three: World, ask_three: Client):
    """Newest first over all workers; the cursor goes on exactly where the page ended."""
    begun = now_us()
    for number in range(25):
        three.put(f"v{number}", started_at_us=begun - number // 2 * SECOND)
    three.workers[0].live.put(ended(three.put("gone"), "killed", "x", begun))
    three.owner("gone").live.put(ended(three.put("gone"), "killed", "x", begun))
    seen, cursor, pages = [], "", 0
    while cursor is not None:
        _, body, _ = await ask_three("GET", f"{P}/active?limit=10" + (f"&cursor={cursor}" if cursor else ""), base=three.workers[pages % 3].url)
        seen += body["items"]
        cursor, pages = body["next_cursor"], pages + 1
        assert body["complete"] is True
    assert pages == 3
    assert [(item["started_at"], item["session_id"]) for item in seen] == sorted(((item["started_at"], item["session_id"]) for item in seen), reverse=True)
    assert sorted(item["variant_id"] for item in seen) == sorted(f"v{number}" for number in range(25))
    assert all(item["live"] and set(item) >= CONTRACT_FIELDS for item in seen)


async def test_active_shows_the_records_of_partitions_nobody_answers_for(three: World, ask_three: Client):
    """A worker that is down does not take its sessions off the list."""
    for number in range(12):
        three.store.put(recorded(three.put(f"v{number}", started_at_us=now_us())))
    await three.stop(three.workers[1])
    _, body, _ = await ask_three("GET", f"{P}/active")
    assert {item["variant_id"] for item in body["items"]} == {f"v{number}" for number in range(12)}
    assert {item["variant_id"] for item in body["items"] if not item["live"]} == {f"v{number}" for number in range(12) if three.owner(f"v{number}") is three.workers[1]}
    three.store.is_away = True
    _, body, _ = await ask_three("GET", f"{P}/active")
    assert body["complete"] is False
    assert all(item["live"] for item in body["items"])


@pytest.mark.parametrize("path", ["active", "sessions"])
async def test_a_page_that_is_just_full_is_the_last(world: World, ask: Client, path: str):
    """No cursor to an empty page."""
    for variant_id in ("v1", "v2"):
        world.store.put(recorded(world.put(variant_id)))
    assert (await ask("GET", f"{P}/{path}?limit=2"))[1]["next_cursor"] is None
    assert (await ask("GET", f"{P}/{path}?limit=1"))[1]["next_cursor"] is not None


async def test_active_is_empty_when_nothing_is(ask: Client):
    """An empty list, and no cursor."""
    assert (await ask("GET", f"{P}/active"))[1] == {"items": [], "next_cursor": None, "complete": True}


@pytest.mark.parametrize("path", ["active", "sessions"])
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=-1", "limit"),
        ("limit=x", "limit"),
        ("limit=1.0", "limit"),
        ("limit=%D9%A3", "limit"),
        ("limit=", "limit"),
        ("limit=" + "9" * 5000, "limit"),
    ]
    + [(f"cursor={cursor}", "cursor") for cursor in ["", "x", "%C3%A9", "AAAA", "a" * 32, "f" + "_" * 31, "%00", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]],
)
async def test_a_bad_limit_or_cursor_names_the_parameter(ask: Client, path: str, query: str, field: str):
    """422, whatever it holds."""
    status, body, _ = await ask("GET", f"{P}/{path}?{query}")
    if query == "cursor=" + "a" * 32:  # 24 bytes, but of a moment beyond the year 9999
        assert status == 422
    assert (status, [error["field"] for error in body["errors"]]) == (422, [field])


@pytest.mark.parametrize("limit", [1, 500])
async def test_the_bounds_of_limit_are_taken(ask: Client, limit: int):
    """1 and 500 are fine."""
    assert (await ask("GET", f"{P}/active?limit={limit}"))[0] == 200


async def test_sessions_lists_records_with_live_numbers_for_the_active(three: World, ask_three: Client):
    """Newest first, filtered; what the owner knows is newer than the record."""
    begun = now_us()
    for number in range(8):
        session = three.put(f"v{number}", started_at_us=begun - number * SECOND, persona_id="ada" if number % 2 else "bo", views=number)
        if number >= 4:
            session = ended(session, "killed" if number % 2 else "timed_out", "x", begun)
            three.owner(session.variant_id).live.put(session)
        three.store.put(recorded(session))
    _, body, _ = await ask_three("GET", f"{P}/sessions?limit=5")
    assert [item["variant_id"] for item in body["items"]] == ["v0", "v1", "v2", "v3", "v4"]
    assert [item["live"] for item in body["items"]] == [True] * 4 + [False]
    assert body["items"][3]["view_count"] == 3
    _, body, _ = await ask_three("GET", f"{P}/sessions?limit=5&cursor={body['next_cursor']}")
    assert ([item["variant_id"] for item in body["items"]], body["next_cursor"]) == (["v5", "v6", "v7"], None)
    for query, wanted in [("persona_id=ada", "v1 v3 v5 v7"), ("outcome=killed", "v5 v7"), ("outcome=active", "v0 v1 v2 v3"), ("variant_id=v2", "v2"), ("outcome=stopped", "")]:
        _, body, _ = await ask_three("GET", f"{P}/sessions?{query}")
        assert [item["variant_id"] for item in body["items"]] == wanted.split()


async def test_sessions_of_an_unknown_outcome_are_refused(ask: Client):
    """422 that names outcome."""
    status, body, _ = await ask("GET", f"{P}/sessions?outcome=lost")
    assert (status, body["errors"][0]["field"]) == (422, "outcome")


async def test_sessions_shows_an_end_that_the_record_lacks(world: World, ask: Client):
    """The owner's end is shown; under outcome=active it is no longer listed."""
    session = world.put("v1")
    world.store.put(recorded(session))
    world.workers[0].live.put(ended(session, "killed", "x", now_us()))
    assert (await ask("GET", f"{P}/sessions"))[1]["items"][0]["outcome"] == "killed"
    assert (await ask("GET", f"{P}/sessions?outcome=active"))[1]["items"] == []


async def test_sessions_of_more_variants_than_fit_one_question(three: World, ask_three: Client):
    """A full page of active sessions with the longest ids still gets its live numbers."""
    begun = now_us()
    for number in range(500):
        three.store.put(recorded(three.put("\U0001f600" * 197 + f"{number:03}", started_at_us=begun - number, views=1)))
    _, body, _ = await ask_three("GET", f"{P}/sessions?limit=500")
    assert [item["view_count"] for item in body["items"]] == [1] * 500


async def test_without_postgresql_sessions_asks_to_be_repeated(world: World, ask: Client):
    """503 with Retry-After: the list is the database's."""
    world.store.is_away = True
    status, _, response = await ask("GET", f"{P}/sessions")
    assert (status, response.headers["Retry-After"]) == (503, "2")


async def test_stop_is_answered_once_it_has_taken_effect(three: World, ask_three: Client):
    """200 with the contract's body; the session is ended then, and a second stop finds nothing."""
    three.delay_seconds = 0.1
    for number in range(4):
        three.put(f"v{number}")
        assert (await ask_three("POST", f"{P}/stop/v{number}"))[:2] == (200, {"status": "monitoring_stopped", "variant_id": f"v{number}"})
        body = (await ask_three("GET", f"{P}/status/v{number}"))[1]
        assert (body["is_active"], body["outcome"], body["kill_reason"]) == (False, "stopped", "Manually stopped")
        assert (await ask_three("POST", f"{P}/stop/v{number}"))[0] == 404
        assert three.publish.stops[number]["partition"] == three.put(f"v{number}").partition


async def test_stop_without_post_id_stops_every_posting_with_it_only_that_one(world: World, ask: Client):
    """Each posting has a session of its own."""
    for post in ("a", "b", "c"):
        world.put("v1", post)
    assert (await ask("POST", f"{P}/stop/v1?post_id=b"))[0] == 200
    assert [stop["post_id"] for stop in world.publish.stops] == ["b"]
    assert (await ask("POST", f"{P}/stop/v1"))[0] == 200
    assert sorted(stop["post_id"] for stop in world.publish.stops) == ["a", "b", "c"]
    assert (await ask("POST", f"{P}/stop/v1?post_id=b"))[0] == 404
    assert (await ask("POST", f"{P}/stop/nobody"))[0] == 404


async def test_a_stop_goes_where_its_session_is(world: World, ask: Client):
    """Also where another partitioner than the usual one put its post."""
    made = world.put("v1")
    elsewhere = (made.partition + 1) % 4
    world.workers[0].live.put(replace(made, partition=elsewhere))
    assert (await ask("POST", f"{P}/stop/v1"))[0] == 200
    assert [stop["partition"] for stop in world.publish.stops] == [elsewhere]


async def test_a_hundred_stops_at_once_are_one(world: World, ask: Client):
    """All get the same answer; one stop is published, and one audit row is written."""
    world.delay_seconds = 0.3
    world.put("v1")
    answers = await asyncio.gather(*(ask("POST", f"{P}/stop/v1") for _ in range(100)))
    assert {status for status, _, _ in answers} == {200}
    assert len(world.publish.stops) == 1
    assert [row["action"] for row in world.store.audits] == ["stop_requested"]


async def test_a_stop_also_stops_what_was_posted_since_another_one_looked(world: World, ask: Client):
    """Two requests share a stop; what the first one could not see is for the second, whether the first one found anything or not."""
    world.delay_seconds = 0.3
    world.put("v1", "early")
    first = asyncio.create_task(ask("POST", f"{P}/stop/v1"))
    while not world.publish.stops:
        await asyncio.sleep(0.01)
    world.put("v1", "late")
    assert (await ask("POST", f"{P}/stop/v1"))[0] == 200
    assert (await first)[0] == 200
    assert [stop["post_id"] for stop in world.publish.stops] == ["early", "late"]


async def test_a_stop_that_joins_one_that_finds_nothing_looks_for_itself(world: World, ask: Client, monkeypatch: pytest.MonkeyPatch):
    """The other one had looked before the post was there."""
    has_looked, may_go_on = asyncio.Event(), asyncio.Event()
    find = world.workers[0].services.commands._cluster.find

    async def slowly(*arguments: Any) -> Any:
        found = await find(*arguments)
        has_looked.set()
        await may_go_on.wait()
        return found

    monkeypatch.setattr(world.workers[0].services.commands._cluster, "find", slowly)
    world.store.put(recorded(ended(view("v1", "old"), "timed_out", "x", now_us())))
    first = asyncio.create_task(ask("POST", f"{P}/stop/v1"))
    await has_looked.wait()
    world.put("v1", "new")
    second = asyncio.create_task(ask("POST", f"{P}/stop/v1"))
    await asyncio.sleep(0.1)
    may_go_on.set()
    assert (await first)[0] == 404
    assert (await second)[0] == 200


async def test_a_stop_that_is_not_seen_to_take_effect_is_not_called_done():
    """503 with Retry-After once the time is over."""
    async with World(is_deaf=True, limits={"stop_seconds": 0.2}) as world, aiohttp.ClientSession() as session:
        world.put("v1")
        status, _, response = await Client(session, world.url)("POST", f"{P}/stop/v1")
        assert (status, response.headers["Retry-After"]) == (503, "2")


async def test_a_stop_while_the_owner_is_away_is_published_for_what_the_record_knows(three: World, ask_three: Client):
    """It goes to Kafka, where the next owner finds it; but it is not said to have taken effect."""
    variant_id = next(f"v{n}" for n in range(100) if three.owner(f"v{n}") is three.workers[1])
    await three.stop(three.workers[1])
    assert (await ask_three("POST", f"{P}/stop/{variant_id}"))[0] == 503  # nobody can tell whether it is active
    assert three.publish.stops == []
    three.store.put(recorded(three.put(variant_id)))
    assert (await ask_three("POST", f"{P}/stop/{variant_id}"))[0] == 503
    assert [stop["variant_id"] for stop in three.publish.stops] == [variant_id]
    three.store.put(recorded(ended(view(variant_id), "killed", "x", now_us())))
    assert (await ask_three("POST", f"{P}/stop/{variant_id}"))[0] == 404


async def test_starts_and_stops_are_on_the_trail_and_in_the_log_without_postgresql(world: World, ask: Client, caplog: pytest.LogCaptureFixture):
    """Who asked for what; when the database is away the log has the row."""
    await ask("POST", f"{P}/start-monitoring", json=POSTED)
    await ask("POST", f"{P}/stop/v1")
    assert [(row["action"], row["variant_id"], row["actor"], row["session_id"]) for row in world.store.audits] == [
        ("start_requested", "v1", "anonymous", str(session_id("v1", "p1"))),
        ("stop_requested", "v1", "anonymous", str(session_id("v1", "p1"))),
    ]
    world.store.is_away = True
    world.put("v2")
    assert (await ask("POST", f"{P}/stop/v2"))[0] == 200
    await world.workers[0].services.trail.drain()
    assert '"variant_id": "v2"' in caplog.text


async def test_revive_says_what_was_restored(world: World, ask: Client):
    """200 once, then 409; 404 for an unknown variant; 503 while PostgreSQL is away."""
    world.store.killed["v1"] = True
    status, body, _ = await ask("POST", f"{P}/revive/v1")
    assert (status, body) == (200, {"status": "variant_revived", "variant_id": "v1", "kill_id": None, "in_pool": True, "posts_restored": [], "posts_passed": 0})
    assert (await ask("POST", f"{P}/revive/v1"))[0] == 409
    assert (await ask("POST", f"{P}/revive/nobody"))[0] == 404
    world.store.is_away = True
    assert (await ask("POST", f"{P}/revive/v1"))[0] == 503


async def test_a_revival_does_not_wait_for_ever_for_a_database_that_stands_still(world: World, ask: Client, monkeypatch: pytest.MonkeyPatch):
    """503 with Retry-After, and the question is called off, or a few of them would hold every connection. Asked again under its key, it is done."""
    hung: list[dict[str, Any]] = []
    called_off = 0

    async def hangs(_: str, **how: Any) -> None:
        nonlocal called_off
        hung.append(how)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            called_off += 1
            await asyncio.sleep(10)

    world.store.killed["v1"] = True
    key = {"headers": {"Idempotency-Key": "390c3896-29b9-43ac-95f0-031d3760aa74"}}
    begun = time.monotonic()
    with monkeypatch.context() as standing_still:
        standing_still.setattr(world.store, "revive", hangs)
        standing_still.setattr(commands, "_REVIVE_PATIENCE_SECONDS", 0.2)
        status, _, response = await asyncio.wait_for(ask("POST", f"{P}/revive/v1", **key), 5)
    assert (status, response.headers["Retry-After"]) == (503, "2")
    assert time.monotonic() - begun < 5
    assert (len(hung), called_off) == (1, 1)
    assert (await ask("POST", f"{P}/revive/v1", **key))[0] == 200
    assert world.store.audits[-1]["request_id"] == hung[0]["request_id"]


async def test_a_key_that_is_no_uuid_is_known_again_by_the_database(world: World, ask: Client):
    """Also at another worker, and for this path only: a revival that was made and not answered is told of, not refused."""
    ids = []
    for path, key in [("v1", "order 17"), ("v1", "order 17"), ("v2", "order 17"), ("v1", "order 18"), ("v1", None)]:
        world.store.killed[path] = False  # so that no answer is kept
        _, _, response = await ask("POST", f"{P}/revive/{path}", headers={} if key is None else {"Idempotency-Key": key})
        ids.append(response.headers["X-Request-Id"])
    assert ids[0] == ids[1]
    assert len(set(ids)) == 4


async def test_a_revival_that_the_database_refuses_is_not_said_to_be_of_a_living_variant(world: World, ask: Client, monkeypatch: pytest.MonkeyPatch):
    """A rule of somebody else's table is in the way: the variant is killed, and stays so."""

    async def refuses(_: str, **__: Any) -> None:
        raise Reject("PostgreSQL: no post may be scheduled on a Sunday")

    monkeypatch.setattr(world.store, "revive", refuses)
    status, body, _ = await ask("POST", f"{P}/revive/v1")
    assert (status, body["title"]) == (409, "Revival refused")
    assert "on a Sunday" in body["detail"]


async def test_a_kill_can_be_undone_as_soon_as_status_tells_of_it(world: World, ask: Client):
    """Though the sink has not written it yet: the call waits for that. Once it is undone, it is 409 as ever."""
    killed = world.put("v1", is_active=False, outcome="killed", was_killed=True, kill_reason="Below 50% of expected engagement rate")
    assert (await ask("GET", f"{P}/status/v1"))[1]["was_killed"]

    def write() -> None:
        world.store.put(recorded(killed))
        world.store.killed["v1"] = True

    asyncio.get_running_loop().call_later(0.3, write)
    assert (await ask("POST", f"{P}/revive/v1"))[0] == 200
    assert (await ask("POST", f"{P}/revive/v1"))[0] == 409


async def test_a_kill_that_is_not_recorded_in_time_is_not_called_unknown():
    """503 with Retry-After: there is something to undo."""
    async with World(limits={"revive_seconds": 0.2}) as world, aiohttp.ClientSession() as session:
        world.put("v1", is_active=False, outcome="killed", was_killed=True)
        status, body, response = await Client(session, world.url)("POST", f"{P}/revive/v1")
        assert (status, body["detail"], response.headers["Retry-After"]) == (503, "The kill is not recorded yet, so nothing was revived; repeat the request.", "2")


async def test_what_only_an_absent_owner_would_know_is_not_called_unknown(three: World, ask_three: Client):
    """503: the session may be monitored, and not recorded yet. Once its partition has an owner again that does not know it, it is 404."""
    name = next(f"v{number}" for number in range(100) if three.owner(f"v{number}") is three.workers[1])
    three.put(name)
    await three.stop(three.workers[1])
    status, _, response = await ask_three("GET", f"{P}/status/{name}")
    assert (status, response.headers["Retry-After"]) == (503, "2")
    three.workers[0].live.partitions.append(partition_for(name, PARTITIONS))
    assert (await ask_three("GET", f"{P}/status/{name}"))[0] == 404


@pytest.mark.parametrize(
    "variant_id",
    [
        "a/b",
        "..",
        ".",
        "../../etc/passwd",
        "%2F",
        "100%",
        "a b+c",
        "{x}",
        "'; DROP TABLE variant_monitoring; --",
        "<script>alert(1)</script>",
        "\u202eabc",
        "\u0645\u0631\u062d\u0628\u0627",
        "\U0001f600" * 200,
        "x" * 200,
        "?",
        "#",
        "\\",
        "stop",
        ";a=b",
        "\u2028",
    ],
)
async def test_every_id_that_the_contract_allows_works_in_the_path(world: World, ask: Client, variant_id: str):
    """Status, stop and revive take it percent-encoded, and give it back as it is."""
    world.put(variant_id)
    world.store.killed[variant_id] = True
    status, body, _ = await ask("GET", f"{P}/status/{segment(variant_id)}")
    assert (status, body["variant_id"]) == (200, variant_id)
    status, body, _ = await ask("GET", f"{P}/sessions?variant_id={quote(variant_id, safe='')}")
    assert (status, body["items"]) == (200, [])
    assert (await ask("POST", f"{P}/stop/{segment(variant_id)}"))[:2] == (200, {"status": "monitoring_stopped", "variant_id": variant_id})
    assert (await ask("POST", f"{P}/revive/{segment(variant_id)}"))[0] == 200


@pytest.mark.parametrize("variant_id", ["x" * 201, "%00", "%0A", "a%0d%0ab", "%7F", "%C2%85", "%FF", "%ED%A0%80"])
@pytest.mark.parametrize(("method", "call"), [("GET", "status"), ("POST", "stop"), ("POST", "revive")])
async def test_an_id_that_the_contract_refuses_is_named(ask: Client, method: str, call: str, variant_id: str):
    """422 that names variant_id, never 500."""
    status, body, _ = await ask(method, f"{P}/{call}/{variant_id}")
    assert (status, body["errors"][0]["field"]) == (422, "variant_id")


@pytest.mark.parametrize("post_id", ["", "x" * 201, "%00"])
async def test_a_bad_post_id_in_the_query_is_named(ask: Client, post_id: str):
    """422 that names post_id."""
    status, body, _ = await ask("GET", f"{P}/status/v1?post_id={post_id}")
    assert (status, body["errors"][0]["field"]) == (422, "post_id")


async def test_a_database_that_is_set_up_wrong_is_like_one_that_is_away(world: World, ask: Client) -> None:
    """What is live is answered, a start works, the rest is 503; nothing is 500."""
    world.store.is_wrong = True
    world.put("v1", started_at_us=now_us())
    assert (await ask("GET", f"{P}/status/v1"))[0] == 200
    assert (await ask("POST", f"{P}/start-monitoring", json={**POSTED, "variant_id": "v2"}))[0] == 201
    for method, call in [("GET", "status/v3"), ("GET", "sessions"), ("POST", "revive/v1")]:
        status, body, response = await ask(method, f"{P}/{call}")
        assert (status, response.headers["Retry-After"]) == (503, "2")
        assert "relation" not in str(body)

"""Health, readiness, metrics and the API's description."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest

from models.errors import Retry
from streams.web.memory import ended, recorded
from streams.web.openapi import SESSION
from streams.web.playground import World
from streams.web.readiness import Probe
from streams.web.routes import ROUTES

P = "/performance-monitor"
POSTED = {"variant_id": "v1", "persona_id": "ada", "post_id": "p1", "expected_engagement_rate": 0.06}


@pytest.fixture
async def world():
    """One worker, whose probes ask each time."""
    async with World() as made:
        yield made


@pytest.fixture
async def http():
    """A client."""
    async with aiohttp.ClientSession() as session:
        yield session


async def get(http: aiohttp.ClientSession, url: str) -> tuple[int, dict]:
    """Status and JSON body."""
    async with http.get(url) as response:
        return response.status, await response.json(content_type=None)


async def test_a_ready_worker_says_what_it_has(world: World, http: aiohttp.ClientSession):
    """200 with the state of each dependency and the partitions."""
    world.put("v1")
    assert await get(http, world.url + "/ready") == (
        200,
        {"status": "ready", "kafka": "up", "postgresql": "up", "recovering": False, "rebalancing": False, "stopping": False, "assigned": [0, 1, 2, 3], "active_sessions": 1},
    )


@pytest.mark.parametrize(("trouble", "shown"), [("recovering", {"recovering": True}), ("rebalancing", {"rebalancing": True}), ("kafka", {"kafka": "away"})])
async def test_a_worker_that_cannot_decide_is_not_ready(world: World, http: aiohttp.ClientSession, trouble: str, shown: dict[str, object]):
    """503 while recovering, rebalancing, or without Kafka, and why; it stays alive all the while."""
    world.workers[0].live.recovering = trouble == "recovering"
    world.workers[0].is_rebalancing = trouble == "rebalancing"
    world.is_kafka_away = trouble == "kafka"
    status, body = await get(http, world.url + "/ready")
    assert (status, body["status"]) == (503, "not ready")
    assert body.items() >= shown.items()
    assert await get(http, world.url + "/health") == (200, {"status": "ok"})


async def test_without_postgresql_a_worker_is_ready_and_says_so(world: World, http: aiohttp.ClientSession):
    """The monitor goes on deciding; the metrics show the loss too."""
    world.store.is_away = True
    status, body = await get(http, world.url + "/ready")
    assert (status, body["status"], body["postgresql"]) == (200, "ready", "away")
    async with http.get(world.url + "/metrics") as response:
        assert "performance_monitor_postgresql_up 0.0" in await response.text()


async def test_metrics_know_of_postgresql_where_nobody_asks_for_readiness(world: World, http: aiohttp.ClientSession):
    """A scrape asks for itself, or the gauge would stay at its first value."""
    async with http.get(world.url + "/metrics") as response:
        assert "performance_monitor_postgresql_up 1.0" in await response.text()


async def test_a_dependency_is_asked_once_however_many_ask():
    """A hundred readers at once are one question; the answer is fresh for a second."""
    asked, clock = [], [0.0]

    async def ping() -> None:
        asked.append(clock[0])
        await asyncio.sleep(0.01)

    probe = Probe("Kafka", ping, clock=lambda: clock[0])
    assert all(await asyncio.gather(*(probe.is_up() for _ in range(100))))
    clock[0] = 0.99
    assert await probe.is_up()
    assert asked == [0.0]
    clock[0] = 1.0
    assert await probe.is_up()
    assert asked == [0.0, 1.0]


async def test_a_dependency_that_hangs_is_away(caplog: pytest.LogCaptureFixture):
    """Readiness never waits longer than its patience; loss and return are logged once each."""
    hangs, clock = [True], [0.0]

    async def ping() -> None:
        if hangs[0]:
            await asyncio.sleep(60)

    probe = Probe("Kafka", ping, patience_seconds=0.05, fresh_seconds=0, clock=lambda: clock[0])
    begun = time.monotonic()
    caplog.set_level("INFO")
    assert [await probe.is_up(), await probe.is_up()] == [False, False]
    assert time.monotonic() - begun < 1
    hangs[0] = False
    assert [await probe.is_up(), await probe.is_up()] == [True, True]
    assert [record.getMessage() for record in caplog.records] == ["Kafka does not answer: nothing within 0.05 s", "Kafka answers again"]


async def test_a_dependency_that_cannot_even_be_given_up_is_away_in_time():
    """A driver whose connection is dead takes seconds to call a query off; nobody waits for that, and it is not asked again meanwhile."""
    asked = []

    async def ping() -> None:
        asked.append(1)
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.5)

    probe = Probe("PostgreSQL", ping, patience_seconds=0.05, fresh_seconds=0)
    begun = time.monotonic()
    assert [await probe.is_up(), await probe.is_up()] == [False, False]
    assert time.monotonic() - begun < 0.4
    assert len(asked) == 1
    await asyncio.sleep(0.6)
    assert await probe.is_up() is False
    assert len(asked) == 2


async def test_a_failing_probe_never_fails_the_answer():
    """Whatever the ping raises, the dependency is away."""

    async def ping() -> None:
        raise Retry("refused\nwith a second line")

    assert await Probe("PostgreSQL", ping).is_up() is False


async def test_metrics_are_prometheus_text(world: World, http: aiohttp.ClientSession):
    """The contract's names, in the format that Prometheus asks for, with the sessions that are live here."""
    world.put("v1")
    async with http.get(world.url + "/metrics") as response:
        text = await response.text()
        assert response.headers["Content-Type"].startswith("text/plain; version=")
    assert "performance_monitor_sessions_active 1.0" in text
    assert 'performance_monitor_events_total{result="counted"} 0.0' in text


async def test_the_description_has_every_call_that_is_not_internal(world: World, http: aiohttp.ClientSession):
    """One table makes both, so nothing is served that is not described, and the other way round."""
    status, body = await get(http, world.url + "/openapi.json")
    assert (status, body["openapi"]) == (200, "3.1.0")
    described = {(method.upper(), path): operation for path, methods in body["paths"].items() for method, operation in methods.items()}
    assert set(described) == {(route.method, route.path) for route in ROUTES if not route.is_internal}
    for route in ROUTES:
        if not route.is_internal:
            operation = described[route.method, route.path]
            assert operation["security"] == ([] if route.path == "/health" else [{"bearer": [route.scope.name.lower()]}])
            assert set(operation["responses"]) >= {str(status) for status in route.answers}
            assert ("{variant_id}" in route.path) == any(parameter["name"] == "variant_id" and parameter["in"] == "path" for parameter in operation.get("parameters", []))


async def test_every_call_that_changes_something_takes_an_idempotency_key(world: World, http: aiohttp.ClientSession):
    """The description says so, and its bounds; where it does not, there is none."""
    _, body = await get(http, world.url + "/openapi.json")
    for methods in body["paths"].values():
        for method, operation in methods.items():
            keys = [parameter for parameter in operation.get("parameters", []) if parameter["in"] == "header"]
            assert [(key["name"], key["schema"]["minLength"], key["schema"]["maxLength"]) for key in keys] == ([("Idempotency-Key", 1, 200)] if method == "post" else [])


async def test_every_reference_of_the_description_leads_somewhere(world: World, http: aiohttp.ClientSession):
    """No schema is named that is not there."""
    _, body = await get(http, world.url + "/openapi.json")
    found: list[str] = []

    def walk(node: object) -> None:
        if isinstance(node, dict):
            found.extend(value for name, value in node.items() if name == "$ref")
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(body)
    assert found
    for reference in found:
        target = body
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]


def fits(value: object, schema: dict) -> bool:
    """A small judge of the schemas used for sessions."""
    if "anyOf" in schema:
        return any(fits(value, option) for option in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    if "$ref" in schema:
        return isinstance(value, str)
    kinds = {"string": str, "boolean": bool, "integer": int, "number": (int, float), "object": dict, "null": type(None)}
    return isinstance(value, kinds[schema["type"]]) and not (schema["type"] in ("integer", "number") and isinstance(value, bool))


async def test_sessions_are_as_the_description_says(world: World, http: aiohttp.ClientSession):
    """Live, ended and recorded sessions have exactly the described fields, of the described types."""
    live = world.put("live", views=10, likes=2)
    world.store.put(recorded(live))
    world.store.put(recorded(ended(world.put("ended", views=0), "timed_out", "x", live.deadline_us)))
    world.workers[0].live.partitions = []
    for path in ("status/live", "status/ended"):
        shown = [(await get(http, f"{world.url}{P}/{path}"))[1]]
        world.workers[0].live.partitions = [0, 1, 2, 3]
        shown.append((await get(http, f"{world.url}{P}/{path}"))[1])
        for session in shown:
            assert set(session) == set(SESSION["properties"])
            assert [name for name, value in session.items() if not fits(value, SESSION["properties"][name])] == []


async def test_waiting_calls_give_up_when_the_worker_goes_down(http: aiohttp.ClientSession):
    """A stop that waits does not hold up the worker's end."""
    async with World(is_deaf=True) as world:
        world.put("v1")
        waiting = asyncio.create_task(http.post(f"{world.url}{P}/stop/v1"))
        await asyncio.sleep(0.2)
        begun = time.monotonic()
        await world.stop(world.workers[0])
        assert time.monotonic() - begun < 3
        response = await waiting
        assert response.status == 503
        response.release()

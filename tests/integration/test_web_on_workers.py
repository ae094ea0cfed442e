"""The API of two real monitors on real Kafka and PostgreSQL, as its users see it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from yarl import URL

from models.ids import session_id
from streams.settings import Settings
from tests.integration.system import System, Worker, fresh, running

pytestmark = [pytest.mark.timeout(180)]
P = "/performance-monitor"


@pytest.fixture
async def system(settings: Settings, tmp_path: Path) -> AsyncIterator[System]:
    """Two monitors and a sink."""
    async with running(settings, tmp_path, monitors=2, EARLY_KILL_GRACE_SECONDS="0.5") as made:
        yield made


def posted(variant_id: str, **changes: object) -> dict[str, object]:
    """The body of a start."""
    return {"variant_id": variant_id, "persona_id": "ada", "post_id": "p1", "expected_engagement_rate": 0.06, **changes}


async def until_status(system: System, worker: Worker, path: str, wanted: dict[str, object], seconds: float = 15) -> dict:
    """Ask until the answer has these fields."""
    deadline = time.monotonic() + seconds
    while True:
        status, body = await system.call(worker, "GET", path)
        if status == 200 and body.items() >= wanted.items():
            return body
        assert time.monotonic() < deadline, (status, body)
        await asyncio.sleep(0.1)


async def results(system: System, worker: Worker) -> tuple[float, float]:
    """Records read, and the sum over all results."""
    status, text = await system.call(worker, "GET", "/metrics")
    assert status == 200
    families = {family.name: family.samples for family in text_string_to_metric_families(text)}
    read = sum(sample.value for sample in families["performance_monitor_records_read"])
    return read, sum(sample.value for sample in families["performance_monitor_events"])


async def test_what_one_worker_is_told_every_worker_knows_and_does(system: System):
    """Start on one, ask both; count, list, stop on the other; revive a killed one: read your writes throughout."""
    one, other = system.monitors
    for worker in system.monitors:
        await until_status(system, worker, "/ready", {"status": "ready", "kafka": "up", "postgresql": "up"}, 30)
    assigned = [set((await system.call(worker, "GET", "/ready"))[1]["assigned"]) for worker in system.monitors]
    assert assigned[0] | assigned[1] == {0, 1, 2, 3}
    assert not assigned[0] & assigned[1]

    variants = [fresh("v") for _ in range(8)]
    for number, variant in enumerate(variants):
        worker = system.monitors[number % 2]
        status, body = await system.call(worker, "POST", f"{P}/start-monitoring", json=posted(variant))
        assert (status, body) == (201, {"status": "monitoring_started", "variant_id": variant, "session_id": str(session_id(variant, "p1"))})
        for asked in system.monitors:
            status, body = await system.call(asked, "GET", f"{P}/status/{variant}")
            assert (status, body["is_active"], body["live"], body["kill_rate"]) == (200, True, True, 0.03)
        assert (await system.call(system.monitors[(number + 1) % 2], "POST", f"{P}/start-monitoring", json=posted(variant)))[0] == 409

    await system.interact(variants[0], "view", count=100, post_id="p1")
    await system.interact(variants[0], "like", 3, post_id="p1")
    for asked in system.monitors:
        await until_status(system, asked, f"{P}/status/{variants[0]}", {"view_count": 100, "interaction_count": 3, "engagement_rate": 0.03, "live": True})
        seen, cursor = [], ""
        while cursor is not None:
            _, body = await system.call(asked, "GET", f"{P}/active?limit=3{cursor}")
            seen += [item["variant_id"] for item in body["items"]]
            cursor = body["next_cursor"] and f"&cursor={body['next_cursor']}"
        assert seen == variants[::-1]

    for number, variant in enumerate(variants[1:5]):
        assert await system.call(system.monitors[number % 2], "POST", f"{P}/stop/{variant}") == (200, {"status": "monitoring_stopped", "variant_id": variant})
        for asked in system.monitors:
            _, body = await system.call(asked, "GET", f"{P}/status/{variant}")
            assert (body["is_active"], body["outcome"], body["kill_reason"]) == (False, "stopped", "Manually stopped")
            assert (await system.call(asked, "POST", f"{P}/stop/{variant}"))[0] == 404
    await system.until_ended(variants[1:5])
    await until_status(system, other, f"{P}/status/{variants[1]}", {"live": False, "final_view_count": 0, "final_engagement_rate": None})
    _, body = await system.call(one, "GET", f"{P}/sessions?outcome=stopped")
    assert [item["variant_id"] for item in body["items"]] == variants[1:5][::-1]
    actions = system.query("SELECT action FROM monitoring_audit WHERE variant_id = %s AND actor = 'anonymous' ORDER BY id", variants[1])
    assert sorted(row["action"] for row in actions) == ["start_requested", "stop_requested"]

    doomed = variants[0]
    system.query("INSERT INTO variant_pool (variant_id, persona_id, status) VALUES (%s, 'ada', 'active')", doomed)
    system.query("INSERT INTO scheduled_post (variant_id, scheduled_for, status) VALUES (%s, now() + interval '1 hour', 'scheduled')", doomed)
    assert (await system.call(one, "POST", f"{P}/revive/{doomed}"))[0] == 409
    await system.interact(doomed, "view", count=1000, post_id="p1")
    await system.interact(doomed, "like", 7, post_id="p1")
    for asked in system.monitors:
        await until_status(system, asked, f"{P}/status/{doomed}", {"outcome": "killed", "was_killed": True, "final_view_count": 1100, "final_interaction_count": 10})
    await system.until_ended([doomed])
    status, body = await system.call(other, "POST", f"{P}/revive/{doomed}")
    assert (status, len(body["posts_restored"])) == (200, 1)
    assert system.query("SELECT status FROM variant_pool")[0]["status"] == "active"
    for worker in system.monitors:
        read, summed = await results(system, worker)
        assert read == summed > 0

    twice = fresh("v")
    answers = await asyncio.gather(*(system.call(worker, "POST", f"{P}/start-monitoring", json=posted(twice)) for worker in [one, other] * 2))
    assert sorted(status for status, _ in answers) == [201, 409, 409, 409]


async def test_hostile_ids_go_all_the_way(system: System):
    """Through path, Kafka, state and database, and back as they are."""
    for variant in ("a/b", "../..", "'; DROP TABLE variant_monitoring; --", "\u202e\u0645\u0631", "\U0001f600" * 200, "%2F"):
        segment = quote(variant, safe="").replace(".", "%2E")
        assert (await system.call(system.monitors[0], "POST", f"{P}/start-monitoring", json=posted(variant)))[0] == 201
        for worker in system.monitors:
            async with aiohttp.ClientSession() as http, http.get(URL(f"{worker.url}{P}/status/{segment}", encoded=True)) as response:
                assert (response.status, (await response.json())["variant_id"]) == (200, variant)
        async with aiohttp.ClientSession() as http, http.post(URL(f"{system.monitors[1].url}{P}/stop/{segment}", encoded=True)) as response:
            assert response.status == 200


async def test_reads_go_on_while_a_worker_is_lost(system: System):
    """After a SIGKILL each status is answered at once, from the record until the partitions are taken over, then live again."""
    one, other = system.monitors
    variants = [fresh("v") for _ in range(8)]
    for variant in variants:
        assert (await system.call(one, "POST", f"{P}/start-monitoring", json=posted(variant)))[0] == 201
    await system.until(lambda: len(system.query("SELECT 1 FROM variant_monitoring WHERE is_active")) == len(variants), 15)
    other.kill()
    kinds: set[bool] = set()
    deadline = time.monotonic() + 40
    while True:
        answers = []
        for variant in variants:
            begun = time.monotonic()
            status, body = await system.call(one, "GET", f"{P}/status/{variant}")
            assert status == 200, body
            assert time.monotonic() - begun < 8
            answers.append(body["live"])
        kinds |= set(answers)
        status, body = await system.call(one, "GET", f"{P}/active")
        assert (status, {item["variant_id"] for item in body["items"]}) == (200, set(variants))
        if all(answers) and False in kinds:
            break
        assert time.monotonic() < deadline, answers
        await asyncio.sleep(0.2)
    assert (await system.call(one, "POST", f"{P}/stop/{variants[0]}"))[0] == 200

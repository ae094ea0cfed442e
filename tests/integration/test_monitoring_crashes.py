"""Nothing is lost, doubled or invented when parts die; seen from outside on real Kafka and PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from streams.local.kafka import KafkaServer
from streams.local.postgres import PostgresServer
from streams.settings import Settings
from tests.integration.system import System, fresh, running
from tests.standstill import standing_still

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(240)]
QUICK = {"EARLY_KILL_GRACE_SECONDS": "1"}


async def send_day(system: System, variants: int, events: int, seed: int, pause_every: int = 400) -> list[str]:
    """Post variants, some bad, and send their events, all with ids and a few twice; about 4,000 events a second."""
    chance = random.Random(seed)
    names = [fresh(f"day-{number}") for number in range(variants)]
    rates = {name: chance.choice([0.01, 0.02, 0.06, 0.1]) for name in names}
    for name in names:
        await system.post(name, timeout_minutes=1)
    sent = []
    for number in range(events):
        name = chance.choice(names)
        kind = "like" if chance.random() < rates[name] else "view"
        event = f"event-{number}" if chance.random() > 0.02 else f"event-{number - 1}"
        sent.append(await system.send("interaction", {"variant_id": name, "post_id": f"{name}-post", "kind": kind, "event_id": event, "count": 1}))
        if number % pause_every == 0:
            await asyncio.sleep(0.1)
    await asyncio.gather(*sent)
    return names


async def expected(system: System) -> dict[str, tuple[str, int, int]]:
    """Outcome, views and interactions of each variant, worked out plainly from the topics by offset: rule ``ratio`` at 0.06, 0.5, 10."""
    posted = {value["variant_id"]: value for value in await system.values("variant_posted")}
    views: Counter[str] = Counter()
    likes: Counter[str] = Counter()
    seen: defaultdict[str, set[str]] = defaultdict(set)
    killed: set[str] = set()
    for record in sorted(await system.records("interaction"), key=lambda record: (record.partition, record.offset)):
        event = json.loads(record.value)
        name = event["variant_id"]
        if name in killed or event["event_id"] in seen[name]:
            continue
        seen[name].add(event["event_id"])
        (likes if event["kind"] == "like" else views)[name] += event["count"]
        if likes[name] >= 10 and views[name] and likes[name] / views[name] < 0.5 * 0.06:
            killed.add(name)
    return {name: ("killed" if name in killed else "timed_out", views[name], likes[name]) for name in posted}


def outcomes(rows: dict[str, dict[str, Any]]) -> dict[str, tuple[str, int, int]]:
    return {name: (row["outcome"], row["final_view_count"], row["final_interaction_count"]) for name, row in rows.items()}


async def test_killed_in_the_middle_and_joined_and_left_counts_stay_exact(settings: Settings, tmp_path: Path):
    """20,000 events; the monitor is SIGKILLed, a second one joins, the first is SIGKILLed again, the second leaves."""
    async with running(settings, tmp_path, **QUICK) as system:
        traffic = asyncio.create_task(send_day(system, variants=120, events=20_000, seed=1))
        first = system.monitors[0]
        await asyncio.sleep(1.5)
        first.kill()
        first.start()
        second = system.add_monitor()
        await asyncio.gather(first.ready(), second.ready())
        first.kill()
        names = await traffic
        await asyncio.sleep(8)  # the second takes over what the first held
        first.start()
        await first.ready()
        assert second.stop() == 0
        rows = await system.until_ended(names, 90)
        assert outcomes(rows) == await expected(system)
        assert system.query("SELECT count(*) AS n FROM variant_monitoring")[0]["n"] == len(names)
        kills = {value["variant_id"]: value for value in await system.values("variant_killed")}
        assert set(kills) == {name for name, row in rows.items() if row["was_killed"]}
        by_id = defaultdict(list)
        for value in await system.values("variant_killed"):
            by_id[value["kill_id"]].append({**value, "decided_at": None})
        assert all(copy == copies[0] for copies in by_id.values() for copy in copies)


async def test_a_backlog_decides_before_any_deadline(settings: Settings, tmp_path: Path):
    """A worker that was down past the deadline reads first: what its events kill is killed, what is silent times out."""
    async with running(settings, tmp_path, **QUICK) as system:
        bad, silent = fresh("bad"), fresh("silent")
        for name in (bad, silent):
            await system.post(name, timeout_minutes=0.1)
        await system.interact(bad, "view", 1, count=300)
        await system.until(lambda: system.sessions(bad) and system.sessions(silent), 10)
        system.monitors[0].kill()
        await system.interact(bad, "view", 1, count=200)
        await system.interact(bad, "like", 10)
        await asyncio.sleep(8)
        assert system.sessions(silent)[0]["is_active"]
        system.monitors[0].start()
        rows = await system.until_ended([bad, silent], 30)
        assert {name: row["outcome"] for name, row in rows.items()} == {bad: "killed", silent: "timed_out"}


async def test_postgresql_away_delays_and_loses_nothing(settings: Settings, tmp_path: Path, postgres: PostgresServer):
    """Kills go on while PostgreSQL is stopped, and all arrive when it is back."""
    async with running(settings, tmp_path, **QUICK) as system:
        names = [fresh(f"bad-{number}") for number in range(50)]
        for name in names[:25]:
            await system.post(name)
        postgres.stop()
        try:
            for name in names[25:]:
                await system.post(name)
            for name in names:
                await system.interact(name, "view", 1, count=500)
                await system.interact(name, "like", 10)
            deadline = time.monotonic() + 10
            while len({value["kill_id"] for value in await system.values("variant_killed")}) < len(names):
                assert time.monotonic() < deadline
            status, ready = await system.call(system.monitors[0], "GET", "/ready")
            assert (status, ready["postgresql"]) == (200, "away")
            await asyncio.sleep(4)
        finally:
            postgres.start()
            postgres.wait_ready()
        rows = await system.until_ended(names, 30)
        assert {row["outcome"] for row in rows.values()} == {"killed"}
        assert await system.values("dead_letter") == []


async def test_kafka_killed_and_started_again_goes_on_by_itself(settings: Settings, tmp_path: Path, kafka: KafkaServer):
    """The same workers, untouched, decide what comes after."""
    async with running(settings, tmp_path, **QUICK) as system:
        before, after = fresh("before"), fresh("after")
        await system.post(before)
        await system.interact(before, "view", 1, count=300)
        await system.until(lambda: system.sessions(before), 10)
        kafka.kill()
        await asyncio.sleep(3)
        kafka.start()
        kafka.wait_ready()
        await system.interact(before, "view", 1, count=200)
        await system.interact(before, "like", 10)
        await system.post(after)
        await system.interact(after, "view", 1, count=500)
        await system.interact(after, "like", 10)
        rows = await system.until_ended([before, after], 60)
        assert {(row["outcome"], row["final_view_count"]) for row in rows.values()} == {("killed", 500)}
        assert system.monitors[0].is_running


async def test_sigterm_leaves_cleanly_with_nothing_to_repeat(settings: Settings, tmp_path: Path):
    """Exit code 0, and the next worker is handed no record twice."""
    async with running(settings, tmp_path, **QUICK) as system:
        name = fresh("calm")
        await system.post(name)
        await system.interact(name, "view", 500)
        worker = system.monitors[0]
        while (await system.call(worker, "GET", f"/performance-monitor/status/{name}"))[1].get("view_count") != 500:
            await asyncio.sleep(0.02)
        began = time.monotonic()
        assert worker.stop() == 0
        assert time.monotonic() - began < 10
        worker.start()
        await worker.ready()
        await system.interact(name, "view", 1)
        while (await system.call(worker, "GET", f"/performance-monitor/status/{name}"))[1].get("view_count") != 501:
            await asyncio.sleep(0.02)
        _, metrics = await system.call(worker, "GET", "/metrics")
        assert 'performance_monitor_events_total{result="redelivered"} 0.0' in metrics


async def test_a_worker_that_stood_still_does_no_harm(settings: Settings, tmp_path: Path):
    """Stopped for longer than its group waits, it ends by itself when it goes on; the other has taken over, and counts are exact."""
    async with running(settings, tmp_path, monitors=2, **QUICK) as system:
        traffic = asyncio.create_task(send_day(system, variants=60, events=8_000, seed=2))
        await asyncio.sleep(1)
        stopped = system.monitors[0]
        with standing_still(stopped.pid):
            names = await traffic
            await asyncio.sleep(12)
        assert await asyncio.to_thread(stopped.wait) == 1
        assert "stood still" in stopped.log.read_text()
        stopped.start()
        await stopped.ready()
        rows = await system.until_ended(names, 90)
        assert outcomes(rows) == await expected(system)

"""Kafka absent at the start, gone for a minute, and silent for longer than any request may take."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from streams.app import LEAVE_SECONDS
from tests.faults.menu import KAFKA_AWAY
from tests.faults.ordeal import MOST_LINES, lines_since, only_on_demand, ordeal, readiness, until
from tests.faults.schedule import Size
from tests.faults.stage import Servers, staged
from tests.faults.traffic import Sender, make_plan
from tests.standstill import standing_still

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(300), only_on_demand]
ABSENT_SECONDS = 12.0
"""Then the workers are told to leave; started anew, they wait twice as long, for they may take 20 s to say that nobody answers."""
AWAY_SECONDS = 60.0
SILENT_SECONDS = 45.0
"""Requests to Kafka may take 30 s, the group waits 6 s for a silent worker."""
BACK_SECONDS = 40.0


@pytest.mark.parametrize("how", ["down", "accepts and is silent"])
async def test_workers_that_start_before_kafka_wait_and_then_work(servers: Servers, tmp_path: Path, how: str):
    """They say so in a few lines, without a traceback, are not ready, end at once when told to, and begin by themselves when Kafka is there (P12)."""
    async with staged(servers, tmp_path / "home") as stage:
        assert [worker.stop() for worker in stage.workers] == [0, 0]
        marks = stage.marks()
        if how == "down":
            await asyncio.to_thread(servers.kafka.stop)
        else:
            servers.kafka_proxy.swallow()
        for worker in stage.workers:
            worker.start()
        await asyncio.sleep(ABSENT_SECONDS)
        assert all(worker.is_running and not worker._ready_file.exists() for worker in stage.workers)
        for worker in stage.workers:
            began = time.monotonic()
            assert worker.stop() == 0
            print(f"the waiting {worker._role} left {time.monotonic() - began:.1f} s after SIGTERM")
            worker.start()
        await asyncio.sleep(2 * ABSENT_SECONDS)
        written = lines_since(stage, marks)
        print("lines while Kafka was absent:", written)
        await asyncio.to_thread(servers.heal)
        took = await until(lambda: all(worker._ready_file.exists() for worker in stage.workers), BACK_SECONDS, "workers are ready")
        print(f"ready {took:.1f} s after Kafka was")
        assert stage.said(marks, "waiting for Kafka")
        assert max(written.values()) <= MOST_LINES
        plan = make_plan(12, variants=40, events=800, seconds=6.0)
        stage.fill(plan.variants)
        await Sender(stage.system.settings.kafka_bootstrap_servers, stage.system.settings.topic_prefix).send(plan)
        left = await stage.settle(len(plan.variants), 40)
        _, wrong = await stage.judged()
        wrong = [*left, *wrong, *await stage.unbalanced(), *await stage.leave()]
        assert not wrong, "\n".join(wrong[:20])


async def test_workers_that_are_told_to_leave_while_kafka_is_silent_are_gone_in_time(servers: Servers, tmp_path: Path):
    """Whatever request they wait for: within 10 s, with exit code 0 and no traceback, before a supervisor kills them."""
    async with staged(servers, tmp_path / "home") as stage:
        marks = stage.marks()
        servers.kafka_proxy.swallow()
        await asyncio.sleep(3)
        for worker in stage.workers:
            began = time.monotonic()
            assert worker.stop() == 0
            took = time.monotonic() - began
            print(f"the {worker._role} left {took:.1f} s after SIGTERM")
            assert took < LEAVE_SECONDS + 1
        assert not stage.said(marks, "Traceback")
        await asyncio.to_thread(servers.heal)


@pytest.mark.parametrize("how", ["killed", "stood still"])
async def test_a_minute_without_kafka_loses_nothing(servers: Servers, tmp_path: Path, how: str):
    """In the middle of traffic: workers stay alive, are not ready, write a few lines, and go on by themselves (P10, P11)."""
    async with ordeal(servers, tmp_path / "home", 10, size=Size(120, 3_000, 80.0, 60.0), monitors=2) as stage:
        await asyncio.sleep(8)
        marks = stage.marks()
        with _without_kafka(servers, how):
            await asyncio.sleep(AWAY_SECONDS)
            assert (await readiness(stage.system.monitors[0]))["kafka"] == "away"
            assert (await readiness(stage.system.sink))["kafka"] == "away"
            written = lines_since(stage, marks)
        print(f"lines in {AWAY_SECONDS:.0f} s without Kafka: {written}; it bit: {stage.said(marks, KAFKA_AWAY)!r}; ended: {dict(stage.exits)}")
        assert stage.said(marks, KAFKA_AWAY)
        await asyncio.to_thread(servers.heal)
        print(f"ready again after {await _ready_again(stage.system.monitors[0]):.1f} s")
    assert not stage.exits


@pytest.mark.parametrize("then", ["what was on its way arrives", "what was on its way is lost"])
async def test_a_silent_kafka_is_given_up_and_come_back_to(servers: Servers, tmp_path: Path, then: str):
    """45 s in which connections are there and nothing comes through: longer than the group waits, and than any request may take (P14)."""
    chance = Random(then)
    async with ordeal(servers, tmp_path / "home", 14, size=Size(120, 3_000, 60.0, 60.0), monitors=2) as stage:
        await asyncio.sleep(6 + chance.random())
        marks, before = stage.marks(), servers.kafka_proxy.bitten["swallowed"]
        servers.kafka_proxy.swallow()
        await asyncio.sleep(SILENT_SECONDS)
        assert (await readiness(stage.system.monitors[0]))["kafka"] == "away"
        if then.endswith("lost"):
            servers.kafka_proxy.reset()
        servers.kafka_proxy.pass_on()
        written = lines_since(stage, marks)
        print(f"lines in {SILENT_SECONDS:.0f} s: {written}; {servers.kafka_proxy.bitten['swallowed'] - before} pieces swallowed; ended: {dict(stage.exits)}")
        assert servers.kafka_proxy.bitten["swallowed"] > before
        assert stage.said(marks, KAFKA_AWAY)
        print(f"ready again after {await _ready_again(stage.system.monitors[0]):.1f} s")
    assert all(name.startswith("monitor 1") for name in stage.exits), stage.exits


@contextmanager
def _without_kafka(servers: Servers, how: str) -> Iterator[None]:
    pid = servers.kafka.pid
    assert pid is not None
    if how == "killed":
        servers.kafka.kill()
        yield
    else:
        with standing_still(pid):
            yield


async def _ready_again(worker: object) -> float:
    began = time.monotonic()
    while (await readiness(worker)).get("status") != "ready":  # type: ignore[arg-type]
        assert time.monotonic() - began < BACK_SECONDS
        await asyncio.sleep(0.2)
    return time.monotonic() - began

"""The books: each record read has one result, and it is the one that the oracle names."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.faults.schedule import sabotaged
from tests.faults.stage import SOURCES, Servers, Stage, staged
from tests.faults.traffic import Plan, Sender, make_plan
from tests.integration.system import books

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(120)]


async def a_day(stage: Stage) -> int:
    """Send one with garbage, duplicates, early and late events, no stops (which events come before one is not in the topics); returns how many variants were posted."""
    settings, plan = stage.system.settings, make_plan(5, variants=60, events=2_000, seconds=8.0)
    stopped = {record.key for record in plan.records if record.topic == "monitoring_control"}
    names = [name for name in plan.variants if name.encode() not in stopped]
    stage.fill(names)
    await Sender(settings.kafka_bootstrap_servers, settings.topic_prefix).send(Plan([record for record in plan.records if record.key not in stopped], names))
    return len(names)


async def test_each_record_has_the_result_that_the_oracle_names(servers: Servers, tmp_path: Path):
    """Where nothing fails, each is read once: as many of each topic as there are, and as many of each result as the oracle counts."""
    async with staged(servers, tmp_path) as stage:
        assert not await stage.settle(await a_day(stage), 60)
        verdict, wrong = await stage.judged()
        read, results = books(str((await stage.system.call(stage.system.monitors[0], "GET", "/metrics"))[1]))
        there = Counter({stage.system.topic(name): sum((await stage.ends(name)).values()) for name in SOURCES})
        assert not [*wrong, *await stage.unbalanced(), *await stage.leave()]
    assert results == verdict.results
    assert read == +there


async def test_a_record_without_a_result_is_noticed(servers: Servers, tmp_path: Path):
    """The same with a monitor that drops one record of each chunk without a word."""
    async with staged(servers, tmp_path, **sabotaged("accounting")) as stage:
        await stage.settle(await a_day(stage), 20)
        assert await stage.unbalanced()

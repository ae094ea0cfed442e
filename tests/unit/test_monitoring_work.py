"""What a monitor does again and again: which of it may fail once, and which may not."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError

from models.monitor import Limits
from models.policy import Defaults
from streams import monitoring
from streams.monitoring import Monitoring
from streams.ports import Tables, Topics

NAMES = Topics("variant_posted", "interaction", "monitoring_control", "variant_killed", "monitoring_record", "dead_letter")


@pytest.mark.parametrize(("work", "is_excused"), [("_tick", True), ("_look_at_changelogs", True), ("_flush", False)])
async def test_a_look_may_be_skipped_while_kafka_is_away_but_half_a_flush_may_not_be_followed_by_another(monkeypatch: pytest.MonkeyPatch, work: str, *, is_excused: bool) -> None:
    """What it had taken to write is taken; only a new start brings it back."""
    for pause in ("TICK_SECONDS", "CHANGELOG_LOOK_SECONDS"):
        monkeypatch.setattr(monitoring, pause, 0.01)
    nothing: Any = SimpleNamespace()
    failed: list[BaseException] = []
    made = Monitoring(
        SimpleNamespace(consumer=None, rebalancing=False),  # type: ignore[arg-type]
        log=nothing, state_log=nothing, tables=Tables(nothing, nothing, nothing), topics=NAMES, defaults=Defaults(), limits=Limits(), waiting_limit=1, flush_seconds=0.01,
        observer=nothing, clock=lambda: 0, fail=failed.append,
    )  # fmt: skip
    done = 0

    async def fail() -> None:
        nonlocal done
        done += 1
        raise KafkaConnectionError

    monkeypatch.setattr(made, work, fail)
    made.start()
    async with asyncio.timeout(5):
        while done < 3:
            await asyncio.sleep(0.01)
    await made.stop()
    assert bool(failed) is not is_excused

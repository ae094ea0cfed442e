"""What a monitor does again and again: which of it may fail once, and which may not."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.errors import KafkaConnectionError

from streams import monitoring
from tests.idle import idle_monitoring


@pytest.mark.parametrize(("work", "is_excused"), [("_tick", True), ("_look_at_changelogs", True), ("_flush", False)])
async def test_a_look_may_be_skipped_while_kafka_is_away_but_half_a_flush_may_not_be_followed_by_another(monkeypatch: pytest.MonkeyPatch, work: str, *, is_excused: bool) -> None:
    """What it had taken to write is taken; only a new start brings it back."""
    for pause in ("TICK_SECONDS", "CHANGELOG_LOOK_SECONDS"):
        monkeypatch.setattr(monitoring, pause, 0.01)
    failed: list[BaseException] = []
    made = idle_monitoring(None, flush_seconds=0.01, fail=failed.append)
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

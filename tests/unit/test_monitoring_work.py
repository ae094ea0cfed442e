"""What a monitor does again and again: which of it may fail once, and which may not."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from faust.types import TP

from streams import monitoring
from streams.monitoring import Owned
from streams.readings import Reading, Readings
from tests.idle import NAMES, idle_monitoring


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


async def test_a_partition_that_is_taken_over_during_a_look_is_left_to_the_next_one() -> None:
    """Its ends were not asked for."""
    looked: list[int] = []

    def owned(partition: int) -> Any:
        async def tick(_read: int, _committed: int) -> None:
            looked.append(partition)

        readings = Readings({topic: Reading(TP(topic, partition), catch_up=0, next=0) for topic in NAMES.sources})
        return Owned(SimpleNamespace(tick=tick, monitor=SimpleNamespace(waiting=SimpleNamespace(count=0))), readings)  # type: ignore[arg-type]

    async def highwaters(*tps: TP) -> dict[TP, int]:
        made._owned[1] = owned(1)
        return dict.fromkeys(tps, 0)

    consumer = SimpleNamespace(highwaters=highwaters, ledgers={}, committed=lambda _tp: None)
    made = idle_monitoring(consumer)
    made._owned[0] = owned(0)
    await made._tick()
    assert looked == [0]


@pytest.mark.parametrize(("waiting", "pushed"), [((4, 2), (3, 0)), ((1, 5), (0, 3)), ((2, 1), (0, 0))])
async def test_room_for_waiting_interactions_is_made_where_most_wait(waiting: tuple[int, int], pushed: tuple[int, int]) -> None:
    """As much as is over the limit of the worker, and no more."""
    made, out = idle_monitoring(None), [0, 0]
    made._waiting_limit = 3

    def owned(partition: int) -> Any:
        async def push_out(count: int) -> None:
            out[partition] += count

        return SimpleNamespace(worker=SimpleNamespace(push_out=push_out, monitor=SimpleNamespace(waiting=SimpleNamespace(count=waiting[partition]))))

    made._owned = {partition: owned(partition) for partition in range(2)}
    await made._make_room()
    assert tuple(out) == pushed

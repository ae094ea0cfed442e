"""What survives is set aside, and cycles are still found."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from streams import garbage
from streams.garbage import Freezer, freeze_survivors


class Cycle:
    """Refers to itself."""

    gone = 0

    def __init__(self) -> None:
        self.me = self

    def __del__(self) -> None:
        Cycle.gone += 1


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def test_nothing_is_done_until_something_has_become_old() -> None:
    """Searching costs time."""
    gc.collect()
    assert not freeze_survivors()


def test_survivors_are_set_aside_and_cycles_among_them_are_not() -> None:
    """After the search that finds the cycles."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        frozen, gone = gc.get_freeze_count(), Cycle.gone
        kept = [[number] for number in range(1_000)]
        Cycle()
        gc.collect(1)
        assert gc.get_count()[2] == 1
        assert freeze_survivors()
        assert gc.get_freeze_count() >= frozen + len(kept)
        assert Cycle.gone == gone + 1
        assert gc.get_count()[2] == 0
    finally:
        gc.enable()


async def test_it_goes_on_by_itself_until_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """And leaves the search of all there is to nobody."""
    monkeypatch.setattr(garbage, "PAUSE_SECONDS", 0.001)
    calls: list[int] = []
    monkeypatch.setattr(garbage, "freeze_survivors", lambda: calls.append(1))
    freezer = Freezer()
    freezer.start()
    freezer.start()
    assert gc.get_threshold() == (garbage.YOUNG, garbage.OLDER, garbage.NEVER)
    while len(calls) < 3:
        await asyncio.sleep(0.001)
    freezer.stop()
    await asyncio.sleep(0.01)
    seen = len(calls)
    await asyncio.sleep(0.01)
    assert len(calls) == seen

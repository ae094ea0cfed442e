"""What survives is set aside, and cycles are still found."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from streams import garbage
from streams.garbage import ASIDE, FEW, LOOKS, MANY, Freezer, Growth, search


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


def test_objects_that_come_and_go_are_not_searched() -> None:
    """A fetch full of records is gone at one look of ten in a row."""
    growth = Growth()
    assert not any(growth.is_due(young) for young in [MANY - 1, *[MANY - 1] * (LOOKS - 2), FEW] * 5)


def test_objects_that_stay_are_searched_once_in_so_many_looks() -> None:
    """From one more than a few on."""
    growth = Growth()
    assert [growth.is_due(FEW + 1) for _ in range(2 * LOOKS)] == 2 * [*[False] * (LOOKS - 1), True]


def test_very_many_are_searched_at_once() -> None:
    """However short they stay: later the search would take longer."""
    growth = Growth()
    assert [growth.is_due(young) for young in (MANY - 1, MANY, 0)] == [False, True, False]


def test_the_looks_begin_anew_after_a_search() -> None:
    """What was new before it says nothing."""
    growth = Growth()
    assert growth.is_due(MANY)
    assert [growth.is_due(FEW + 1) for _ in range(LOOKS)] == [*[False] * (LOOKS - 1), True]


@pytest.mark.parametrize(("survivors", "are_set_aside"), [(ASIDE, True), (ASIDE - 2_000, False)])
def test_many_survivors_are_set_aside_and_cycles_among_them_are_freed(survivors: int, are_set_aside: bool) -> None:
    """Few are left to be searched with the next ones."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        frozen, gone = gc.get_freeze_count(), Cycle.gone
        kept = [[number] for number in range(survivors)]
        Cycle()
        search()
        assert Cycle.gone == gone + 1
        assert (gc.get_freeze_count() >= frozen + len(kept)) == are_set_aside
        assert (len(gc.get_objects(generation=2)) >= len(kept)) != are_set_aside
    finally:
        gc.enable()


async def test_it_goes_on_by_itself_until_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """And leaves the search of all there is to nobody."""
    monkeypatch.setattr(garbage, "PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(garbage.Growth, "is_due", lambda _growth, _young: True)
    calls: list[int] = []
    monkeypatch.setattr(garbage, "search", lambda: calls.append(1))
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

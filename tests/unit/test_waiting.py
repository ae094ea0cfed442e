"""Interactions that wait for their post, and the segments that make them durable."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from itertools import pairwise
from random import Random

import pytest

from models.events import Interaction
from models.waiting import SEGMENT_BYTES, SWEPT_IN_ONE_TURN, Waiter, Waiting


def waiter(offset: int, variant: str = "v", until: int = 100, size: int = 10, *, segment: int | None = None) -> Waiter:
    return Waiter(Interaction(variant, "view", 1), offset, 1, variant.encode(), b"x" * size, until, segment, restored=segment is not None)


class Watched(Waiter):
    """Tells by a weak reference whether it is still held."""

    __slots__ = ("__weakref__",)


def everyone(_waiter: Waiter) -> bool:
    return True


def offsets(waiters: Iterable[Waiter | None]) -> list[int]:
    return [waiter.offset for waiter in waiters if waiter is not None]


def take(waiting: Waiting, variant: str, wanted: Callable[[Waiter], bool]) -> list[Waiter]:
    taken = waiting.find(variant, wanted)
    waiting.remove(taken)
    return taken


def changes(waiting: Waiting) -> dict[tuple[str, int], list[int]]:
    return {(variant, segment): offsets(waiters) for variant, segment, waiters in waiting.changed_segments()}


def restored(waiting: Waiting) -> int:
    return sum(waiter.restored for waiter in waiting.of("v"))


def test_they_are_taken_in_order_of_arrival() -> None:
    """Also where an earlier one was delivered again after a crash."""
    waiting = Waiting()
    for offset in (5, 7, 4):
        waiting.add(waiter(offset))
    waiting.add(waiter(6, "w"))
    assert waiting.count == 4
    assert offsets(take(waiting, "v", lambda one: one.offset != 7)) == [4, 5]
    assert offsets(take(waiting, "v", everyone)) == [7]
    assert offsets(take(waiting, "v", everyone)) == []
    assert waiting.count == 1


def test_a_wait_is_over_once_all_before_its_end_has_been_read() -> None:
    """Inclusive: what is appended at that very moment comes too late to be waited for."""
    waiting = Waiting()
    waiting.add(waiter(1, until=100))
    waiting.add(waiter(2, until=99))
    assert offsets(list(waiting.expired(98))) == []
    assert offsets(list(waiting.expired(100))) == [2, 1]
    assert waiting.count == 0


def test_whose_wait_would_end_first_makes_room_first() -> None:
    """Nobody, if nobody waits; who has gone is not asked."""
    waiting = Waiting()
    waiting.add(waiter(1, until=100))
    waiting.add(waiter(2, until=50))
    waiting.add(waiter(3, "w", until=60))
    take(waiting, "w", everyone)
    assert [one.offset if one else None for one in (waiting.pushed_out(), waiting.pushed_out(), waiting.pushed_out())] == [2, 1, None]


@pytest.mark.parametrize("variant", ["w", "v"])
def test_who_has_gone_is_not_held_behind_one_that_waits(variant: str) -> None:
    """Neither by the order in which waits end, nor by the variant; and those that stay still leave in that order."""
    waiting, taken = Waiting(), []
    waiting.add(waiter(0))
    for offset in range(1, 101):
        waiting.add(Watched(Interaction(variant, "view", 1), offset, 1, b"", b"", 200))
        taken += [weakref.ref(one) for one in take(waiting, variant, lambda one: one.offset > 2)]
    waiting.changed_segments()
    assert len(taken) == 98
    assert sum(ref() is not None for ref in taken) <= 2 * waiting.count == 6
    waiting.add(waiter(101, until=150))
    assert offsets(waiting.expired(200)) == [0, 101, 1, 2]


def test_what_very_many_leave_behind_is_freed_bit_by_bit() -> None:
    """Each step is bounded, and the last leaves no more than twice what waits."""
    waiting = Waiting()
    for offset in range(10 * SWEPT_IN_ONE_TURN):
        waiting.add(waiter(offset))
    waiting.add(waiter(-1, "w"))
    waiting.remove(waiting.find("v", everyone))
    held = [len(waiting._due) + len(waiting._unswept)]
    while waiting.sweep():
        held.append(len(waiting._due) + len(waiting._unswept))
    assert waiting.count == 1
    assert len(waiting._due) + len(waiting._unswept) == 2
    assert max(before - after for before, after in pairwise(held)) <= SWEPT_IN_ONE_TURN
    for offset in range(1_000, 3_000):
        waiting.add(waiter(offset, str(offset)))
        waiting.remove(waiting.find(str(offset), everyone))
        assert len(waiting._due) + len(waiting._unswept) < 10
    assert offsets(waiting.expired(1_000)) == [-1]


def test_who_comes_frees_some_of_what_very_many_have_left_behind() -> None:
    """Where nobody else does: a backtest lets no time pass."""
    waiting = Waiting()
    for offset in range(10 * SWEPT_IN_ONE_TURN):
        waiting.add(waiter(offset))
    waiting.remove(waiting.find("v", everyone))
    for offset in range(4 * SWEPT_IN_ONE_TURN):
        waiting.add(waiter(offset, "w"))
    assert len(waiting._due) + len(waiting._unswept) <= 2 * waiting.count


@pytest.mark.parametrize("seed", range(20))
def test_who_stays_leaves_in_order_whoever_has_gone(seed: int) -> None:
    """However many have gone meanwhile, and at most some four times as many are held as wait."""
    dice, waiting, there, most = Random(seed), Waiting(), dict[int, int](), 0
    for offset in range(2_000):
        there[offset] = dice.randrange(offset, offset + dice.choice((10, 1_000)))
        waiting.add(waiter(offset, str(offset), until=there[offset]))
        most = max(most, waiting.count)
        while there and dice.random() < 0.55:
            gone = dice.choice(list(there)[dice.choice((0, -5)) :])
            del there[gone]
            assert offsets(take(waiting, str(gone), everyone)) == [gone]
            assert len(waiting._due) + len(waiting._unswept) <= 4 * waiting.count + 10
        if dice.random() < 0.05:
            over = sorted((until, one) for one, until in there.items() if until <= offset)
            assert offsets(waiting.expired(offset)) == [one for _, one in over]
            for _, one in over:
                del there[one]
    assert waiting.count == len(there) < most
    assert offsets(waiting.expired(4_000)) == [one for _, one in sorted((until, one) for one, until in there.items())]


def test_a_flush_writes_each_variants_new_ones_once() -> None:
    """A segment is named by its first offset; nothing new, nothing to write."""
    waiting = Waiting()
    for offset, variant in ((1, "v"), (2, "w"), (3, "v")):
        waiting.add(waiter(offset, variant))
    assert changes(waiting) == {("v", 1): [1, 3], ("w", 2): [2]}
    assert changes(waiting) == {}
    waiting.add(waiter(4))
    assert changes(waiting) == {("v", 4): [4]}


def test_who_came_and_went_between_two_flushes_is_never_written() -> None:
    """Nothing durable ever knew of it."""
    waiting = Waiting()
    waiting.add(waiter(1))
    waiting.add(waiter(2))
    take(waiting, "v", lambda one: one.offset == 1)
    assert changes(waiting) == {("v", 2): [2]}
    waiting.add(waiter(3, "w"))
    take(waiting, "w", everyone)
    assert changes(waiting) == {}


def test_a_segment_shrinks_and_goes() -> None:
    """It is written with who is left, and deleted with the last."""
    waiting = Waiting()
    for offset in (1, 2):
        waiting.add(waiter(offset))
    waiting.changed_segments()
    take(waiting, "v", lambda one: one.offset == 1)
    assert changes(waiting) == {("v", 1): [2]}
    take(waiting, "v", everyone)
    assert changes(waiting) == {("v", 1): []}


def test_a_restored_segment_is_written_again_only_if_it_changes() -> None:
    """Its records are known when they are delivered again, also those that have gone since."""
    waiting = Waiting()
    for offset in (1, 2):
        waiting.add(waiter(offset, segment=1))
    assert (waiting.count, restored(waiting), changes(waiting)) == (2, 2, {})
    take(waiting, "v", lambda one: one.offset == 2)
    assert (waiting.count, restored(waiting), changes(waiting)) == (1, 1, {("v", 1): [1]})
    assert waiting.holds(1)
    assert waiting.holds(2)
    assert not waiting.holds(3)


def test_a_segment_whose_first_one_went_and_is_delivered_again_keeps_the_others() -> None:
    """The new segment would have the name of the old one: they become one."""
    waiting = Waiting()
    waiting.add(waiter(5, segment=4))
    waiting.add(waiter(4))
    assert {name: sorted(held) for name, held in changes(waiting).items()} == {("v", 4): [4, 5]}
    take(waiting, "v", everyone)
    assert changes(waiting) == {("v", 4): []}


def test_a_segment_stays_smaller_than_what_kafka_takes() -> None:
    """However many come within one flush; on the bound it is not split yet."""
    half = SEGMENT_BYTES // 2 - 1
    waiting = Waiting()
    for offset in (1, 2, 3):
        waiting.add(waiter(offset, size=half))
    assert changes(waiting) == {("v", 1): [1, 2], ("v", 3): [3]}

"""Interactions that wait for their post, and the segments that make them durable."""

from __future__ import annotations

from models.events import Interaction
from models.waiting import SEGMENT_BYTES, Waiter, Waiting


def waiter(offset: int, variant: str = "v", until: int = 100, size: int = 10, *, segment: int | None = None) -> Waiter:
    return Waiter(Interaction(variant, "view", 1), offset, 1, variant.encode(), b"x" * size, until, segment, restored=segment is not None)


def everyone(_waiter: Waiter) -> bool:
    return True


def offsets(waiters: list[Waiter]) -> list[int]:
    return [waiter.offset for waiter in waiters]


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
    assert offsets(waiting.take("v", lambda one: one.offset != 7)) == [4, 5]
    assert offsets(waiting.take("v", everyone)) == [7]
    assert offsets(waiting.take("v", everyone)) == []
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
    waiting.take("w", everyone)
    assert [one.offset if one else None for one in (waiting.pushed_out(), waiting.pushed_out(), waiting.pushed_out())] == [2, 1, None]


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
    waiting.take("v", lambda one: one.offset == 1)
    assert changes(waiting) == {("v", 2): [2]}
    waiting.add(waiter(3, "w"))
    waiting.take("w", everyone)
    assert changes(waiting) == {}


def test_a_segment_shrinks_and_goes() -> None:
    """It is written with who is left, and deleted with the last."""
    waiting = Waiting()
    for offset in (1, 2):
        waiting.add(waiter(offset))
    waiting.changed_segments()
    waiting.take("v", lambda one: one.offset == 1)
    assert changes(waiting) == {("v", 1): [2]}
    waiting.take("v", everyone)
    assert changes(waiting) == {("v", 1): []}


def test_a_restored_segment_is_written_again_only_if_it_changes() -> None:
    """Its records are known when they are delivered again, also those that have gone since."""
    waiting = Waiting()
    for offset in (1, 2):
        waiting.add(waiter(offset, segment=1))
    assert (waiting.count, restored(waiting), changes(waiting)) == (2, 2, {})
    waiting.take("v", lambda one: one.offset == 2)
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
    waiting.take("v", everyone)
    assert changes(waiting) == {("v", 4): []}


def test_a_segment_stays_smaller_than_what_kafka_takes() -> None:
    """However many come within one flush; on the bound it is not split yet."""
    half = SEGMENT_BYTES // 2 - 1
    waiting = Waiting()
    for offset in (1, 2, 3):
        waiting.add(waiter(offset, size=half))
    assert changes(waiting) == {("v", 1): [1, 2], ("v", 3): [3]}

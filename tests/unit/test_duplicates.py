"""Event ids: what is remembered, for how long, and in which pieces."""

from __future__ import annotations

import random
import sys
import tracemalloc

import pytest

from models.duplicates import FEW, FEWER, REMEMBERED, SEGMENT_LIMIT, TAIL, WIDTH, EventIds
from models.ids import event_hash


def reserve(event_ids: EventIds, first: int, after: int) -> None:
    for number in range(first, after):
        assert event_ids.reserve(event_hash(f"e{number}"))


def restored(event_ids: EventIds) -> EventIds:
    return EventIds(memoryview(event_ids.packed_tail()).cast("Q"), event_ids.first, event_ids.segments)


def knows(event_ids: EventIds, event_id: str) -> bool:
    return not restored(event_ids).reserve(event_hash(event_id))


def test_an_id_counts_once() -> None:
    """The second time it is known."""
    event_ids = EventIds()
    assert not knows(event_ids, "e1")
    assert event_ids.reserve(event_hash("e1"))
    assert knows(event_ids, "e1")
    assert not event_ids.reserve(event_hash("e1"))
    assert len(event_ids) == 1


def test_few_ids_travel_in_the_state_itself() -> None:
    """Up to ``TAIL``; one more makes a segment."""
    event_ids = EventIds()
    reserve(event_ids, 0, TAIL)
    assert event_ids.seal() == ([], [])
    reserve(event_ids, TAIL, TAIL + 1)
    written, dropped = event_ids.seal()
    assert [(number, len(packed)) for number, packed in written] == [(0, 8 * (TAIL + 1))]
    assert (dropped, len(event_ids.tail)) == ([], 0)
    assert event_ids.seal() == ([], [])


def test_a_segment_is_bounded() -> None:
    """Many ids of one flush become several segments, numbered on."""
    event_ids = EventIds()
    reserve(event_ids, 0, SEGMENT_LIMIT + 1)
    written, _ = event_ids.seal()
    assert [(number, len(packed)) for number, packed in written] == [(0, 8 * SEGMENT_LIMIT), (1, 8)]


def test_the_last_hundred_thousand_ids_are_remembered() -> None:
    """Also across a restore; the oldest segment goes when all the others hold as many without it."""
    assert REMEMBERED == 100_000
    event_ids = EventIds()
    segments: dict[int, bytes] = {}
    for start in range(0, 101_000, 1_000):
        reserve(event_ids, start, start + 1_000)
        written, dropped = event_ids.seal()
        segments.update(written)
        for number in dropped:
            del segments[number]
        assert dropped == ([0] if start == 100_000 else [])
    again = EventIds(event_ids.tail, event_ids.first, [segments[number] for number in sorted(segments)])
    assert event_ids.first == again.first == 1
    for known in (event_ids, again):
        assert len(known) == 100_000
        assert knows(known, "e1000")
        assert knows(known, "e100999")
        assert not knows(known, "e999")


def test_the_hundred_thousandth_id_before_is_still_known() -> None:
    """99,999 others may come between the two."""
    event_ids = EventIds()
    event_ids.reserve(event_hash("first"))
    for start in range(0, 99_999, 8_000):
        reserve(event_ids, start, min(start + 8_000, 99_999))
        event_ids.seal()
    assert not event_ids.reserve(event_hash("first"))


def test_segments_come_back_in_order() -> None:
    """A restored one goes on where it was."""
    event_ids = EventIds()
    reserve(event_ids, 0, 50)
    written, _ = event_ids.seal()
    back = EventIds([], 0, [packed for _, packed in written])
    reserve(back, 50, 100)
    again, _ = back.seal()
    assert [number for number, _ in again] == [1]
    assert not back.reserve(event_hash("e0"))


@pytest.mark.parametrize("seed", range(40))
def test_what_is_known_does_not_hang_on_how_it_is_kept(seed: int) -> None:
    """In the tail, in segments or in a set; sealed, and restored, at any time: as a plain set says."""
    dice = random.Random(seed)
    event_ids, known, pool = EventIds(), set[int](), [dice.getrandbits(64) for _ in range(4 * FEW)]
    for _ in range(6 * FEW):
        value = dice.choice(pool)
        assert event_ids.reserve(value) == (value not in known)
        known.add(value)
        if dice.random() < 0.03:
            event_ids.seal()
        if dice.random() < 0.02:
            event_ids = restored(event_ids)
        assert len(event_ids) == len(known)


@pytest.mark.parametrize("before", [FEWER + 2, FEW])
@pytest.mark.parametrize("is_sealed", [False, True])
def test_the_end_of_one_hash_and_the_beginning_of_the_next_make_none(before: int, is_sealed: bool) -> None:
    """Packed they stand beside each other."""
    event_ids = EventIds(range(before))
    first, second = b"abcdefgh", b"ijklmnop"
    for packed in (first, second):
        assert event_ids.reserve(int.from_bytes(packed, sys.byteorder))
    if is_sealed:
        event_ids.seal()
    half = int.from_bytes((first + second)[WIDTH // 2 : -WIDTH // 2], sys.byteorder)
    assert event_ids.reserve(half)
    assert not event_ids.reserve(half)


@pytest.mark.parametrize(("count", "most_bytes"), [(5, 60), (30, 20), (60, 20)])
def test_a_session_of_some_dozens_of_events_remembers_each_in_a_few_bytes(count: int, most_bytes: int) -> None:
    """8 each, and what the objects take; a set took 96 to 134."""
    dice = random.Random(count)
    hashes = [[dice.getrandbits(64) for _ in range(count)] for _ in range(100)]
    tracemalloc.start()
    try:
        kept = []
        for of_one in hashes:
            event_ids = EventIds()
            for value in of_one:
                event_ids.reserve(value)
                if len(event_ids) % 10 == 0:
                    event_ids.seal()
            kept.append(event_ids)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken / len(kept) / count < most_bytes

"""Event ids: what is remembered, for how long, and in which pieces."""

from __future__ import annotations

from models.duplicates import REMEMBERED, SEGMENT_LIMIT, TAIL, EventIds
from models.ids import event_hash


def reserve(event_ids: EventIds, first: int, after: int) -> None:
    for number in range(first, after):
        assert event_ids.reserve(event_hash(f"e{number}"))


def knows(event_ids: EventIds, event_id: str) -> bool:
    return event_hash(event_id) in (event_ids.tail if event_ids.known is None else event_ids.known)


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
    restored = EventIds(event_ids.tail, event_ids.first, [segments[number] for number in sorted(segments)])
    assert event_ids.first == restored.first == 1
    for known in (event_ids, restored):
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
    restored = EventIds([], 0, [packed for _, packed in written])
    reserve(restored, 50, 100)
    again, _ = restored.seal()
    assert [number for number, _ in again] == [1]
    assert not restored.reserve(event_hash("e0"))

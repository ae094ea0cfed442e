"""How far topics are read, and in which order they are opened."""

from __future__ import annotations

from faust.types import TP

from streams.readings import Reading, Readings

POSTS, SEEN, STOPS = TP("variant_posted", 0), TP("interaction", 0), TP("monitoring_control", 0)


def made(**ends: int) -> Readings:
    """Nothing read yet of topics that ended there at the assignment."""
    return Readings({tp.topic: Reading(tp, catch_up=ends.get(tp.topic, 0), next=0) for tp in (POSTS, SEEN, STOPS)})


def look(readings: Readings, positions: dict[TP, int | None] | None = None) -> tuple[int, int]:
    return readings.look(0, dict.fromkeys((POSTS, SEEN, STOPS), 0), positions or {}, lambda _reading, _end: True)


def opened(readings: Readings) -> list[str]:
    return [tp.topic for tp in (POSTS, SEEN, STOPS) if readings.open(tp.topic) is not None]


def test_topics_are_opened_one_after_the_other() -> None:
    """Interactions once the posts are read that were there at the assignment, stops once the interactions are."""
    readings = made(variant_posted=5, interaction=7)
    assert opened(readings) == ["variant_posted"]
    readings["variant_posted"].next = 4
    look(readings)
    assert opened(readings) == ["variant_posted"]
    readings["variant_posted"].next = 5
    look(readings)
    assert opened(readings) == ["variant_posted", "interaction"]
    readings["interaction"].next = 7
    look(readings)
    assert opened(readings) == ["variant_posted", "interaction", "monitoring_control"]
    assert readings.open("variant_killed") is None


def test_a_topic_that_has_caught_up_stays_open() -> None:
    """New posts do not close the way for interactions again."""
    readings = made()
    look(readings)
    readings["variant_posted"].catch_up = 100
    look(readings)
    assert len(opened(readings)) == 3


def test_a_folded_chunk_moves_on_to_behind_its_last_record() -> None:
    """And never back, whatever comes again."""
    reading = made()["interaction"]
    reading.unfolded = 2
    reading.folded(8)
    reading.folded(3)
    assert (reading.next, reading.unfolded) == (9, 0)


def test_an_offset_without_a_record_is_passed_at_the_second_look() -> None:
    """At the first, the consumer may be ahead of chunks that are still on their way from it."""
    readings = made(variant_posted=5)
    reading = readings["variant_posted"]
    look(readings, {POSTS: 5})
    assert reading.next == 0
    look(readings, {POSTS: 5})
    assert reading.next == 5
    assert reading.is_caught_up


def test_a_chunk_on_its_way_is_never_passed() -> None:
    """However far ahead the consumer stands, and however often it is asked."""
    readings = made(variant_posted=5)
    reading = readings["variant_posted"]
    reading.unfolded = 1
    for _ in range(3):
        look(readings, {POSTS: 5})
    assert reading.next == 0
    reading.unfolded = 0
    look(readings, {})
    look(readings, {POSTS: 7})
    assert reading.next == 0


def test_a_moment_has_passed_once_all_topics_are_read_up_to_their_ends_of_then() -> None:
    """The moment of the first question that was open; what is read, and what is committed besides, are told apart."""
    readings, ends, is_committed = made(), {POSTS: 2, SEEN: 3, STOPS: 0}, False

    def passed(asked_at: int) -> tuple[int, int]:
        return readings.look(asked_at, ends, {}, lambda _reading, _end: is_committed)

    assert passed(10) == (0, 0)
    readings["variant_posted"].next = 2
    assert passed(20) == (0, 0)
    readings["interaction"].next = 3
    assert passed(30) == (10, 0)
    is_committed = True
    assert passed(40) == (40, 10)

"""How far a partition may be committed, and how far it has been read."""

from __future__ import annotations

from streams.ledger import Ledger
from streams.ticks import Progress


def test_nothing_done_nothing_to_commit() -> None:
    """Handed out is not done."""
    ledger = Ledger()
    assert ledger.committable is None
    ledger.hand_out(0, 9)
    assert (ledger.committable, ledger.open_count) == (None, 1)


def test_spans_may_be_done_in_any_order() -> None:
    """The offset stays before the first that is not."""
    ledger = Ledger()
    first, second, third = (ledger.hand_out(start, start + 9) for start in (0, 10, 20))
    ledger.done(third)
    assert (ledger.committable, ledger.open_count) == (None, 3)
    ledger.done(first)
    assert (ledger.committable, ledger.open_count) == (10, 2)
    ledger.done(second)
    assert (ledger.committable, ledger.open_count) == (30, 0)


def test_offsets_without_a_record_need_no_care() -> None:
    """Only the ends of what was handed out count."""
    ledger = Ledger()
    first, second = ledger.hand_out(5, 5), ledger.hand_out(100, 250)
    ledger.done(second)
    ledger.done(first)
    assert ledger.committable == 251


def test_done_twice_is_done() -> None:
    """Nothing moves the second time."""
    ledger = Ledger()
    span, other = ledger.hand_out(0, 1), ledger.hand_out(2, 3)
    ledger.done(span)
    ledger.done(span)
    assert (ledger.committable, ledger.open_count) == (2, 1)
    ledger.done(other)
    assert ledger.committable == 4


def test_a_moment_is_passed_when_all_ends_of_that_moment_are() -> None:
    """On every topic; the bound itself is enough."""
    progress = Progress()
    read = {"posts": 0, "interactions": 0}

    def passed(topic: str, end: int) -> bool:
        return read[topic] >= end

    assert progress.check(passed) == 0
    progress.ask(100, {"posts": 2, "interactions": 3})
    read["posts"] = 2
    assert progress.check(passed) == 0
    read["interactions"] = 3
    assert progress.check(passed) == 100
    assert progress.check(passed) == 100


def test_ends_that_are_not_passed_yet_are_not_asked_anew() -> None:
    """Under steady traffic the newest would never be."""
    progress = Progress()
    progress.ask(100, {"posts": 2})
    progress.ask(200, {"posts": 50})
    assert progress.check(lambda _topic, end: end <= 2) == 100
    progress.ask(300, {"posts": 60})
    assert progress.check(lambda _topic, end: end <= 2) == 100
    assert progress.check(lambda _topic, end: end <= 60) == 300

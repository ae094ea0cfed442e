"""Records into the core: each gets one result, and no record stops the next."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

from models.monitor import PartitionMonitor, Rejected
from models.policy import Defaults
from models.session import Result, Session
from streams.folding import FOLDS

fold_posted, fold_interaction, fold_stop = FOLDS
POST = b'{"variant_id":"v","persona_id":"p","post_id":"q"}'
VIEW = b'{"variant_id":"v","kind":"view","post_id":"q"}'
STOP = b'{"variant_id":"v","action":"stop"}'


@dataclass(frozen=True)
class Record:
    offset: int
    value: bytes | None
    key: bytes | None = b"v"
    timestamp: int = 1_700_000_000_000


def session(monitor: PartitionMonitor) -> Session:
    found = monitor.sessions.find("v", "q")
    assert found is not None
    return found


def test_each_record_has_one_result_and_bad_ones_hold_up_nothing() -> None:
    """Those before and after a bad one count; it becomes a dead letter with the reason."""
    monitor = PartitionMonitor(0)
    assert fold_posted(monitor, "variant_posted", [Record(0, POST), Record(1, None), Record(2, POST)], Defaults(), 1) == {
        Result.COUNTED: 1,
        Result.DEAD_LETTER: 1,
        Result.DUPLICATE: 1,
    }
    results = fold_interaction(monitor, "interaction", [Record(0, VIEW), Record(1, b"{"), Record(2, VIEW, b"w"), Record(3, VIEW)], Defaults(), 1)
    assert results == {Result.COUNTED: 2, Result.DEAD_LETTER: 2}
    assert fold_stop(monitor, "monitoring_control", [Record(0, STOP), Record(1, STOP), Record(2, b"[]")], Defaults(), 1) == {
        Result.COUNTED: 1,
        Result.AFTER_END: 1,
        Result.DEAD_LETTER: 1,
    }
    letters = [(emission.topic, emission.offset, emission.reason) for emission in monitor.take_emissions() if isinstance(emission, Rejected)]
    assert letters == [
        ("variant_posted", 1, "has no value"),
        ("interaction", 1, "is not JSON: Expecting property name enclosed in double quotes (character 1)"),
        ("interaction", 2, "the record's key differs from variant_id"),
        ("monitoring_control", 2, "is not a JSON object"),
    ]
    assert session(monitor).counts.views == 2


def test_an_append_time_is_the_moment_where_none_is_given() -> None:
    """In microseconds."""
    monitor = PartitionMonitor(0)
    fold_posted(monitor, "variant_posted", [Record(0, POST, timestamp=1_700_000_000_123)], Defaults(timeout_minutes=1), 1)
    assert session(monitor).posted_at == 1_700_000_000_123_000
    assert session(monitor).deadline == 1_700_000_060_123_000


def test_a_fault_of_ours_in_what_is_read_already_costs_one_record_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ones before and after it, which need no second look, count."""
    monitor = PartitionMonitor(0)
    fold_posted(monitor, "variant_posted", [Record(0, POST)], Defaults(), 1)
    monitor.take_emissions()
    monkeypatch.setattr(PartitionMonitor, "interact", lambda *_args: 1 / 0)
    records = [Record(0, VIEW), Record(1, b'{"variant_id":"v","kind":"view","post_id":"another"}'), Record(2, VIEW)]
    assert fold_interaction(monitor, "interaction", records, Defaults(), 1) == {Result.COUNTED: 2, Result.DEAD_LETTER: 1}
    assert [(emission.offset, emission.reason) for emission in monitor.take_emissions() if isinstance(emission, Rejected)] == [(1, "internal error")]


def test_a_fault_of_ours_costs_one_record_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged, and the record put aside."""
    monitor = PartitionMonitor(0)
    monkeypatch.setattr(PartitionMonitor, "post", lambda *_args: 1 / 0)
    assert fold_posted(monitor, "variant_posted", [Record(0, POST)], Defaults(), 1) == Counter({Result.DEAD_LETTER: 1})
    (letter,) = monitor.take_emissions()
    assert isinstance(letter, Rejected)
    assert letter.reason == "internal error"


@pytest.mark.parametrize(
    ("fold", "method", "value"), [(fold_posted, "post", POST), (fold_interaction, "interact", VIEW), (fold_interaction, "interact", b'{"variant_id":"v","kind":"\\u0076iew"}')]
)
def test_memory_that_runs_out_is_no_fault_of_a_record(monkeypatch: pytest.MonkeyPatch, fold: Any, method: str, value: bytes) -> None:
    """Half of it may be folded, and the next may fare no better: the worker has to end, and to read it again."""

    def fail(*_args: object) -> None:
        raise MemoryError

    monitor = PartitionMonitor(0)
    monkeypatch.setattr(PartitionMonitor, method, fail)
    with pytest.raises(MemoryError):
        fold(monitor, "topic", [Record(0, value)], Defaults(), 1)

"""Many values decoded at once: only what each record holds for itself, and only where nothing is out of the ordinary."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from models.duplicates import FEW
from models.events import Posting
from models.monitor import Ended, PartitionMonitor, Started
from models.policy import Defaults, Policy
from models.session import Origin, Result
from models.strict_json import VALUE_LIMIT
from streams.folding import FOLDS
from streams.increments import ODD, decode_increments

T_MS = 1_700_000_000_000
LIKE = b'{"variant_id":"v","kind":"like"}'


@dataclass(frozen=True)
class Record:
    value: bytes | None
    key: bytes | None = b"v"
    offset: int = 0
    timestamp: int = T_MS


def decode(*values: bytes | None) -> list[str] | None:
    events = decode_increments([Record(value) for value in values])
    return None if events is None else [event.kind for event in events]


def test_ordinary_values_are_decoded_together() -> None:
    """One increment for each, with its moment in microseconds."""
    full = b'{"variant_id":"v","kind":"view","occurred_at":"2023-11-14T22:13:20.000001Z","event_id":"e","post_id":"q","count":2,"source":"s","schema_version":1}'
    events = decode_increments([Record(full), Record(LIKE), Record('{"variant_id":"é","kind":"save"}'.encode(), "é".encode())])
    assert events is not None
    assert [(event.variant_id, event.kind, event.count, event.post_id, event.event_id, event.occurred_at) for event in events] == [
        ("v", "view", 2, "q", "e", T_MS * 1_000 + 1),
        ("v", "like", 1, None, None, T_MS * 1_000),
        ("é", "save", 1, None, None, T_MS * 1_000),
    ]


@pytest.mark.parametrize(
    "field",
    [
        b'"new":1',
        b'"new":[1e308,-0.5,{"x":{},"":null}]',
        b'"new":%s' % (b"9" * 4_299),
        b'"new":%s' % (b"[" * 499 + b"]" * 499),
        '"new":"é","Kind":"view"'.encode(),
        b'"__faust":{"ns":"models.events.Stop"}',
    ],
)
def test_unknown_fields_are_passed_over_together(field: bytes) -> None:
    """As fast as others, nearly; whatever they hold that is not refused."""
    events = decode_increments([Record(LIKE), Record(b'{"variant_id":"v",%s,"kind":"view","count":3}' % field), Record(LIKE)])
    assert events is not None
    assert [(event.kind, event.count) for event in events] == [("like", 1), ("view", 3), ("like", 1)]


@pytest.mark.parametrize("totals", [b"1e999", b"null", b"[" * 600 + b"]" * 600, b'{"views":1}'])
def test_totals_of_an_increment_are_looked_at_by_others(totals: bytes) -> None:
    """It has no use for them, but they may hold what is refused."""
    assert decode(LIKE, b'{"variant_id":"v","kind":"like","totals":%s}' % totals, LIKE) == ["like", ODD, "like"]


@pytest.mark.parametrize(
    "values",
    [
        [b'{"variant_id":"v"', b',"kind":"view"}', LIKE + b" " + LIKE],
        [b'{"variant_id":"v","totals":', b'{},"kind":"view"}', LIKE + LIKE],
        [b'{"variant_id":"v","totals":{}', b'{"kind":"view"}'],
        [LIKE + b"\n" + LIKE, LIKE],
        [LIKE + b"\n", LIKE],
        [b" " + LIKE, LIKE],
        [LIKE, LIKE + b" "],
        [LIKE + LIKE],
        [LIKE, b"", LIKE],
        [LIKE, None],
    ],
)
def test_records_that_complete_or_hide_each_other_are_not_taken_together(values: list[bytes | None]) -> None:
    """Even if as many documents come out as records went in."""
    assert decode(*values) is None


@pytest.mark.parametrize(
    "value",
    [
        b'{"variant_id":"v","kind":"lik\\u0065"}',
        b'{"variant_id":"v\x7f","kind":"like"}',
        '{"variant_id":"v\x85","kind":"like"}'.encode(),
        b'{"variant_id":"\xff","kind":"like"}',
        b'{"variant_id":"v","kind":"like","source":"\xff"}',
        b'{"variant_id":"v","kind":"like","new":1e999}',
        b'{"variant_id":"v","kind":"like","new":[{"x":-1e999}]}',
        b'{"variant_id":"v","kind":"like","new":NaN}',
        b'{"variant_id":"v","kind":"like","new":1e999,"new":1}',
        b'{"variant_id":"v","kind":"like","new":%s}' % (b"9" * 4_301),
        b'{"variant_id":"v","kind":"like","new":%s}' % (b"[" * 500 + b"]" * 500),
        b'{"variant_id":"v","kind":"like","new":"\xff"}',
        b'{"variant_id":"v","kind":"like","new":"a\tb"}',
        b'{"variant_id":"v","kind":"like","new":"\\u0000"}',
        b'{"variant_id":"v","kind":"like","new":tru}',
        b'{"variant_id":"v","kind":"like","new":1,"count":0}',
        b'{"variant_id":"v","kind":"like","count":0}',
        b'{"variant_id":"v","kind":"like","occurred_at":"yesterday"}',
        b'{"variant_id":"v","kind":"like","occurred_at":"2023-11-31T22:13:20.000001Z"}',
        b'{"variant_id":"v","kind":"like","occurred_at":"2023-11-14T22:13:20,000001Z"}',
        '{"variant_id":"v","kind":"like","occurred_at":"2023-11-14T22:13:20.00000٣Z"}'.encode(),
        b'{"variant_id":"v","kind":"like","totals":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"variant_id":"v","kind":"like","source":"' + b"x" * VALUE_LIMIT + b'"}',
    ],
)
def test_what_is_out_of_the_ordinary_goes_another_way(value: bytes) -> None:
    """With all that came with it; the caller takes them apart."""
    assert decode(LIKE, value) is None


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (LIKE, b"w"),
        (LIKE, None),
        (b'{"variant_id":"v","kind":"like","occurred_at":"1999-12-31T23:59:59.999999Z"}', b"v"),
        (b'{"variant_id":"v","kind":"like","occurred_at":"2023-11-14T22:18:20.000001Z"}', b"v"),
        (b'{"variant_id":"v","kind":"like","occurred_at":946684799}', b"v"),
    ],
)
def test_an_event_that_cannot_be_used_is_marked_and_holds_up_no_other(value: bytes, key: bytes | None) -> None:
    """Another key, or a moment out of bounds: the general way says what is wrong with it."""
    events = decode_increments([Record(LIKE), Record(value, key), Record(LIKE)])
    assert events is not None
    assert [event.kind for event in events] == ["like", ODD, "like"]


def test_a_moment_at_its_bounds_is_taken() -> None:
    """2000-01-01, and five minutes after the append."""
    events = decode_increments(
        [Record(b'{"variant_id":"v","kind":"like","occurred_at":"%s"}' % moment) for moment in (b"2000-01-01T00:00:00.000000Z", b"2023-11-14T22:18:20.000000Z")]
    )
    assert events is not None
    assert [event.kind for event in events] == ["like", "like"]


def test_large_values_may_add_up() -> None:
    """The limit is each record's own."""
    value = b'{"variant_id":"v","kind":"like","source":"%s"}' % (b"x" * 40_000)
    assert decode(value, value) == ["like", "like"]


def monitor() -> PartitionMonitor:
    made = PartitionMonitor(0)
    made.post(Posting("v", "p", "q", Policy(), T_MS * 1_000), 0, T_MS * 1_000, b"", b"", T_MS * 1_000)
    return made


def fold(made: PartitionMonitor, *records: Record) -> dict[Result, int]:
    return dict(FOLDS[1](made, "interaction", records, Defaults(), T_MS * 1_000))


def seen(offset: int, kind: str = "view", count: int = 1, **fields: object) -> Record:
    return Record(json.dumps({"variant_id": "v", "post_id": "q", "kind": kind, "count": count, **fields}, separators=(",", ":")).encode(), b"v", offset)


def test_a_kill_in_the_middle_freezes_the_counts() -> None:
    """What comes after it in the same slice is only after the end, and the kill is told once."""
    made = monitor()
    assert fold(made, seen(0, count=500), seen(1, "like", 10), seen(2, "like", 7), seen(3, count=3)) == {Result.COUNTED: 2, Result.AFTER_END: 2}
    session = made.sessions.find("v", "q")
    assert session is not None
    assert session.end is not None
    assert (session.end.origin, session.counts.views, session.counts.interactions, made.active_count) == (Origin("interaction", 0, 1, T_MS * 1_000), 500, 10, 0)
    assert [type(emission) for emission in made.take_emissions()] == [Started, Ended]


def test_increments_below_a_snapshot_do_not_add_to_it() -> None:
    """Per kind the larger of the two is the total."""
    made = monitor()
    assert fold(made, seen(0, "snapshot", totals={"views": 100}), seen(1, count=60), seen(2, count=60)) == {Result.COUNTED: 3}
    session = made.sessions.find("v", "q")
    assert session is not None
    assert session.counts.views == 120


def test_an_event_id_counts_once_among_few_and_among_many() -> None:
    """Also in the slice that makes them many."""
    made = monitor()
    ids = [str(number) for number in range(3 * FEW)]
    assert fold(made, *(seen(offset, event_id=name) for offset, name in enumerate(ids))) == {Result.COUNTED: len(ids)}
    assert fold(made, *(seen(1_000 + offset, event_id=name) for offset, name in enumerate(ids))) == {Result.DUPLICATE: len(ids)}


def test_each_session_that_changes_is_written_once() -> None:
    """However many of its events a slice holds."""
    made = monitor()
    made.take_changes()
    fold(made, seen(0), seen(1))
    fold(made, seen(2))
    assert [session.variant_id for session in made.take_changes()[0]] == ["v"]
    assert made.take_changes() == ([], [])

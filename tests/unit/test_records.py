"""The monitoring record on the wire: what is written is read, and nothing half-ended gets in."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import ids
from models.errors import Reject
from models.moments import EARLIEST
from models.monitoring_record import METADATA_DEPTH, MonitoringRecord, parse
from models.strict_json import VALUE_LIMIT

SESSION = ids.session_id("v", "p")
START: dict[str, Any] = {
    "schema_version": 1,
    "record_id": str(ids.record_id(SESSION, "started")),
    "session_id": str(SESSION),
    "kind": "started",
    "variant_id": "v",
    "persona_id": "anna",
    "post_id": "p",
    "expected_engagement_rate": 0.06,
    "kill_threshold": 0.5,
    "min_interactions": 10,
    "timeout_minutes": 10.0,
    "policy": "ratio",
    "started_at": "2023-11-14T22:13:20.000001Z",
    "ended_at": None,
    "is_active": True,
    "was_killed": False,
    "outcome": None,
    "kill_reason": None,
    "final_engagement_rate": None,
    "final_interaction_count": None,
    "final_view_count": None,
    "kill_id": None,
    "decided_at": None,
    "monitoring_metadata": {"policy": "ratio", "source": None, "event_metadata": None},
}
KILL = START | {
    "record_id": str(ids.record_id(SESSION, "killed")),
    "kind": "killed",
    "ended_at": "2023-11-14T22:14:20.000000Z",
    "is_active": False,
    "was_killed": True,
    "outcome": "killed",
    "kill_reason": "Below 50% of expected engagement rate",
    "final_engagement_rate": 0.02,
    "final_interaction_count": 10,
    "final_view_count": 500,
    "kill_id": str(ids.kill_id(SESSION)),
    "decided_at": "2023-11-14T22:14:21.000000Z",
}
TIMED_OUT = KILL | {"kind": "timed_out", "was_killed": False, "outcome": "timed_out", "kill_id": None, "final_engagement_rate": None, "final_view_count": 0}


def wire(value: object) -> bytes:
    """As JSON."""
    return json.dumps(value).encode()


@pytest.mark.parametrize("value", [START, KILL, TIMED_OUT, TIMED_OUT | {"kind": "stopped", "outcome": "stopped"}])
def test_a_record_is_written_as_it_was_read(value: dict[str, Any]):
    """Every field, in the order of the contract's columns, moments to the microsecond."""
    record = parse(wire(value))
    assert json.loads(record.to_bytes()) == value
    assert list(json.loads(record.to_bytes())) == list(START)
    assert record.started_at_us == 1_700_000_000_000_001
    assert (record.outcome, record.was_killed) == (value["outcome"], value["was_killed"])


TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=200)
MOMENT = st.integers(EARLIEST, 4_000_000_000_000_000)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT, lambda inner: st.dictionaries(TEXT, inner, max_size=3), max_leaves=5
)
COMMON = {
    "record_id": st.uuids(),
    "session_id": st.uuids(),
    "variant_id": TEXT,
    "persona_id": TEXT,
    "post_id": TEXT,
    "expected_engagement_rate": st.floats(0, 1, exclude_min=True),
    "kill_threshold": st.floats(0, 1, exclude_min=True),
    "min_interactions": st.integers(1, 1_000_000),
    "timeout_minutes": st.floats(0, 43_200, exclude_min=True),
    "policy": st.just("ratio"),
    "started_at_us": MOMENT,
    "monitoring_metadata": st.dictionaries(TEXT, JSON, max_size=3),
}
END = {
    "ended_at_us": MOMENT,
    "decided_at_us": MOMENT,
    "kill_reason": TEXT,
    "final_engagement_rate": st.none() | st.floats(0, 1e12),
    "final_interaction_count": st.integers(0, 2**63 - 1),
    "final_view_count": st.integers(1, 2**63 - 1),
}
RECORDS = st.one_of(
    st.builds(MonitoringRecord, kind=st.just("started"), **COMMON),
    st.builds(MonitoringRecord, kind=st.just("killed"), kill_id=st.uuids(), **COMMON, **END),
    st.builds(MonitoringRecord, kind=st.sampled_from(["timed_out", "stopped"]), **COMMON, **END),
)


@given(RECORDS)
def test_every_record_that_the_monitor_can_build_is_read_back(record: MonitoringRecord):
    """Word for word, whatever the texts, numbers and metadata; and equal records are equal bytes."""
    again = parse(record.to_bytes())
    assert again == record
    assert again.to_bytes() == record.to_bytes()


def test_unknown_fields_are_ignored():
    """So that the monitor can move first. What could stand in a field that is known may stand in them."""
    for value in ({"x": [1]}, 1e308, int("9" * 4_300), [[]] * 501, ["a\\u0000", "\U0001f600"]):
        assert parse(wire(KILL | {"new": value})) == parse(wire(KILL))


@pytest.mark.parametrize(
    ("field", "accepted", "refused"),
    [
        ("schema_version", [1], [0, 2, "1", 1.0, True, None]),
        ("kind", [], ["started", "paused", None, 1]),
        ("variant_id", ["x", "x" * 200, "\u00e9" * 200, "a b", "\u202e"], ["", "x" * 201, "a\n", "\n", "a\u0085", "\x7f", "\0", None, 1]),
        ("session_id", [], ["", "x", 1, None]),
        ("expected_engagement_rate", [1, 1.0, 5e-324], [0, -0.1, 1.0000001, "0.5", True, None]),
        ("kill_threshold", [1, 1.0], [0, 1.1]),
        ("min_interactions", [1, 1_000_000], [0, 1_000_001, 10.0, True, "10", None]),
        ("timeout_minutes", [43_200, 0.001], [0, 43_200.1]),
        ("started_at", ["2023-11-14T23:13:20.000001+01:00"], ["2023-11-14T22:13:20", "yesterday", 1_700_000_000, None]),
        ("ended_at", [], [None]),
        ("is_active", [], [True, 0, None]),
        ("was_killed", [], [False]),
        ("outcome", [], ["timed_out", None, "dead"]),
        ("kill_reason", ["x", "x" * 1_000], ["", "x" * 1_001, None]),
        ("final_engagement_rate", [0, 3.5, None], [-0.1, "1"]),
        ("final_interaction_count", [0, 2**63 - 1], [-1, 2**63, 1.0, None]),
        ("final_view_count", [1], [-1, None]),
        ("kill_id", [], [None, "x"]),
        ("decided_at", [], [None]),
        ("monitoring_metadata", [{}, {"a": [1, None]}], [None, [], "x", {"a": {"b\0": 1}}, {"a": ["\0"]}]),
    ],
)
def test_each_field_of_a_kill_has_its_bounds(field: str, accepted: list[object], refused: list[object]):
    """On the bound and beyond it; what is missing is refused too. The reason names the field, except for U+0000 in the metadata."""
    for value in accepted:
        parse(wire(KILL | {field: value}))
    for value in refused:
        with pytest.raises(Reject) as caught:
            parse(wire(KILL | {field: value}))
        assert field in str(caught.value) or "U+0000" in str(caught.value) or "kind" in str(caught.value), value
    with pytest.raises(Reject, match=field):
        parse(wire({name: value for name, value in KILL.items() if name != field}))


@pytest.mark.parametrize("field", ["ended_at", "kill_reason", "final_engagement_rate", "final_interaction_count", "final_view_count", "kill_id", "decided_at", "outcome"])
def test_a_start_knows_nothing_of_an_end(field: str):
    """A half-ended session is never written."""
    with pytest.raises(Reject, match=f"{field}: contradicts kind started"):
        parse(wire(START | {field: KILL[field]}))


def test_a_rate_needs_views():
    """No views, no rate."""
    with pytest.raises(Reject, match="final_engagement_rate: contradicts kind killed"):
        parse(wire(KILL | {"final_view_count": 0}))
    parse(wire(KILL | {"final_view_count": 0, "final_engagement_rate": None}))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (wire(START) + b"x", "not JSON"),
        (wire(START) + wire(START), "not JSON"),
        (b"\xef\xbb\xbf" + wire(START), "not JSON"),
        (b"[]", "Expected `object`"),
        (b"null", "Expected `object`"),
        (wire(START)[:-1] + b', "skipped": "\xff"}', "not UTF-8"),
        (wire(START).replace(b'"anna"', b'"\\ud800"'), "not JSON"),
        (wire(START).replace(b"0.06", b"NaN"), "not JSON"),
        (wire(START).replace(b"0.06", b"1e999"), "out of range"),
        (wire(START)[:-1] + b', "deep": ' + b"[" * 30_000 + b"]" * 30_000 + b"}", "nested too deeply"),
        (wire(START)[:-1] + b', "skipped": {"x": [1e999]}}', "skipped: has a non-finite number"),
        (wire(START)[:-1] + b', "skipped": -1e999, "skipped": 1}', "skipped: has a non-finite number"),
        (wire(START)[:-1] + b', "skipped": ' + b"9" * 4_301 + b"}", "has a number that is too long"),
        (wire(START)[:-1] + b', "skipped": ["a\\u0000b"]}', "skipped: has U\\+0000 in a string"),
        (wire(START)[:-1] + b', "a\\u0000b": 1}', "has U\\+0000 in a string"),
        (wire(START)[:-1] + b', "skipped": "\\ud800"}', "not JSON"),
        (wire(START)[:-1] + b', "skipped": ' + b"[" * 501 + b"]" * 501 + b"}", "skipped: is nested too deeply"),
        (wire(START) + b" " * (VALUE_LIMIT - len(wire(START)) + 1), "longer than 64 KiB"),
    ],
)
def test_what_is_no_record_is_refused(value: bytes, reason: str):
    """With a reason for the dead letter."""
    with pytest.raises(Reject, match=reason):
        parse(value)


@pytest.mark.parametrize(
    ("moment", "is_taken"),
    [
        ("2000-01-01T00:00:00Z", True),
        ("1999-12-31T23:59:59.999999Z", False),
        ("9999-12-31T23:59:59.999999Z", True),
        ("9999-12-31T23:59:59-00:01", False),
        ("0001-01-01T00:00:00+00:01", False),
    ],
)
def test_a_moment_lies_in_the_years_2000_to_9999(moment: str, is_taken: bool):
    """Others cannot be written into a table, or not be written at all."""
    if is_taken:
        parse(wire(START | {"started_at": moment}))
    else:
        with pytest.raises(Reject, match="started_at: lies outside the years 2000 to 9999"):
            parse(wire(START | {"started_at": moment}))


def test_metadata_may_be_two_hundred_levels_deep():
    """Twice what a post may bring along."""

    def nested(levels: int) -> dict[str, Any]:
        return {"x": nested(levels - 1)} if levels > 1 else {}

    parse(wire(START | {"monitoring_metadata": nested(METADATA_DEPTH)}))
    with pytest.raises(Reject, match="monitoring_metadata: nested too deeply"):
        parse(wire(START | {"monitoring_metadata": nested(METADATA_DEPTH + 1)}))


def test_the_longest_value_is_read():
    """64 KiB, inclusive; and a backslash before ``u0000`` is no U+0000."""
    parse(wire(START) + b" " * (VALUE_LIMIT - len(wire(START))))
    parse(wire(START | {"persona_id": "a\\u0000"}))

"""What a value on a topic may hold: every field, on its bounds."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from models.errors import Reject
from models.events import Posting, Stop, parse_interaction, parse_stop, parse_variant_posted
from models.moments import EARLIEST, MINUTE, format_moment
from models.policy import Defaults, Policy
from models.stop_request import StopRequest
from models.strict_json import parse_json
from streams.codec import decode_interaction

APPENDED = 1_700_000_000_000_000
POSTED = {"variant_id": "v", "persona_id": "p", "post_id": "q"}
VIEW = {"variant_id": "v", "kind": "view"}
SNAPSHOT = {"variant_id": "v", "kind": "snapshot", "totals": {"views": 5}}
STOP = {"action": "stop", "variant_id": "v"}


def encode(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def posted(value: object, key: bytes | None = b"v") -> Posting:
    return parse_variant_posted(encode(value), key, APPENDED, Defaults())


def interaction(value: object, key: bytes | None = b"v") -> Any:
    """Read it both ways, and hold one against the other."""
    raw = encode(value)
    read = []
    for parse in (parse_interaction, decode_interaction):
        try:
            read.append(parse(raw, key, APPENDED))
        except Reject as error:
            read.append(str(error))
    assert read[0] == read[1]
    if isinstance(read[0], str):
        return parse_interaction(raw, key, APPENDED)
    return read[0]


def stopped(value: object, key: bytes | None = b"v") -> Stop:
    return parse_stop(encode(value), key)


READERS: list[tuple[Callable[..., Any], dict[str, Any]]] = [(posted, POSTED), (interaction, VIEW), (interaction, SNAPSHOT), (stopped, STOP)]
all_topics = pytest.mark.parametrize(("read", "good"), READERS)


def refused(read: Callable[..., Any], value: object, match: str = "", key: bytes | None = b"v") -> None:
    with pytest.raises(Reject, match=match):
        read(value, key)


def test_what_is_absent_has_its_default() -> None:
    """Null means absent."""
    expected = Posting("v", "p", "q", Policy(0.06, 0.5, 10, 10, "ratio"), APPENDED)
    optional = ("expected_engagement_rate", "posted_at", "kill_threshold", "min_interactions", "timeout_minutes", "policy", "event_id", "source", "schema_version", "metadata")
    assert posted(POSTED) == posted({**POSTED, **dict.fromkeys(optional)}) == expected
    view = interaction(VIEW)
    assert view == interaction({**VIEW, **dict.fromkeys(("count", "post_id", "occurred_at", "event_id", "source", "schema_version", "totals"))})
    assert (view.variant_id, view.kind, view.count, view.occurred_at, view.post_id, view.event_id, view.totals) == ("v", "view", 1, APPENDED, None, None, None)
    assert stopped(STOP) == stopped({**STOP, "post_id": None, "requested_by": None}) == Stop("v")


def test_the_service_may_have_other_defaults() -> None:
    """They hold where the event does not say."""
    policy = parse_variant_posted(encode({**POSTED, "kill_threshold": 0.9}), b"v", APPENDED, Defaults(0.1, 0.2, 3, 4)).policy
    assert policy == Policy(0.1, 0.9, 3, 4)


def test_a_thousand_characters_of_the_source_are_kept() -> None:
    """It goes into every record of the session, and those have to stay below the limit of a value."""
    assert posted({**POSTED, "source": "é" * 1_000}).source == "é" * 1_000
    assert posted({**POSTED, "source": "é" * 30_000}).source == "é" * 1_000


def test_what_is_given_is_taken() -> None:
    """Every field of the two messages."""
    full = {**POSTED, "expected_engagement_rate": 1, "posted_at": format_moment(APPENDED - 5), "kill_threshold": 0.25, "min_interactions": 7, "timeout_minutes": 0.5}
    full |= {"policy": "ratio", "event_id": "e", "source": "threads", "schema_version": 1, "metadata": {"a": [1]}}
    assert posted(full) == Posting("v", "p", "q", Policy(1.0, 0.25, 7, 0.5), APPENDED - 5, "threads", {"a": [1]})
    event = interaction({**VIEW, "count": 3, "post_id": "q", "occurred_at": APPENDED // 1_000 - 1, "event_id": "e", "source": "s", "schema_version": 1})
    assert (event.count, event.post_id, event.occurred_at, event.event_id) == (3, "q", APPENDED - 1_000, "e")
    assert interaction({**SNAPSHOT, "totals": {"likes": 2, "saves": 10**12, "views": None, "hugs": "many"}}).totals == (None, 2, None, None, None, None, None, 10**12)
    assert stopped({**STOP, "post_id": "q", "request_id": "r", "requested_by": "me", "requested_at": "now", "schema_version": 1}) == Stop("v", "q")


def test_a_stop_says_who_asked_for_it_as_far_as_the_audit_can_hold_it() -> None:
    """A name, cut to 200 characters, and a UUID; without one of them nothing, and the stop holds all the same."""
    request_id = "390c3896-29b9-43ac-95f0-031d3760aa74"
    assert stopped({**STOP, "request_id": request_id.upper(), "requested_by": "m" * 201}) == Stop("v", None, StopRequest("m" * 200, request_id))
    for unusable in ({"request_id": "7", "requested_by": "me"}, {"request_id": request_id}, {"request_id": request_id, "requested_by": ""}, {"requested_by": "me"}):
        assert stopped({**STOP, **unusable}) == Stop("v")


@all_topics
def test_unknown_fields_are_ignored(read: Callable[..., Any], good: dict[str, Any]) -> None:
    """Producers may move first."""
    assert read({**good, "new": {"deep": [1, None, "x"]}, "__faust": {"ns": "models.events.Stop"}}) == read(good)


@all_topics
@pytest.mark.parametrize("text", ["x", "x" * 200, "😀" * 200, "../../etc", "'; DROP TABLE x; --", "\u202e", "\u00a0", "\ue000"])
def test_an_id_has_up_to_two_hundred_code_points(read: Callable[..., Any], good: dict[str, Any], text: str) -> None:
    """Whatever they are, but for control characters."""
    assert read({**good, "variant_id": text}, text.encode()).variant_id == text
    assert read({**good, "post_id": text}).post_id == text


@all_topics
@pytest.mark.parametrize("text", ["", "x" * 201, "😀" * 201, "a\nb", "a\x1fb", "a\x7fb", "a\x85b", "a\x9fb", 5, True, ["v"], {"v": 1}])
@pytest.mark.parametrize("field", ["variant_id", "post_id"])
def test_an_id_that_is_empty_too_long_or_holds_a_control_character_is_refused(read: Callable[..., Any], good: dict[str, Any], field: str, text: Any) -> None:
    """Control characters are Unicode's Cc, C1 too; other types are no strings."""
    refused(read, {**good, field: text}, f"^{field}", str(text).encode())


def test_the_ids_are_required() -> None:
    """Null is absent."""
    for field in POSTED:
        refused(posted, {**POSTED, field: None}, f"^{field}")
        refused(posted, {name: text for name, text in POSTED.items() if name != field}, f"^{field}")
    refused(interaction, {"kind": "view"}, "^variant_id")
    refused(interaction, {"variant_id": "v"}, "^kind")


@all_topics
def test_a_record_without_key_or_with_another_one_is_refused(read: Callable[..., Any], good: dict[str, Any]) -> None:
    """A variant's records have to be in one partition."""
    refused(read, good, "no key", None)
    refused(read, good, "differs", b"w")
    refused(read, good, "differs", b"")


@pytest.mark.parametrize("field", ["expected_engagement_rate", "kill_threshold"])
def test_a_share_lies_above_zero_and_up_to_one(field: str) -> None:
    """One is included, zero is not."""
    assert getattr(posted({**POSTED, field: 1}).policy, field) == 1.0
    assert getattr(posted({**POSTED, field: 5e-324}).policy, field) == 5e-324
    for bad in (0, -0.0, -1, 1.0000001, 2, True, "0.5", [], 10**400):
        refused(posted, {**POSTED, field: bad}, f"^{field}")


def test_min_interactions_lies_between_one_and_a_million() -> None:
    """Both included; integers only."""
    for good in (1, 1_000_000):
        assert posted({**POSTED, "min_interactions": good}).policy.min_interactions == good
    for bad in (0, -1, 1_000_001, 1.0, 5.5, True, "5", 10**30):
        refused(posted, {**POSTED, "min_interactions": bad}, "^min_interactions")


def test_a_timeout_lies_above_zero_and_up_to_thirty_days() -> None:
    """In minutes; however short, a window holds the moment of its post."""
    for good in (43_200, 43_200.0, 0.001, 1e-6, 1e-9, 5e-324):
        assert posted({**POSTED, "timeout_minutes": good}).policy.timeout_minutes == good
    assert posted({**POSTED, "timeout_minutes": 5e-324}).policy.timeout == 1
    for bad in (0, -1, 43_200.000001, True, "10"):
        refused(posted, {**POSTED, "timeout_minutes": bad}, "^timeout_minutes")


def test_an_unknown_rule_is_refused() -> None:
    """It says which there are."""
    refused(posted, {**POSTED, "policy": "mood"}, "^policy: is not a rule this service offers .*ratio")
    refused(posted, {**POSTED, "policy": 1}, "^policy")


@all_topics
def test_the_schema_version_is_the_integer_one(read: Callable[..., Any], good: dict[str, Any]) -> None:
    """Another is not known here."""
    assert read({**good, "schema_version": 1}) == read(good)
    for bad in (0, 2, 1.0, True, "1", [1]):
        refused(read, {**good, "schema_version": bad}, "^schema_version")


def test_metadata_has_up_to_four_kibibytes() -> None:
    """As compact JSON in UTF-8."""
    room = 4096 - len('{"a":""}')
    assert posted({**POSTED, "metadata": {"a": "x" * room}}).metadata == {"a": "x" * room}
    assert posted({**POSTED, "metadata": {"a": "é" * (room // 2)}}).metadata
    assert posted({**POSTED, "metadata": {}}).metadata == {}
    refused(posted, {**POSTED, "metadata": {"a": "x" * (room + 1)}}, "^metadata: is larger than 4096 bytes")
    refused(posted, {**POSTED, "metadata": {"a": "é" * (room // 2 + 1)}}, "^metadata: is larger")
    for bad in ([], "x", 1, True):
        refused(posted, {**POSTED, "metadata": bad}, "^metadata")


def nested(depth: int) -> dict[str, Any]:
    value: Any = 1
    for _ in range(depth - 1):
        value = [value]
    return {"a": value}


def test_metadata_may_be_a_hundred_levels_deep() -> None:
    """Everybody who reads it later takes as much."""
    assert posted({**POSTED, "metadata": nested(100)}).metadata == nested(100)
    refused(posted, {**POSTED, "metadata": nested(101)}, "^metadata: is nested too deeply")


@pytest.mark.parametrize("count", [1, 1_000_000])
def test_a_count_lies_between_one_and_a_million(count: int) -> None:
    """Both included."""
    assert interaction({**VIEW, "count": count}).count == count


@pytest.mark.parametrize("count", [0, -1, 1_000_001, 1.0, 1.5, True, "5", [], 10**30])
def test_any_other_count_is_refused(count: Any) -> None:
    """Integers are strict."""
    refused(interaction, {**VIEW, "count": count}, "^count")


@pytest.mark.parametrize("kind", ["view", "like", "reply", "repost", "quote", "share", "click", "save"])
def test_the_kinds_are_those_of_the_contract(kind: str) -> None:
    """Eight of them."""
    assert interaction({**VIEW, "kind": kind}).kind == kind


@pytest.mark.parametrize("kind", ["", "View", "views", "poke", None, 1, True, ["view"]])
def test_an_unknown_kind_is_refused(kind: Any) -> None:
    """It may mean anything."""
    refused(interaction, {**VIEW, "kind": kind}, "^kind")


@pytest.mark.parametrize("total", [0, 10**12])
def test_a_total_lies_between_zero_and_a_trillion(total: int) -> None:
    """Both included."""
    assert interaction({**SNAPSHOT, "totals": {"views": total}}).totals[0] == total


@pytest.mark.parametrize("total", [-1, 10**12 + 1, 1.0, True, "5"])
def test_any_other_total_is_refused(total: Any) -> None:
    """Integers are strict."""
    refused(interaction, {**SNAPSHOT, "totals": {"views": total}}, "^totals.views")


@pytest.mark.parametrize("totals", [None, {}, {"views": None}, {"hugs": 5}])
def test_a_snapshot_knows_at_least_one_total(totals: Any) -> None:
    """Unknown is not zero, and other names are ignored."""
    refused(interaction, {**SNAPSHOT, "totals": totals}, "^totals")


def test_totals_are_an_object() -> None:
    """Nothing else will do."""
    for bad in ([], "5", 5):
        refused(interaction, {**SNAPSHOT, "totals": bad}, "^totals")


def test_an_event_id_has_one_to_two_hundred_characters() -> None:
    """Of any kind."""
    for good in ("e", "😀" * 200, "a\nb"):
        assert interaction({**VIEW, "event_id": good}).event_id == good
    for bad in ("", "😀" * 201, 5, True):
        refused(interaction, {**VIEW, "event_id": bad}, "^event_id")


@pytest.mark.parametrize(("read", "good", "field"), [(posted, POSTED, "posted_at"), (interaction, VIEW, "occurred_at"), (interaction, SNAPSHOT, "occurred_at")])
def test_a_moment_is_refused_outside_its_bounds(read: Callable[..., Any], good: dict[str, Any], field: str) -> None:
    """From 2000-01-01 to five minutes after the append time, both included."""
    for us in (EARLIEST, APPENDED, APPENDED + 5 * MINUTE):
        assert getattr(read({**good, field: format_moment(us)}), field) == us
    refused(read, {**good, field: format_moment(EARLIEST - 1)}, f"^{field}: lies before 2000")
    refused(read, {**good, field: format_moment(APPENDED + 5 * MINUTE + 1)}, f"^{field}: lies more than 5 minutes")
    for bad in (True, "yesterday", "2023-11-14T22:13:20", [], {}, 1e300, 10**400, -1, 0, APPENDED):
        refused(read, {**good, field: bad}, f"^{field}")


def test_the_action_of_a_control_record_is_stop() -> None:
    """There is no other yet."""
    for bad in (None, "start", "", 1):
        refused(stopped, {**STOP, "action": bad}, "^action")


RAW: list[tuple[bytes | None, str]] = [
    (None, "has no value"),
    (b"", "is not JSON"),
    (b" ", "is not JSON"),
    (b"{", "is not JSON"),
    (b'{"variant_id":"v","kind":"view"}x', "is not JSON"),
    (b'{"variant_id":"v","kind":"view"}{}', "is not JSON"),
    (b'\xef\xbb\xbf{"variant_id":"v","kind":"view"}', "is not JSON"),
    (b"[]", "is not a JSON object"),
    (b'"x"', "is not a JSON object"),
    (b"null", "is not a JSON object"),
    (b'{"variant_id":"v","kind":"view","x":"\xff"}', "is not valid UTF-8"),
    (b'{"variant_id":"v","kind":"view","x":"\xed\xa0\x80"}', "is not valid UTF-8"),
    (b'{"variant_id":"v","kind":"view","x":NaN}', "non-finite"),
    (b'{"variant_id":"v","kind":"view","x":[-Infinity]}', "non-finite"),
    (b'{"variant_id":"v","kind":"view","x":{"y":1e999}}', "non-finite"),
    (b'{"variant_id":"v","kind":"view","x":"\\ud800"}', "lone surrogate"),
    (b'{"variant_id":"v","kind":"view","\\udfff":1}', "lone surrogate"),
    (b'{"variant_id":"v","kind":"view","x":["\\u0000"]}', "U\\+0000"),
    (b'{"variant_id":"v","kind":"view","a\\u0000":1}', "U\\+0000"),
    (b'{"variant_id":"v","kind":"view","x":1e999,"x":1}', "non-finite"),
    (b'{"variant_id":"v","kind":"view","occurred_at":1e999,"occurred_at":null}', "non-finite"),
    (b'{"variant_id":"v","kind":"view","x":"\\u0000","x":1}', "U\\+0000"),
    (b'{"variant_id":"v","kind":"view","x":{"y":{"z":["\\ud800"]},"y":1},"x":1}', "lone surrogate"),
    (b'{"variant_id":"v","kind":"view","x":"\x00"}', "is not JSON"),
    (b'{"variant_id":"v","kind":"view","x":' + b"1" * 5_000 + b"}", "too long"),
    (b'{"variant_id":"v","kind":"view","x":' + b"[" * 30_000 + b"]" * 30_000 + b"}", "nested too deeply"),
]


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b'{"x":NaN}', "x"),
        (b'{"a":1,"x":[{"y":1e999}]}', "x"),
        (b'{"x":"\\u0000"}', "x"),
        (b'{"x":["\\ud800"]}', "x"),
        (b'{"x":1e999,"x":1}', "x"),
        (b'{"x":{"\\u0000":1}}', "x"),
        (b'{"x":' + b"[" * 501 + b"]" * 501 + b"}", "x"),
        (b'{"a\\u0000":1}', None),
        (b'{"a\\nb":NaN}', None),
        (b'{"' + b"x" * 101 + b'":NaN}', None),
        (b'{"' + b"x" * 100 + b'":NaN}', "x" * 100),
        (b"{", None),
    ],
)
def test_a_field_that_holds_what_is_refused_everywhere_is_named(raw: bytes, field: str | None) -> None:
    """The outermost one, if its name can be shown."""
    with pytest.raises(Reject) as refusal:
        parse_json(raw)
    assert refusal.value.field == field


@pytest.mark.parametrize(("raw", "reason"), RAW)
def test_what_is_not_sound_json_is_refused(raw: bytes | None, reason: str) -> None:
    """All of the value, skipped fields included, on each topic and both ways."""
    for parse in (lambda: parse_interaction(raw, b"v", APPENDED), lambda: decode_interaction(raw, b"v", APPENDED), lambda: parse_stop(raw, b"v")):
        with pytest.raises(Reject, match=reason):
            parse()
    with pytest.raises(Reject, match=reason):
        parse_variant_posted(raw, b"v", APPENDED, Defaults())


def test_a_value_has_up_to_sixty_four_kibibytes() -> None:
    """A byte more is refused, before it is looked at."""
    value = encode({**VIEW, "pad": ""})
    full = value.replace(b'""', b'"' + b"x" * (65_536 - len(value)) + b'"')
    assert len(full) == 65_536
    assert parse_interaction(full, b"v", APPENDED) == decode_interaction(full, b"v", APPENDED) == interaction(VIEW)
    for parse in (parse_interaction, decode_interaction):
        with pytest.raises(Reject, match="is larger than 65536 bytes"):
            parse(full + b" ", b"v", APPENDED)


def test_of_a_name_given_twice_the_last_counts() -> None:
    """As most readers of JSON have it."""
    raw = b'{"variant_id":"w","kind":"like","count":0,"variant_id":"v","kind":"view","count":2}'
    assert parse_json(raw) == {"variant_id": "v", "kind": "view", "count": 2}
    assert parse_interaction(raw, b"v", APPENDED) == decode_interaction(raw, b"v", APPENDED) == interaction({**VIEW, "count": 2})


def test_escapes_are_read() -> None:
    """A pair of surrogates is one character."""
    raw = b'{"variant_id":"\\ud83d\\ude00","kind":"vi\\u0065w"}'
    assert decode_interaction(raw, "😀".encode(), APPENDED).variant_id == "😀"


def below(frames: int, call: Callable[[], Any]) -> Any:
    """Call from deeper in the stack."""
    return below(frames - 1, call) if frames else call()


def test_a_value_may_be_five_hundred_levels_deep() -> None:
    """However deep the caller is in its stack: live, replayed and offline the same record has the same verdict."""
    for frames in (0, 200):
        assert below(frames, lambda: parse_json(encode(nested(500)))) == nested(500)
        with pytest.raises(Reject, match="nested too deeply"):
            below(frames, lambda: parse_json(encode(nested(501))))

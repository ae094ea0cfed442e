"""Malformed and hostile records, each named after what is wrong with it, and a mutator that makes more. Imports nothing of the project."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

VARIANT, POST = "hostile", "hostile-post"
"""A posting with a window of a month and 1,000,000 interactions before the first decision, for the interactions of the corpus."""
BRIEF = "brief"
"""Likewise, posted an hour ago with a window of a minute."""
DOOMED = "doomed"
"""Likewise, with the default rule."""
KIB_64 = 64 * 1024


class Token(str):
    """JSON as it is to be written."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Case:
    """One record.

    Attributes:
        name: What is wrong with it, or what is odd.
        result: What has to become of it; of a ``monitoring_record`` ``dead_letter`` or ``kept``.
        reason: Part of the dead letter's reason.
    """

    name: str
    topic: str
    value: bytes | None
    key: bytes | None
    result: str
    reason: str = ""


def write(item: Any) -> str:
    """Write compact JSON; a ``Token`` stands for itself."""
    if isinstance(item, Token):
        return str(item)
    if isinstance(item, Mapping):
        return "{" + ",".join(f"{json.dumps(name, ensure_ascii=False)}:{write(part)}" for name, part in item.items()) + "}"
    if isinstance(item, list):
        return "[" + ",".join(write(part) for part in item) + "]"
    return json.dumps(item, ensure_ascii=False)


def say(fields: Mapping[str, Any]) -> bytes:
    """Write an object as a record's value."""
    return write(fields).encode()


def moment(now: float, seconds: float) -> str:
    """RFC 3339 for some seconds after ``now``."""
    return (datetime.fromtimestamp(now, UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def stage(now: float) -> list[tuple[str, bytes]]:
    """(key, value) of the ``variant_posted`` records that have to come first."""
    patient = {"persona_id": "p", "posted_at": moment(now, -3_600), "timeout_minutes": 43_200, "min_interactions": 1_000_000}
    posts = [
        {"variant_id": VARIANT, "post_id": POST, **patient},
        {"variant_id": BRIEF, "post_id": POST, **patient, "timeout_minutes": 1},
        {"variant_id": DOOMED, "post_id": POST, **patient, "min_interactions": 10},
    ]
    return [(post["variant_id"], say(post)) for post in posts]


def corpus(now: float) -> list[Case]:
    """All cases of the three source topics, for records appended about ``now`` (seconds since the epoch), in an order that does not matter but for ids given twice."""
    found: list[Case] = []
    for topic, good, on_new in (
        ("variant_posted", {"variant_id": VARIANT, "persona_id": "p", "post_id": POST}, "counted"),
        ("interaction", {"variant_id": VARIANT, "kind": "view", "post_id": POST}, "waiting"),
        ("monitoring_control", {"action": "stop", "variant_id": VARIANT, "post_id": "none"}, "after_end"),
    ):
        as_before = {"variant_posted": "duplicate", "interaction": "counted", "monitoring_control": "after_end"}[topic]
        found += [Case(f"{topic}: {name}", topic, value, key, "dead_letter", reason) for name, value, key, reason in _unusable(good)]
        found += [Case(f"{topic}: {name}", topic, value, key, as_before) for name, value, key in _odd(good)]
        found += [Case(f"{topic}: {name} as an id", topic, say({**good, "variant_id": odd}), odd.encode(), on_new) for name, odd in _odd_ids(topic)]
    return [*found, *_posted(now), *_interactions(now), *_stops()]


# -- what is the same on all topics ----------------------------------------------------------------------------------


def _nested(levels: int) -> Token:
    return Token("[" * levels + "]" * levels)


def _unusable(good: dict[str, Any]) -> Iterator[tuple[str, bytes | None, bytes | None, str]]:
    whole, key = say(good), good["variant_id"].encode()
    for name, value, reason in (
        ("no value", None, "no value"),
        ("an empty value", b"", "not JSON"),
        ("only white space", b" \n\t", "not JSON"),
        ("null", b"null", "not a JSON object"),
        ("a list", b"[" + whole + b"]", "not a JSON object"),
        ("a text", json.dumps(whole.decode()).encode(), "not a JSON object"),
        ("a number", b"1", "not a JSON object"),
        ("bytes that are no text", b"\xff\xfe\x00\x01", "UTF-8"),
        ("a byte order mark", b"\xef\xbb\xbf" + whole, "not JSON"),
        ("UTF-16", whole.decode().encode("utf-16-le"), "not JSON"),
        ("bytes that are no text in a field nobody knows", whole[:-1] + b',"later":"\xc3("}', "UTF-8"),
        ("a surrogate in UTF-8", whole[:-1] + b',"later":"\xed\xa0\x80"}', "UTF-8"),
        ("U+0000 in UTF-8", whole[:-1] + b',"later":"a\x00b"}', "not JSON"),
        ("truncated", whole[:-1], "not JSON"),
        ("truncated in a text", whole[: len(whole) // 2], "not JSON"),
        ("rubbish behind it", whole + b"x", "not JSON"),
        ("two documents", whole + whole, "not JSON"),
        ("two documents on two lines", whole + b"\n" + whole, "not JSON"),
        ("a comma too many", whole[:-1] + b",}", "not JSON"),
        ("single quotes", whole.replace(b'"', b"'"), "not JSON"),
        ("a comment", b"/**/" + whole, "not JSON"),
        ("gzip", b"\x1f\x8b\x08\x00" + whole, "UTF-8"),
        ("one byte over 64 KiB", whole + b" " * (KIB_64 + 1 - len(whole)), "larger than"),
        ("900 KB in one field", say({**good, "source": "x" * 900_000}), "larger than"),
        ("900 KB of brackets", b"[" * 900_000, "larger than"),
        ("501 levels", say({**good, "later": _nested(500)}), "nested too deeply"),
        ("1,000 levels", say({**good, "later": _nested(1_000)}), "nested too deeply"),
        ("30,000 levels", say({**good, "later": _nested(30_000)}), "nested too deeply"),
        ("30,000 brackets that never close", b'{"later":' + b"[" * 30_000, ""),
        ("10,000 objects that never close", b'{"a":' * 10_000, ""),
        ("an integer of 4,301 digits", say({**good, "later": Token("9" * 4_301)}), "too long"),
        ("an integer of 30,000 digits", say({**good, "later": [Token("9" * 30_000)]}), "too long"),
    ):
        yield name, value, key, reason
    for number in ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" + "0" * 400 + ".0"):
        yield f"{number[:9]} in a field nobody knows", say({**good, "later": Token(number)}), key, "later: has a non-finite number"
        yield f"{number[:9]} deep in a field nobody knows", say({**good, "later": Token(f'[{{"x":[1,{number}]}}]')}), key, "later: has a non-finite number"
        yield f"{number[:9]} in a field that is given again", whole[:-1] + f',"later":{number},"later":1}}'.encode(), key, "later: has a non-finite number"
    for name, escape, reason in (("U+0000", "\\u0000", "U+0000"), ("a lone surrogate", "\\ud800", "surrogate"), ("surrogates the wrong way round", "\\udc00\\ud800", "surrogate")):
        yield f"{name} in a field nobody knows", say({**good, "later": Token(f'"{escape}"')}), key, f"later: has {'a lone ' if 'sur' in name else ''}{reason}"
        yield f"{name} in a name", whole[:-1] + f',"{escape}":1}}'.encode(), key, reason
        yield f"{name} in the id", say({**good, "variant_id": Token(f'"{escape}"')}), key, reason
    for name, other in (
        ("no id", None),
        ("an empty id", ""),
        ("an id of 201 characters", "x" * 201),
        ("an id of 10 KB", "x" * 10_000),
        ("an id with a newline", "a\nb"),
        ("an id with DEL", "a\x7f"),
        ("an id with a C1 control", "a\x85"),
        ("an id with an escape", "\x1b[31m"),
    ):
        yield name, say({**good, "variant_id": other}), None if other is None else other.encode(), "variant_id"
    for other in (5, True, 1.5, ["x"], {"x": 1}):
        yield f"{other!r} as an id", say({**good, "variant_id": other}), str(other).encode(), "variant_id"
    yield "the id left out", say({name: item for name, item in good.items() if name != "variant_id"}), key, "variant_id"
    for name, other_key in (
        ("no key", None),
        ("an empty key", b""),
        ("another key", b"other"),
        ("a key in capitals", key.upper()),
        ("a key with a space", key + b" "),
        ("a key in quotes", b'"' + key + b'"'),
        ("a key of 900 KB", b"k" * 900_000),
    ):
        yield name, whole, other_key, "key"
    yield "a key in another normal form", say({**good, "variant_id": "\u00e9"}), "e\u0301".encode(), "key"
    yield "the key of the id given first", b'{"variant_id":"first",' + whole[1:], b"first", "key"
    for version in (2, 0, "1", Token("1.0"), True, [1]):
        yield f"schema version {version!r}", say({**good, "schema_version": version}), key, "schema_version"


def _odd(good: dict[str, Any]) -> Iterator[tuple[str, bytes, bytes]]:
    whole, key = say(good), good["variant_id"].encode()
    for name, value in (
        ("nothing wrong", whole),
        ("white space around it", b"\r\n\t " + whole + b" \n"),
        ("64 KiB", whole + b" " * (KIB_64 - len(whole))),
        ("escapes in names and texts", whole.replace(b"variant_id", b"variant\\u005fid").replace(b"hostile", b"\\u0068ostile")),
        ("a field nobody knows", say({**good, "later": {"deep": [1, None, "x", 1e300]}})),
        ("a field nobody knows with escapes", say({**good, "later": 'a "text"\\ with \n all'})),
        ("fields nobody knows with the names of others", say({**good, "__faust": {"ns": "models.events.Stop"}, "__proto__": {}, "__class__": "x", "": 1})),
        ("500 levels", say({**good, "later": _nested(499)})),
        ("an integer of 4,300 digits", say({**good, "later": Token("9" * 4_300)})),
        ("a number close to zero", say({**good, "later": Token("1e-999")})),
        ("an id given twice", b'{"variant_id":"first",' + whole[1:]),
        ("an id that is none, given again", b'{"variant_id":[5],' + whole[1:]),
        ("null where nothing is needed", say({**good, "schema_version": None, "source": None, "event_id": None})),
        ("schema version 1", say({**good, "schema_version": 1})),
        ("60,000 characters of source", say({**good, "source": "\u00e9" * 30_000})),
        ("1,000 fields nobody knows", say(good | {f"later-{number}": number for number in range(1_000)})),
    ):
        yield name, value, key


def _odd_ids(topic: str) -> Iterator[tuple[str, str]]:
    for name, text in (
        ("a path", "../../etc/passwd"),
        ("SQL", "'; DROP TABLE variant_monitoring; --"),
        ("right to left", "\u202egnp.exe"),
        ("200 characters beyond the plane", "\U0001f600"),
        ("HTML", "<script>alert(1)</script>"),
        ("a template", "{{7*7}} ${x} %s %n"),
        ("spaces", "   "),
        ("a line separator", "a\u2028b"),
        ("a formula", "=HYPERLINK(1)"),
        ("quotes", "\"\\'`"),
    ):
        yield name, (text + topic[0])[:200] if len(text) > 1 else text * 199 + topic[0]


# -- variant_posted --------------------------------------------------------------------------------------------------


def _posted(now: float) -> Iterator[Case]:
    good = {"variant_id": "fresh", "persona_id": "p", "post_id": "q"}
    bad: list[tuple[str, dict[str, Any], str]] = []
    for field in ("persona_id", "post_id"):
        bad += [(f"{what} as {field}", {field: item}, field) for what, item in (("null", None), ("nothing", ""), ("201 characters", "x" * 201), ("7", 7), ("a newline", "a\n"))]
    for field in ("expected_engagement_rate", "kill_threshold", "timeout_minutes"):
        tokens = ["0", "-0", "-0.0", "-0.06", "1e-400", '"0.5"', "true", "[0.5]", "9" * 30, "1e308"] + (["1.0000001", "2"] if field != "timeout_minutes" else ["43200.001"])
        bad += [(f"{token[:12]} as {field}", {field: Token(token)}, field) for token in tokens]
    bad += [(f"{token} as min_interactions", {"min_interactions": Token(token)}, "min_interactions") for token in ("0", "-1", "1000001", "1.0", "1e1", "true", '"5"', "9" * 30)]
    bad += [
        ("a rule nobody offers", {"policy": "coin"}, "policy"),
        ("5 as rule", {"policy": 5}, "policy"),
        ("a list as metadata", {"metadata": [1]}, "metadata"),
        ("metadata over 4 KiB", {"metadata": {"x": "y" * (4_096 - 7)}}, "metadata"),
        ("metadata of 101 levels", {"metadata": {"x": _nested(100)}}, "metadata"),
        ("5 as event_id", {"event_id": 5}, "event_id"),
        ("5 as source", {"source": 5}, "source"),
        ("a window that closed more than a day ago", {"posted_at": moment(now, -2 * 86_400)}, "more than a day"),
    ]
    bad += [(f"{name} as posted_at", {"posted_at": item}, "posted_at") for name, item in bad_moments(now)]
    for name, changes, reason in bad:
        yield Case(f"variant_posted: {name}", "variant_posted", say({**good, **changes}), b"fresh", "dead_letter", reason)
    taken: list[tuple[str, dict[str, Any]]] = [
        ("the largest of everything", {"expected_engagement_rate": 1, "kill_threshold": 1.0, "timeout_minutes": 43_200, "min_interactions": 1_000_000}),
        ("the smallest of everything", {"expected_engagement_rate": 5e-324, "kill_threshold": 5e-324, "timeout_minutes": 0.00001, "min_interactions": 1}),
        ("4 KiB of metadata", {"metadata": {"x": "y" * (4_096 - 8)}}),
        ("metadata of 100 levels", {"metadata": {"x": _nested(99)}}),
        ("an integer of 4,000 digits in the metadata", {"metadata": {"x": Token("9" * 4_000)}}),
        ("numbers at the edge in the metadata", {"metadata": {"x": [1e308, Token("-0.0"), Token("1e-400"), 2**64, -(2**63) - 1]}}),
        ("metadata with names of every kind", {"metadata": {"": 1, "\u202e": {"$ne": None}, "a.b": "\x01\x7f\u2028", "é" * 50: "'; --"}}),
        ("no event_id to speak of", {"event_id": ""}),
        ("30,000 quotes as source", {"source": '"' * 30_000}),
    ]
    taken += [(f"{name} as posted_at", {"posted_at": item}) for name, item in good_moments(now)]
    for number, (name, changes) in enumerate(taken):
        variant = f"taken-{number}"
        yield Case(f"variant_posted: {name}", "variant_posted", say({**good, "variant_id": variant, **changes}), variant.encode(), "counted")
    yield Case("variant_posted: posted again", "variant_posted", say({**good, "variant_id": "taken-0", "kill_threshold": 0.1}), b"taken-0", "duplicate")


def bad_moments(now: float) -> Iterator[tuple[str, Any]]:
    """What is no moment, or none that is taken."""
    text = moment(now, -1)
    yield from (
        ("yesterday", "yesterday"),
        ("nothing", ""),
        ("a moment without an offset", text[:-1]),
        ("a day only", text[:10]),
        ("30 February", "2024-02-30T00:00:00Z"),
        ("24 o'clock", "2024-02-29T24:00:00Z"),
        ("61 seconds", "2024-02-29T00:00:61Z"),
        ("an offset of a day", "2024-02-29T00:00:00+24:00"),
        ("a comma", text[:19] + ",5Z"),
        ("other digits", "\u0662\u0660\u0662\u0664-02-29T00:00:00Z"),
        ("a basic form", "20240229T000000Z"),
        ("a space behind it", text + " "),
        ("a newline behind it", text + "\n"),
        ("1970", "1970-01-01T00:00:00Z"),
        ("the last moment of 1999", "1999-12-31T23:59:59.999999Z"),
        ("1999 by its offset", "2000-01-01T00:00:00+00:01"),
        ("the year 9999", "9999-12-31T23:59:59Z"),
        ("the year 0", "0000-01-01T00:00:00Z"),
        ("an hour ahead", moment(now, 3_600)),
        ("zero", 0),
        ("a negative number", -1),
        ("the number of 1999", 946_684_799),
        ("an hour ahead as seconds", now + 3_600),
        ("an hour ahead as milliseconds", (now + 3_600) * 1_000),
        ("microseconds", int(now * 1e6)),
        ("nanoseconds", int(now * 1e9)),
        ("1e300", 1e300),
        ("30 digits", Token("9" * 30)),
        ("true", True),
        ("a list", [now]),
        ("an object", {"seconds": now}),
        ("a number as text", str(int(now))),
    )


def good_moments(now: float) -> Iterator[tuple[str, Any]]:
    """Moments some seconds ago, in every form that is taken."""
    text = moment(now, -5)
    yield from (
        ("a moment in lower case", text.lower()),
        ("a moment with a space", text.replace("T", " ")),
        ("a moment without fraction", text[:19] + "Z"),
        ("a moment with 40 digits of fraction", text[:-1] + "1" * 34 + "Z"),
        ("a moment with another offset", (datetime.fromtimestamp(now - 5, UTC) + timedelta(hours=5, minutes=45)).strftime("%Y-%m-%dT%H:%M:%S.%f+05:45")),
        ("a moment with the offset -00:00", text[:-1] + "-00:00"),
        ("seconds", int(now - 5)),
        ("seconds with fraction", now - 5),
        ("milliseconds", int((now - 5) * 1_000)),
        ("seconds with exponent", Token(f"{now - 5:.16e}")),
        ("four minutes ahead", moment(now, 240)),
        ("null", None),
    )


# -- interaction -----------------------------------------------------------------------------------------------------


def _interactions(now: float) -> Iterator[Case]:
    good: dict[str, Any] = {"variant_id": VARIANT, "post_id": POST, "kind": "like"}
    snapshot: dict[str, Any] = {**good, "kind": "snapshot", "totals": {"views": 3}}
    bad: list[tuple[str, dict[str, Any], str]] = []
    tokens: tuple[str, ...] = ("0", "-1", "-0", "1.0", "1.5", "1e0", "true", '"5"', "[1]", "{}", "1000001", "9" * 30, "-" + "9" * 30)
    bad += [(f"{token[:9]} as count", {**good, "count": Token(token)}, "count") for token in tokens]
    tokens = ('"applause"', '"Like"', '""', "null", "5", "true", '["like"]', '"view "', '"snapshot\\u200b"', f'"{"x" * 50_000}"')
    bad += [(f"{token[:12]} as kind", {**good, "kind": Token(token)}, "kind") for token in tokens]
    tokens = ("-1", "1.0", "true", '"5"', "[1]", "1000000000001", "9" * 30)
    bad += [(f"{token[:9]} as a total", {**snapshot, "totals": {"views": 1, "likes": Token(token)}}, "likes") for token in tokens]
    for name, item in (("nothing", {}), ("only nulls", {"views": None, "likes": None}), ("only others", {"hugs": 5}), ("a list", [1]), ("null", None), ("a text", "x"), ("5", 5)):
        bad.append((f"{name} as totals", {**snapshot, "totals": item}, "totals"))
    bad += [
        ("no kind", {"variant_id": VARIANT, "post_id": POST}, "kind"),
        ("a snapshot without totals", {**good, "kind": "snapshot"}, "totals"),
        ("an empty event_id", {**good, "event_id": ""}, "event_id"),
        ("an event_id of 201 characters", {**good, "event_id": "x" * 201}, "event_id"),
        ("5 as event_id", {**good, "event_id": 5}, "event_id"),
        ("5 as source", {**good, "source": 5}, "source"),
        ("an empty post_id", {**good, "post_id": ""}, "post_id"),
        ("a post_id of 201 characters", {**good, "post_id": "x" * 201}, "post_id"),
        ("5 as post_id", {**good, "post_id": 5}, "post_id"),
        ("1e999 in totals that nobody needs", {**good, "totals": Token('{"hugs":1e999}')}, "totals: has a non-finite number"),
        ("600 levels in totals that nobody needs", {**good, "totals": _nested(600)}, "nested too deeply"),
    ]
    bad += [(f"{name} as occurred_at", {**good, "occurred_at": item}, "occurred_at") for name, item in bad_moments(now)]
    for name, fields, reason in bad:
        yield Case(f"interaction: {name}", "interaction", say(fields), VARIANT.encode(), "dead_letter", reason)
    taken: list[tuple[str, dict[str, Any], str]] = [
        ("the most at once", {**good, "count": 1_000_000}, "counted"),
        ("null as count", {**good, "count": None}, "counted"),
        ("totals that nobody needs", {**good, "totals": "what ever"}, "counted"),
        ("a count that nobody needs", {**snapshot, "count": "what ever"}, "counted"),
        ("totals with other names", {**snapshot, "totals": {"views": 4, "hugs": "many", "": [None]}}, "counted"),
        ("the largest total", {**snapshot, "totals": {"saves": 10**12}}, "counted"),
        ("more clicks than views", {**snapshot, "totals": {"views": 1, "clicks": 10**9}}, "counted"),
        ("a total given twice", {**snapshot, "totals": Token('{"views":-1,"views":5}')}, "counted"),
        ("an event_id of 200 characters with controls", {**good, "event_id": "\x01\n" * 100}, "counted"),
        ("an event_id", {**good, "event_id": "once"}, "counted"),
        ("an event_id again", {**good, "event_id": "once"}, "duplicate"),
        ("an event_id again with another body", {**good, "event_id": "once", "kind": "view", "count": 7}, "duplicate"),
        ("before the post", {**good, "occurred_at": moment(now, -7_200)}, "early"),
        ("30 days old", {**good, "occurred_at": moment(now, -30 * 86_400)}, "early"),
        ("of a post nobody made", {**good, "post_id": "nobody's"}, "waiting"),
    ]
    taken += [(f"{name} as occurred_at", {**good, "occurred_at": item}, "counted") for name, item in good_moments(now)]
    for name, fields, result in taken:
        yield Case(f"interaction: {name}", "interaction", say(fields), VARIANT.encode(), result)
    yield Case("interaction: after the window", "interaction", say({**good, "variant_id": BRIEF}), BRIEF.encode(), "late")
    for name, changes, result in (
        ("views that doom", {"kind": "view", "count": 1_000}, "counted"),
        ("likes that doom", {"count": 10}, "counted"),
        ("after the kill", {}, "after_end"),
    ):
        yield Case(f"interaction: {name}", "interaction", say({**good, "variant_id": DOOMED, **changes}), DOOMED.encode(), result)


# -- monitoring_control ----------------------------------------------------------------------------------------------


def _stops() -> Iterator[Case]:
    good = {"action": "stop", "variant_id": "nobody", "request_id": str(uuid.UUID(int=1)), "requested_by": "x", "requested_at": "now"}
    changes: list[tuple[str, dict[str, Any], str]] = [(f"{item!r} as action", {"action": item}, "action") for item in ("start", "STOP", "", None, True, ["stop"])]
    changes += [(f"{item!r:.20} as post_id", {"post_id": item}, "post_id") for item in ("", "x" * 201, 5, "a\n")]
    changes += [(f"5 as {field}", {field: 5}, field) for field in ("request_id", "requested_by", "requested_at")]
    for name, change, reason in changes:
        yield Case(f"monitoring_control: {name}", "monitoring_control", say({**good, **change}), b"nobody", "dead_letter", reason)
    yield Case("monitoring_control: of nobody", "monitoring_control", say(good), b"nobody", "after_end")


# -- monitoring_record -----------------------------------------------------------------------------------------------


def record(variant: str, **changes: Any) -> dict[str, Any]:
    """A good start of a session of ``variant``, changed."""
    session = uuid.uuid5(uuid.UUID("6f1d0f5e-3c0b-5b7e-9a55-0d7c1f2b8e41"), json.dumps([variant, "q"], ensure_ascii=False, separators=(",", ":")))
    fields = {
        "schema_version": 1,
        "record_id": str(uuid.uuid5(session, "started")),
        "session_id": str(session),
        "kind": "started",
        "variant_id": variant,
        "persona_id": "p",
        "post_id": "q",
    }
    fields |= {
        "expected_engagement_rate": 0.06,
        "kill_threshold": 0.5,
        "min_interactions": 10,
        "timeout_minutes": 10.0,
        "policy": "ratio",
        "started_at": "2026-01-01T00:00:00.000000Z",
    }
    fields |= {"ended_at": None, "is_active": True, "was_killed": False, "outcome": None, "kill_reason": None, "final_engagement_rate": None, "final_interaction_count": None}
    return {**fields, "final_view_count": None, "kill_id": None, "decided_at": None, "monitoring_metadata": {"policy": "ratio"}, **changes}


def record_corpus() -> list[Case]:
    """Cases of ``monitoring_record``; each has a variant of its own."""
    ended = {
        "kind": "timed_out",
        "is_active": False,
        "outcome": "timed_out",
        "ended_at": "2026-01-01T00:10:00Z",
        "kill_reason": "over",
        "final_interaction_count": 0,
        "final_view_count": 0,
    }
    ended |= {"decided_at": "2026-01-01T00:10:00Z"}
    killed = {**ended, "kind": "killed", "outcome": "killed", "was_killed": True, "kill_id": str(uuid.UUID(int=7)), "final_view_count": 5, "final_engagement_rate": 0.0}
    wrong: dict[str, tuple[Any, ...]] = {
        "kind": ("paused", None, 5, "x" * 50_000),
        "session_id": ("", "x", None, 5, "'; --"),
        "started_at": (None, "", "yesterday", "2026-01-01T00:00:00", 1_767_225_600, "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "1999-12-31T23:59:59Z"),
        "expected_engagement_rate": (0, 1.5, -1, None, "0.06", True),
        "min_interactions": (0, 1.5, 2**63, None),
        "post_id": ("", "x" * 201, "a\nb", "a\x85", None, 5),
        "monitoring_metadata": (None, [], "x"),
        "schema_version": (2,),
        "is_active": (False,),
        "outcome": ("killed",),
        "kill_id": (str(uuid.UUID(int=7)),),
        "final_view_count": (0,),
    }
    bad: list[tuple[str, dict[str, Any], str]] = [(f"{item!r:.30} as {field}", {field: item}, field) for field, items in wrong.items() for item in items]
    bad += [
        ("an end without its end", {**ended, "ended_at": None}, "ended_at"),
        ("an end at a moment that is none", {**ended, "ended_at": "0001-01-01T00:00:00+23:59"}, "ended_at"),
        ("a kill that says it is none", {**killed, "was_killed": False}, "was_killed"),
        ("counts beyond 63 bits", {**ended, "final_view_count": 2**63}, "final_view_count"),
        ("negative counts", {**ended, "final_view_count": -1}, "final_view_count"),
        ("metadata of 900 levels", {"monitoring_metadata": {"x": _nested(900)}}, "monitoring_metadata"),
        ("U+0000 in the metadata", {"monitoring_metadata": {"x": "a\x00"}}, "U+0000"),
        ("U+0000 in a reason", {**ended, "kill_reason": "a\x00"}, "U+0000"),
        ("NaN in the metadata", {"monitoring_metadata": Token('{"x":NaN}')}, "not JSON"),
        ("1e999 in the metadata", {"monitoring_metadata": Token('{"x":1e999}')}, "out of range"),
        ("half a surrogate pair in the metadata", {"monitoring_metadata": Token('{"x":"\\ud800"}')}, "JSON"),
        ("1e999 in a field nobody knows", {"later": {"x": [Token("1e999")]}}, "later: has a non-finite number"),
        ("U+0000 in a field nobody knows", {"later": {"x": ["a\x00"]}}, "later: has U+0000"),
    ]
    found = []
    for number, (name, changes, reason) in enumerate(bad):
        variant = f"recorded-bad-{number}"
        found.append(Case(f"monitoring_record: {name}", "monitoring_record", say(record(variant, **changes)), variant.encode(), "dead_letter", reason))
    whole = say(record("recorded"))
    for name, value, key, reason in (
        ("no value", None, b"recorded", "no value"),
        ("nothing", b"", b"recorded", "JSON"),
        ("a list", b"[]", b"recorded", "object"),
        ("truncated", whole[:-1], b"recorded", "JSON"),
        ("two documents", whole + whole, b"recorded", "JSON"),
        ("bytes that are no text", whole[:-1] + b',"x":"\xff"}', b"recorded", "UTF-8"),
        ("30,000 levels", b"[" * 30_000, b"recorded", ""),
        ("900 KB", whole + b" " * 900_000, b"recorded", "64 KiB"),
        ("no key", whole, None, "key"),
        ("another key", whole, b"other", "key"),
    ):
        found.append(Case(f"monitoring_record: {name}", "monitoring_record", value, key, "dead_letter", reason))
    good: list[tuple[str, dict[str, Any]]] = [
        ("nothing wrong", {}),
        ("an end whose start nobody saw", ended),
        ("a forged kill of a variant nobody knows", killed),
        ("a moment in the year 9999", {"started_at": "9999-12-31T23:59:59Z"}),
        ("metadata of 150 levels", {"monitoring_metadata": {"x": _nested(149)}}),
        ("an integer of 4,000 digits in the metadata", {"monitoring_metadata": {"x": Token("9" * 4_000)}}),
        ("SQL for a persona", {"persona_id": "'); DROP TABLE variant_monitoring; --"}),
        ("fields nobody knows", {"later": {"x": [1]}}),
        ("the largest counts", {**ended, "final_view_count": 2**63 - 1, "final_interaction_count": 2**63 - 1, "final_engagement_rate": 1e308}),
    ]
    for number, (name, changes) in enumerate(good):
        variant = f"recorded-{number}"
        found.append(Case(f"monitoring_record: {name}", "monitoring_record", say(record(variant, **changes)), variant.encode(), "kept"))
    return found

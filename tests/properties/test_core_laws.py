"""Laws of the core: what holds for every order, repetition and content of records."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from models.engagement import KINDS, SNAPSHOT, Engagement
from models.errors import Reject
from models.events import Interaction, Posting, Stop, parse_interaction, parse_stop, parse_variant_posted
from models.moments import MINUTE, SECOND, format_moment
from models.monitor import Ended, PartitionMonitor, Rejected
from models.policy import Defaults, Policy
from models.session import Result, Session
from models.state import decode_session, encode_session, seal_event_ids
from streams.codec import dead_letter, decode_interaction
from streams.folding import FOLDS

T = 1_700_000_000_000_000

totals = st.tuples(*[st.none() | st.integers(0, 50)] * len(KINDS))
increments = st.builds(
    Interaction, st.just("v"), st.sampled_from(KINDS), st.integers(T - 2, T + 12 * MINUTE), st.integers(1, 9), st.just("q"), st.none() | st.sampled_from("abcdef")
)
snapshots = st.builds(Interaction, st.just("v"), st.just(SNAPSHOT), st.integers(T, T + 10 * MINUTE), st.just(1), st.just("q"), st.none(), totals)
events = increments | snapshots
policies = st.builds(
    Policy, expected_engagement_rate=st.sampled_from([0.06, 0.5, 1.0]), kill_threshold=st.sampled_from([0.5, 1.0]), min_interactions=st.sampled_from([1, 3, 1_000_000])
)
NEVER = Policy(min_interactions=1_000_000)


def count(counts: Engagement, event: Interaction) -> None:
    if event.totals is None:
        counts.add(event.kind, event.count)
    else:
        counts.raise_to(event.totals)


@given(st.lists(events, max_size=12).flatmap(lambda drawn: st.tuples(st.just(drawn), st.permutations(drawn))))
def test_the_order_of_events_does_not_matter_to_the_counts(orders: tuple[list[Interaction], list[Interaction]]) -> None:
    """Increments and snapshots in any order give the same totals."""
    first, second = Engagement(), Engagement()
    for one, other in zip(*orders, strict=True):
        count(first, one)
        count(second, other)
    assert (first.by_kind(), first.views, first.interactions, first.rate) == (second.by_kind(), second.views, second.interactions, second.rate)


@given(st.lists(events, max_size=12))
def test_totals_never_go_down(drawn: list[Interaction]) -> None:
    """Neither per kind nor in sum, and both ways of adding up agree."""
    counts = Engagement()
    for event in drawn:
        before = counts.totals()
        count(counts, event)
        assert all(old <= new for old, new in zip(before, counts.totals(), strict=True))
        assert (counts.views, counts.interactions) == (counts.totals()[0], sum(counts.totals()[1:]))


def replay(drawn: list[Interaction], policy: Policy, *, post_at: int, start: PartitionMonitor | None = None) -> PartitionMonitor:
    """Fold ``drawn`` in order, the post before the event number ``post_at``."""
    monitor = start or PartitionMonitor(0)
    for offset, event in enumerate([*drawn, None]):
        if offset == min(post_at, len(drawn)):
            monitor.post(Posting("v", "p", "q", policy, T), 0, T, b"v", b"", T)
        if event is not None:
            monitor.interact(event, offset, event.occurred_at, b"v", b"", T)
    return monitor


def session_of(monitor: PartitionMonitor) -> Session:
    session = monitor.sessions.find("v", "q")
    assert session is not None
    return session


def told(monitor: PartitionMonitor) -> tuple[Any, ...]:
    session = session_of(monitor)
    return session.end, session.counts.by_kind(), session.counts.rate


@given(st.lists(events, max_size=15), policies, st.integers(0, 15))
def test_early_events_count_as_if_the_post_had_come_first(drawn: list[Interaction], policy: Policy, post_at: int) -> None:
    """The same end, decided by the same event, with the same counts."""
    assert told(replay(drawn, policy, post_at=post_at)) == told(replay(drawn, policy, post_at=0))


@given(st.lists(events, max_size=15), policies, st.integers(0, 15), st.integers(0, 15))
def test_records_that_are_delivered_again_change_nothing(drawn: list[Interaction], policy: Policy, cut: int, committed: int) -> None:
    """After a crash at any record, from any committed offset at or before it, all ends as without."""
    whole = replay(drawn, policy, post_at=0)
    before = replay(drawn[:cut], policy, post_at=0)
    state = encode_session(session_of(before))
    again = PartitionMonitor(0, position=min(committed, cut) - 1)
    again.restore([decode_session(state, lambda _session, _number: None)], [])
    for offset, event in enumerate(drawn):
        if offset >= min(committed, cut):
            again.interact(event, offset, event.occurred_at, b"v", b"", T)
    assert told(again) == told(whole)


@given(st.lists(increments.filter(lambda event: event.event_id is not None), max_size=10), st.data())
def test_a_repeated_event_id_changes_nothing(drawn: list[Interaction], data: st.DataObject) -> None:
    """Wherever the repetitions come."""
    repeated = list(drawn)
    for event in drawn:
        if data.draw(st.booleans()):
            repeated.insert(data.draw(st.integers(repeated.index(event) + 1, len(repeated))), event)
    assert told(replay(repeated, NEVER, post_at=0))[1:] == told(replay(drawn, NEVER, post_at=0))[1:]


@given(st.lists(st.tuples(st.sampled_from(["event", "stop", "tick", "post"]), events, st.sampled_from(["q", "r", None])), max_size=25), policies)
def test_a_session_ends_at_most_once(steps: list[tuple[str, Interaction, str | None]], policy: Policy) -> None:
    """Whatever comes in whatever order; and it stays as it ended."""
    monitor = PartitionMonitor(0)
    ends: dict[str, Any] = {}
    for offset, (step, event, post_id) in enumerate(steps):
        if step == "event":
            monitor.interact(Interaction("v", event.kind, event.occurred_at, event.count, post_id, event.event_id, event.totals), offset, event.occurred_at, b"v", b"", T)
        elif step == "stop":
            monitor.stop(Stop("v", post_id), offset, event.occurred_at, T)
        elif step == "tick":
            monitor.tick(event.occurred_at, T)
        else:
            monitor.post(Posting("v", "p", post_id or "s", policy, T), offset, T, b"v", b"", T)
        for emission in monitor.take_emissions():
            if isinstance(emission, Ended):
                assert emission.session.post_id not in ends
                ends[emission.session.post_id] = emission.session.end
        for session in monitor.sessions:
            assert session.end == ends.get(session.post_id)
    monitor.tick(T + 11 * MINUTE, T)
    assert monitor.active_count == 0
    assert all(session.end is not None for session in monitor.sessions)


@given(st.lists(st.tuples(increments, st.booleans()), max_size=150), st.dictionaries(st.text(), st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False)))
def test_a_state_comes_back_as_it_was_written(steps: list[tuple[Interaction, bool]], metadata: dict[str, Any]) -> None:
    """At every flush, with event ids in segments and not yet in one; and both copies go on alike."""
    live = Session.start(Posting("v", "p", "q", NEVER, T, "s", metadata), 3, 7, 5)
    segments: dict[int, bytes] = {}
    for number, (event, is_flush) in enumerate(steps):
        one = Interaction("v", event.kind, event.occurred_at, event.count, "q", f"{event.event_id}{number // 2}" if event.event_id else None)
        live.count(one, 8 + number, one.occurred_at, "interaction", 0, T, 5 * SECOND)
        if is_flush:
            changes = seal_event_ids(live)
            segments.update(changes.written)
    state = encode_session(live)
    copy = decode_session(state, lambda _session, number: segments.get(number))
    assert encode_session(decode_session(encode_session(copy), lambda _session, number: segments.get(number))) == encode_session(copy)
    for number, (event, _) in enumerate(steps):
        one = Interaction("v", event.kind, event.occurred_at, event.count, "q", f"{event.event_id}{number // 2}" if event.event_id else None)
        results = [session.count(one, 500 + number, one.occurred_at, "interaction", 0, T, 5 * SECOND) for session in (live, copy)]
        assert results[0] is results[1]
        assert not (one.event_id and results[0] is Result.COUNTED)
    assert (live.counts.by_kind(), live.applied, live.metadata, live.floor) == (copy.counts.by_kind(), copy.applied, copy.metadata, copy.floor)


# -- bytes -----------------------------------------------------------------------------------------------------------

texts = st.text(max_size=6) | st.sampled_from(
    ["v", "q", "view", "like", "snapshot", "stop", "x" * 200, "😀" * 201, "\x85", "a\u200bb", "2023-11-14T22:13:20.000001Z", "2023-11-14T22:13:60.5Z"]
)
numbers = st.integers(-2, 1_000_001) | st.floats() | st.sampled_from([1.0, 1e300, 10**30, 10**400, T // SECOND, T // 1_000, 2**64, 2**63, -(2**63) - 1])
leaves = texts | numbers | st.booleans() | st.none()
anything = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8)
FIELDS = (
    "variant_id", "persona_id", "post_id", "kind", "count", "totals", "occurred_at", "posted_at", "event_id", "source", "schema_version", "metadata", "timeout_minutes",
    "expected_engagement_rate", "kill_threshold", "min_interactions", "policy", "action", "new",
)  # fmt: skip
GOOD: dict[str, Any] = {"variant_id": "v", "persona_id": "p", "post_id": "q", "kind": "view", "action": "stop"}
messages = st.dictionaries(st.sampled_from(FIELDS), anything, max_size=4).map(lambda changes: {**GOOD, **changes})
fast = st.fixed_dictionaries(
    {"variant_id": st.just("v") | texts, "kind": st.sampled_from([*KINDS, "snapshot", "View"])},
    optional=dict.fromkeys(("count", "post_id", "occurred_at", "event_id", "source", "schema_version"), leaves),
)
json_bytes = st.builds(lambda value, ascii_only: json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"), messages | fast, st.booleans())


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """JSON with some bytes removed, replaced, doubled or put in."""
    raw = bytearray(draw(json_bytes))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(raw)))
        snippet = draw(
            st.binary(max_size=3)
            | st.sampled_from([b'"', b"\\", b"\\u0000", b"\\ud800", b",", b"{", b"}", b" ", b"\n", b"1", b".0", b"e9", b"-", b'"kind":"like",', b'"count":7,', b"null"])
        )
        raw[at : at + draw(st.integers(0, 2))] = snippet
    return bytes(raw)


values = st.none() | st.binary(max_size=20) | json_bytes | mutated()
keys = st.none() | st.just(b"v") | st.binary(max_size=4)


def outcome(parse: Any, *args: Any) -> Any:
    try:
        return parse(*args)
    except Reject as error:
        return str(error)


@given(values, keys)
def test_the_fast_way_of_reading_an_interaction_is_never_another(value: bytes | None, key: bytes | None) -> None:
    """It accepts what the schema accepts, gives the same, and refuses with the same reason."""
    assert outcome(decode_interaction, value, key, T) == outcome(parse_interaction, value, key, T)


@given(json_bytes)
def test_the_fast_way_is_never_another_for_records_with_their_own_key(value: bytes) -> None:
    """As above, where the key does not already refuse most."""
    parsed = json.loads(value)
    key = str(parsed["variant_id"]).encode("utf-8", "replace")
    assert outcome(decode_interaction, value, key, T) == outcome(parse_interaction, value, key, T)


@given(values, keys)
def test_reading_never_fails_but_by_refusing(value: bytes | None, key: bytes | None) -> None:
    """On any bytes, on each topic; and what is taken can be told and made durable."""
    outcome(parse_interaction, value, key, T)
    outcome(parse_stop, value, key)
    posting = outcome(parse_variant_posted, value, key, T, Defaults())
    if isinstance(posting, Posting):
        monitor = PartitionMonitor(0)
        monitor.post(posting, 0, T, key, value, T)
        for session in monitor.sessions:
            assert decode_session(encode_session(session), lambda _session, _number: None).metadata == posting.metadata


@given(st.text(max_size=5), st.none() | st.binary(max_size=5_000), st.none() | st.binary(max_size=5_000), st.text(max_size=50), st.integers(0, 2**50))
def test_a_dead_letter_can_always_be_written(topic: str, key: bytes | None, value: bytes | None, reason: str, append_us: int) -> None:
    """And is sound JSON, smaller than what a value may have."""
    _, letter = dead_letter(topic, 0, 1, append_us, key, value, reason, T)
    assert json.loads(letter)["reason"] == reason
    assert len(letter) < 64 * 1024


# -- many at once ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Record:
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


MOMENTS = (
    *[format_moment(moment) for moment in (T - 1, T, T + 1, T + 10 * MINUTE - 1, T + 10 * MINUTE, T + 15 * MINUTE, T + 60 * MINUTE)],
    *[None, T // SECOND, T // SECOND + 599.5, "2023-11-14T22:13:20.00000\u0663Z", "2023-11-14T22:13:20,000001Z", "1999-11-14T22:13:20.000001Z"],
)
APPENDED = tuple(T // 1_000 + ms for ms in (-1, 0, 1, 600_000, 604_999, 605_000))
plain = st.fixed_dictionaries(
    {"variant_id": st.sampled_from("vw"), "kind": st.sampled_from(["view", "like"]), "post_id": st.sampled_from("qqr")},
    optional={"count": st.sampled_from([2, 40]), "event_id": st.sampled_from("ab") | st.integers(0, 60).map(str), "occurred_at": st.sampled_from(MOMENTS[1:4])},
)
special = st.fixed_dictionaries(
    {"variant_id": st.sampled_from(["v", "w", "é", "v\x7f", "v\x85", "nobody"]), "kind": st.sampled_from([*KINDS, "snapshot", "View"])},
    optional={
        "post_id": st.sampled_from(["q", "r", "é", "q\x7f", "q\x85", None]),
        "count": st.sampled_from([None, 0, 3, 1_000_001]),
        "event_id": st.sampled_from(["a", "é", "\x7f", None]),
        "occurred_at": st.sampled_from(MOMENTS),
        "source": st.sampled_from(["s", "\x85", "ø", 'with "quotes"']),
        "totals": st.sampled_from([None, {"views": 3}, [[]]]),
        "later": anything | st.sampled_from([{"x": [1, {}]}, "", 10**4299, 1e308]),
    },
)


def as_sent(fields: dict[str, Any]) -> tuple[bytes | None, bytes | None]:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode(), fields["variant_id"].encode()


odd = st.tuples(values, keys) | plain.map(lambda fields: (as_sent(fields)[0], b"x"))
sent = plain.map(as_sent)
runs = st.lists(st.tuples(sent | sent | sent | special.map(as_sent), st.sampled_from(APPENDED)), max_size=30) | st.lists(
    st.tuples(sent | sent | special.map(as_sent) | odd, st.sampled_from(APPENDED)), max_size=30
)


def posted() -> PartitionMonitor:
    monitor = PartitionMonitor(0)
    for offset, (variant_id, post_id) in enumerate([("v", "q"), ("w", "q"), ("w", "r"), ("é", "é")]):
        monitor.post(Posting(variant_id, "p", post_id, Policy(1.0, 1.0, min_interactions=3), T), offset, T, b"", b"", T)
    return monitor


def after(monitor: PartitionMonitor) -> list[Any]:
    """All there is to see of a monitor."""
    told = [emission if isinstance(emission, Rejected) else (type(emission), emission.session.id) for emission in monitor.emissions]
    sessions = sorted((session.variant_id, session.post_id, encode_session(session), session.is_changed) for session in monitor.sessions)
    ids = sorted((str(session.id), list(session.event_ids.tail)) for session in monitor.sessions if session.event_ids)
    return [told, sessions, ids, monitor.position, monitor.waiting.count, monitor.active_count, len(monitor.changed)]


@settings(max_examples=400)
@given(runs, st.sampled_from([1, 5, 30]), st.integers(0, 30))
def test_folding_many_at_once_is_never_another(run: list[tuple[tuple[bytes | None, bytes | None], int]], size: int, again_from: int) -> None:
    """Than one by one, the way of the schema; also where records come again, and whatever stands between good ones."""
    records = [Record(offset, timestamp, key, value) for offset, ((value, key), timestamp) in enumerate(run)]
    together, single = posted(), posted()
    results: list[Counter[Result]] = [Counter(), Counter()]
    for is_again in (False, True):
        waiting = {waiter.offset for variant_id in ("v", "w", "é", "nobody") for waiter in single.waiting.of(variant_id)}  # these would come again to another process only
        records_of = [record for record in records[again_from:] if record.offset not in waiting] if is_again else records
        for start in range(0, len(records_of), size):
            results[0].update(FOLDS[1](together, "interaction", records_of[start : start + size], Defaults(), T))
        for record in records_of:
            append_us = record.timestamp * 1_000
            try:
                result = single.interact(parse_interaction(record.value, record.key, append_us), record.offset, append_us, record.key, record.value, T)
            except Reject as error:
                result = single.reject("interaction", record.offset, append_us, record.key, record.value, str(error))
            results[1][result] += 1
    assert results[0] == results[1]
    assert after(together) == after(single)

"""Seeded histories: what producers put on the source topics of a few partitions, good and bad, early, late and twice."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from random import Random
from typing import Any

import msgspec
from faust.types import TP

from tests.simulation.broker import Record
from tests.simulation.dice import Dice

START = 1_700_000_000_000_000
"""Microseconds since the epoch: nothing is appended before."""
MILLISECOND = 1_000
SECOND = 1_000_000
DAY = 86_400 * SECOND
QUIET = 11 * SECOND
"""From one event to the next where there are few: compaction may come in between."""
KINDS = ("view", "like", "reply", "repost", "quote", "share", "click", "save")
TOTALS = ("views", "likes", "replies", "reposts", "quotes", "shares", "clicks", "saves")


@dataclass(frozen=True, slots=True)
class Shape:
    """What a history may hold.

    Attributes:
        stops: Some sessions are stopped by hand.
        anonymous: Share of interactions without ``post_id``.
        late_posts: Some posts come later than interactions wait for them.
        strays: Workers do not die but hang, and what they had sent arrives when their partitions are somebody else's.
        quiet: Share of histories in which next to nothing happens for most of the time, so that nobody writes to the changelogs.
    """

    stops: bool = False
    anonymous: float = 0.0
    late_posts: bool = False
    strays: bool = False
    quiet: float = 0.0
    events: tuple[int, int] = (60, 790)


@dataclass(slots=True, eq=False)
class History:
    """The records of each source partition, those that are bad on purpose, and when the last one is appended. Nobody changes it: several seeds share one."""

    records: dict[TP, list[Record]]
    bad: set[tuple[str, int, int]]
    grace: int
    wait: int
    end: int = 0
    longest: int = 0


@dataclass(slots=True)
class _Draft:
    """Records as they are made up, in no order; if ``is_plain``, all producers write in the same, usual way, moments included."""

    is_plain: bool
    items: list[tuple[int, float, str, int, bytes | None, bytes | None, bool]] = field(default_factory=list)

    def add(self, rng: Random, topic: str, partition: int, at: int, key: bytes | None, value: bytes | None, *, bad: bool = False) -> None:
        self.items.append((max(at, START) // MILLISECOND, rng.random(), topic, partition, key, value, bad))


_OFTEN = [kind for kind, share in zip(KINDS, (60, 10, 4, 4, 2, 2, 10, 2), strict=True) for _ in range(share)]
_BEGIN = datetime.fromtimestamp(START // SECOND, UTC).replace(tzinfo=None)
_ELSEWHERE = timezone(timedelta(hours=5, minutes=30))
_COMPACT = (",", ":")
_ENCODERS = [json.JSONEncoder(ensure_ascii=is_ascii, separators=form).encode for is_ascii in (True, False, False, False, False) for form in (_COMPACT, _COMPACT, None)]

_encode_plain = msgspec.json.Encoder().encode  # as the last but one, in a quarter of the time


def _moment(rng: Random, us: int, draft: _Draft) -> Any:
    form = 1.0 if draft.is_plain else rng.random()
    if form < 1 / 3 and us % MILLISECOND == 0:
        return us // MILLISECOND
    if form < 2 / 3:
        return (_BEGIN + timedelta(microseconds=us - START)).replace(tzinfo=UTC).astimezone(_ELSEWHERE).isoformat()
    seconds, rest = divmod(us, SECOND)
    return f"{_whole(seconds)}.{rest:06d}Z"


@lru_cache(maxsize=10_000)
def _whole(seconds: int) -> str:
    return (_BEGIN + timedelta(seconds=seconds - START // SECOND)).isoformat()


def _encode(value: dict[str, Any], rng: Random, draft: _Draft) -> bytes:
    return _encode_plain(value) if draft.is_plain else rng.choice(_ENCODERS)(value).encode()


@lru_cache(maxsize=1)
def make_history(seed: int, shape: Shape) -> History:
    """Make up the history of ``seed``."""
    rng = Dice(f"history {seed}")
    draft = _Draft(is_plain=rng.random() < 0.7)
    grace = rng.choice((0, 200, 1_000)) * MILLISECOND
    wait = rng.choice((1, 2, 3)) * SECOND
    partitions = rng.choice((1, 1, 2))
    span = rng.choice((1, 2, 4)) * SECOND
    longest = 0
    total = rng.randint(*shape.events)
    variants = rng.randint(1, 4)
    if (chance := Dice(f"quiet {seed}")).random() < shape.quiet:
        variants = 0
        longest = _quiet_variant(chance, draft, shape, chance.randrange(partitions), span, grace)
    for variant in range(variants):
        partition = rng.randrange(partitions)
        longest = max(longest, _variant(rng, draft, shape, f"v{variant}" if rng.random() < 0.9 else f"vé {variant}", partition, span, wait, grace, total // variants))
    for _ in range(rng.choice((0, 0, 3, 12))):
        _bad(rng, draft, rng.randrange(partitions), START + rng.randrange(span))
    draft.items.sort()
    records: dict[tuple[str, int], list[Record]] = {(topic, partition): [] for topic in ("variant_posted", "interaction", "monitoring_control") for partition in range(partitions)}
    bad = set()
    end = START
    for at, _, topic, partition, key, value, is_bad in draft.items:
        into = records[topic, partition]
        if is_bad:
            bad.add((topic, partition, len(into)))
        into.append(Record(len(into), at, key, value))
        end = max(end, at * MILLISECOND)
    return History({TP(*name): into for name, into in records.items()}, bad, grace, wait, end, longest)


def _variant(rng: Random, draft: _Draft, shape: Shape, variant: str, partition: int, span: int, wait: int, grace: int, events: int) -> int:
    key = variant.encode()
    posts = rng.choice((1, 1, 2, 3))
    longest = 0
    windows = []
    for number in range(posts):
        post = f"p{number}"
        posted_at = START + rng.randrange(span)
        timeout_minutes = rng.choice((0.005, 0.01, 0.02, 0.05, 1 / 60, rng.uniform(0.003, 0.05)))
        timeout = round(timeout_minutes * 60e6)
        longest = max(longest, timeout)
        lag = rng.choice((0, 0, rng.randrange(wait // 2), rng.randrange(wait - 500 * MILLISECOND)))
        if shape.late_posts and rng.random() < 0.5:
            lag = wait + rng.randrange(3 * SECOND)
        value: dict[str, Any] = {
            "variant_id": variant,
            "persona_id": f"persona-{number}",
            "post_id": post,
            "posted_at": _moment(rng, posted_at, draft),
            "timeout_minutes": timeout_minutes,
            "expected_engagement_rate": rng.choice((0.06, 0.2, 0.5, 1.0)),
            "kill_threshold": rng.choice((0.5, 0.9, 1)),
            "min_interactions": rng.choice((1, 2, 3, 10)),
        }
        if rng.random() < 0.2:
            value |= {"metadata": {"campaign": number}, "source": "test"}
        if rng.random() < 0.03:
            value["posted_at"] = _moment(rng, posted_at - 3 * DAY, draft)  # far too late
        elif rng.random() < 0.1:
            del value["posted_at"]
            posted_at = (posted_at + lag) // MILLISECOND * MILLISECOND
        appended = posted_at + lag if "posted_at" in value else posted_at
        is_posted = rng.random() < 0.92
        if is_posted:
            draft.add(rng, "variant_posted", partition, appended, key, _encode(value, rng, draft))
            for _ in range(rng.choice((0, 0, 0, 1, 2))):
                again = value if rng.random() < 0.5 else {**value, "min_interactions": 1, "expected_engagement_rate": 1.0}
                draft.add(rng, "variant_posted", partition, appended + rng.randrange(1, 4 * SECOND), key, _encode(again, rng, draft))
        windows.append((post, posted_at, timeout))
        if shape.stops and rng.random() < 0.5:
            stop = {"action": "stop", "variant_id": variant, "post_id": rng.choice((post, post, None)), "schema_version": 1}
            at = posted_at + rng.choice((rng.randrange(timeout + 1), timeout + grace, rng.randrange(timeout + grace + 2 * SECOND)))
            draft.add(rng, "monitoring_control", partition, at, key, _encode(stop, rng, draft))
    for number in range(events):
        post, posted_at, timeout = rng.choice(windows)
        _interaction(rng, draft, shape, variant, post, partition, posted_at, timeout, grace, number)
    return longest


def _quiet_variant(rng: Random, draft: _Draft, shape: Shape, partition: int, span: int, grace: int) -> int:
    """Post a variant that is seen for a second now and then, and not in between."""
    variant, post = "quiet", "p0"
    posted_at = START + rng.randrange(span)
    timeout_minutes = rng.uniform(0.3, 0.6)
    value = {
        "variant_id": variant,
        "persona_id": "persona",
        "post_id": post,
        "posted_at": _moment(rng, posted_at, draft),
        "timeout_minutes": timeout_minutes,
        "expected_engagement_rate": 1.0,
        "kill_threshold": 1.0,
        "min_interactions": 1_000,
    }
    draft.add(rng, "variant_posted", partition, posted_at, variant.encode(), _encode(value, rng, draft))
    timeout = round(timeout_minutes * 60e6)
    for begin in range(posted_at, posted_at + timeout, QUIET):
        for _ in range(rng.randint(1, 6)):
            _interaction(rng, draft, shape, variant, post, partition, begin, SECOND, grace, len(draft.items))
    return timeout


def _interaction(rng: Random, draft: _Draft, shape: Shape, variant: str, post: str, partition: int, posted_at: int, timeout: int, grace: int, number: int) -> None:
    deadline = posted_at + timeout
    edge = rng.random()
    if edge < 0.85:
        moment = posted_at + rng.randrange(timeout)
    elif edge < 0.92:
        moment = rng.choice((posted_at, posted_at - 1, deadline, deadline - 1))
    else:
        moment = posted_at + rng.randrange(-SECOND, timeout + SECOND)
    appended = moment + rng.choice((0, rng.randrange(20 * MILLISECOND), rng.randrange(SECOND)))
    if rng.random() < 0.05:
        appended = deadline + grace + rng.choice((-MILLISECOND, 0, MILLISECOND))
    kind = rng.choice(_OFTEN)
    value: dict[str, Any] = {"variant_id": variant, "kind": kind}
    if rng.random() < 0.08:
        shown = rng.sample(TOTALS, rng.randint(1, 4))
        value = {"variant_id": variant, "kind": "snapshot", "totals": {name: rng.choice((None, 0, rng.randrange(20))) for name in shown}}
        value["totals"][shown[0]] = rng.randrange(30 if shown[0] == "views" else 5)
    elif rng.random() < 0.3:
        value["count"] = rng.randint(1, 12 if kind == "view" else 2)
    if rng.random() >= shape.anonymous:
        value["post_id"] = post
    if draft.is_plain or rng.random() < 0.9:
        value["occurred_at"] = _moment(rng, moment, draft)
    if rng.random() < 0.6:
        value["event_id"] = f"e{number}" if rng.random() < 0.8 else f"e{rng.randrange(8)}"
    for _ in range(rng.choice((1, 1, 1, 1, 1, 1, 2))):
        draft.add(rng, "interaction", partition, appended, variant.encode(), _encode(value, rng, draft))
        appended += rng.randrange(SECOND)


def _bad(rng: Random, draft: _Draft, partition: int, at: int) -> None:
    topic = rng.choice(("variant_posted", "interaction", "interaction", "monitoring_control"))
    value = rng.choice(
        (
            None,
            b"",
            b"[]",
            b"\xff\xfe",
            b'{"variant_id": "v0"}',
            b'{"variant_id":"v0","kind":"poke","persona_id":"p","post_id":"","action":"start"}',
            b'{"variant_id":"v0","kind":"view","count":0,"persona_id":"p","post_id":"p0","min_interactions":0,"action":"halt"}',
            b'{"variant_id":"other","kind":"view","persona_id":"p","post_id":"p0","action":"stop"}',
        )
    )
    draft.add(rng, topic, partition, at, b"v0", value, bad=True)

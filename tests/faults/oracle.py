"""How each session has to end, read off the raw topics by offset, as the contract says it. Shares no code with the project: it imports nothing of it.

Of the contract it knows what the traffic of these tests uses: interactions with and without a post, variants that are posted once, stops of sessions that no rule ends.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

KINDS = ("view", "like", "reply", "repost", "quote", "share", "click", "save")
TOTALS = ("views", "likes", "replies", "reposts", "quotes", "shares", "clicks", "saves")
NAMESPACE = uuid.UUID("6f1d0f5e-3c0b-5b7e-9a55-0d7c1f2b8e41")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND = 1_000_000
LONGEST_ID = 200
MOST_COUNT = 1_000_000
MOST_TOTAL = 10**12
LARGEST = 64 * 1024
MILLISECONDS_FROM = 2e10


@dataclass(frozen=True, slots=True)
class Raw:
    """A record as Kafka has it; ``timestamp`` is its append time in milliseconds."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


Place = tuple[str, int, int]
"""Topic (without prefix), partition, offset."""


class Event(NamedTuple):
    """What an interaction says.

    Attributes:
        moment: When it happened (microseconds).
        amount: Of an increment.
        totals: Of a snapshot, by kind; None for an increment.
    """

    kind: str
    moment: int
    amount: int = 1
    totals: dict[str, int] | None = None
    event_id: str | None = None


@dataclass(slots=True)
class Fate:
    """What has to become of one session. Moments in microseconds.

    Attributes:
        decided_by: Partition and offset of the record that killed it.
        increments: By kind, the sum of what increments have counted.
        counts: By kind, the larger one of that sum and the highest total of a snapshot.
        seen: Event ids that have counted.
    """

    variant_id: str
    post_id: str
    persona_id: str
    posted_at: int
    deadline: int
    expected_rate: float
    threshold: float
    min_interactions: int
    timeout_minutes: float
    outcome: str = "timed_out"
    reason: str = ""
    ended_at: int = 0
    decided_by: tuple[int, int] | None = None
    increments: Counter[str] = field(default_factory=Counter)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    seen: set[str] = field(default_factory=set)

    @property
    def session_id(self) -> uuid.UUID:
        return uuid.uuid5(NAMESPACE, json.dumps([self.variant_id, self.post_id], ensure_ascii=False, separators=(",", ":")))

    @property
    def kill_id(self) -> uuid.UUID:
        return uuid.uuid5(self.session_id, "kill")

    @property
    def views(self) -> int:
        return self.counts["view"]

    @property
    def interactions(self) -> int:
        return sum(self.counts.values()) - self.views

    @property
    def rate(self) -> float | None:
        return self.interactions / self.views if self.views else None

    def fold(self, event: Event, appended: int, place: tuple[int, int], grace: int) -> str:
        """Let an interaction count, if it does; return what becomes of its record.

        Args:
            event: What it says.
            appended: When it was appended.
            place: Partition and offset.
            grace: So long after the deadline it may still be appended.
        """
        if self.outcome == "killed":
            return "after_end"
        if event.moment < self.posted_at:
            return "early"
        if event.moment >= self.deadline or appended >= self.deadline + grace:
            return "late"
        if event.event_id is not None:
            if event.event_id in self.seen:
                return "duplicate"
            self.seen.add(event.event_id)
        if event.totals is not None:
            for kind, total in event.totals.items():
                self.counts[kind] = max(self.counts[kind], total)
        else:
            self.increments[event.kind] += event.amount
            self.counts[event.kind] = max(self.counts[event.kind], self.increments[event.kind])
        views, interactions = self.views, self.interactions
        if interactions >= self.min_interactions and views > 0 and interactions / views < self.threshold * self.expected_rate:
            self.outcome, self.ended_at, self.decided_by = "killed", event.moment, place
            self.reason = f"Below {self.threshold * 100:.6g}% of expected engagement rate"
        return "counted"

    def expire(self) -> None:
        """Pass its deadline, which ends it if nothing else has."""
        if self.outcome == "timed_out":
            self.ended_at, self.reason = self.deadline, f"{self.timeout_minutes:.6g}-minute monitoring window expired"


@dataclass(slots=True)
class Verdict:
    """What has to be there in the end.

    Attributes:
        fates: By (variant, post).
        results: What became of every record of a source topic: exactly one each.
        dead: Records that must be in the dead letters.
    """

    fates: dict[tuple[str, str], Fate] = field(default_factory=dict)
    results: Counter[str] = field(default_factory=Counter)
    dead: set[Place] = field(default_factory=set)


class _Unusable(Exception):
    """A record that is to be dead-lettered."""


def _holder(fates: dict[tuple[str, str], Fate], variant_id: str, moment: int) -> Fate | None:
    """Return the session of a variant whose window holds a moment, or none: an event without a post goes on waiting for one then."""
    holding = [fate for (variant, _), fate in fates.items() if variant == variant_id and fate.posted_at <= moment < fate.deadline]
    assert len(holding) < 2, "two windows hold an event that names no post: which post was read before it is not in the topics"
    return holding[0] if holding else None


def judge(topics: dict[str, list[Raw]], grace_seconds: float) -> Verdict:
    """Say how everything must end, once everything on the three source topics has been read and all deadlines have passed.

    Args:
        topics: Records of ``variant_posted``, ``interaction`` and ``monitoring_control``.
        grace_seconds: As the workers have it.
    """
    verdict = Verdict()
    for raw in _in_order(topics["variant_posted"]):
        try:
            fate = _posted(raw)
        except _Unusable:
            verdict.dead.add(("variant_posted", raw.partition, raw.offset))
            verdict.results["dead_letter"] += 1
            continue
        is_new = verdict.fates.setdefault((fate.variant_id, fate.post_id), fate) is fate
        verdict.results["counted" if is_new else "duplicate"] += 1
    for raw in _in_order(topics["interaction"]):
        try:
            variant, post, event = _interaction(raw)
        except _Unusable:
            verdict.dead.add(("interaction", raw.partition, raw.offset))
            verdict.results["dead_letter"] += 1
            continue
        owner = _holder(verdict.fates, variant, event.moment) if post is None else verdict.fates.get((variant, post))
        verdict.results["waiting" if owner is None else owner.fold(event, raw.timestamp * 1_000, (raw.partition, raw.offset), round(grace_seconds * SECOND))] += 1
    for raw in _in_order(topics["monitoring_control"]):
        stop = json.loads(raw.value or b"")
        stopped = [fate for (variant, post), fate in verdict.fates.items() if variant == stop["variant_id"] and stop.get("post_id") in (None, post) and fate.outcome == "timed_out"]
        for fate in stopped:
            assert raw.timestamp * 1_000 < fate.deadline, "a stop that comes about the deadline: whether it was read before is not in the topics"
            fate.outcome, fate.reason, fate.ended_at = "stopped", "Manually stopped", raw.timestamp * 1_000
        verdict.results["counted" if stopped else "after_end"] += 1
    for fate in verdict.fates.values():
        fate.expire()
    return verdict


def _in_order(records: list[Raw]) -> list[Raw]:
    return sorted(records, key=lambda raw: (raw.partition, raw.offset))


def _object(raw: Raw) -> dict[str, Any]:
    if raw.value is None or len(raw.value) > LARGEST:
        raise _Unusable
    try:
        value = json.loads(raw.value.decode())
    except ValueError as error:
        raise _Unusable from error
    if not isinstance(value, dict):
        raise _Unusable
    for name in ("variant_id", "post_id", "persona_id"):
        if name in value and not (isinstance(value[name], str) and 1 <= len(value[name]) <= LONGEST_ID):
            raise _Unusable
    if "variant_id" not in value or raw.key != value["variant_id"].encode():
        raise _Unusable
    return value


def _whole(value: Any, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise _Unusable
    return value


def _moment(value: Any, raw: Raw) -> int:
    if value is None:
        return raw.timestamp * 1_000
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError as error:
            raise _Unusable from error
        if moment.tzinfo is None:
            raise _Unusable
        return (moment - EPOCH) // timedelta(microseconds=1)
    return round(value * SECOND) if value < MILLISECONDS_FROM else round(value * 1_000)


def _posted(raw: Raw) -> Fate:
    value = _object(raw)
    if "post_id" not in value or "persona_id" not in value:
        raise _Unusable
    posted_at, minutes = _moment(value.get("posted_at"), raw), value.get("timeout_minutes", 10)
    return Fate(
        value["variant_id"], value["post_id"], value["persona_id"], posted_at, posted_at + round(minutes * 60 * SECOND),
        value.get("expected_engagement_rate", 0.06), value.get("kill_threshold", 0.5), value.get("min_interactions", 10), minutes,
    )  # fmt: skip


def _interaction(raw: Raw) -> tuple[str, str | None, Event]:
    value = _object(raw)
    kind, count, totals, event_id = value.get("kind"), 1, None, value.get("event_id")
    if kind == "snapshot":
        shown = value.get("totals")
        if not isinstance(shown, dict) or not any(name in shown for name in TOTALS):
            raise _Unusable
        totals = {kind: _whole(shown.get(name) or 0, 0, MOST_TOTAL) for kind, name in zip(KINDS, TOTALS, strict=True)}
    elif kind in KINDS:
        count = _whole(value.get("count", 1), 1, MOST_COUNT)
    else:
        raise _Unusable
    moment = _moment(value.get("occurred_at"), raw)
    if event_id is not None and not (isinstance(event_id, str) and 1 <= len(event_id) <= LONGEST_ID):
        raise _Unusable
    return value["variant_id"], value.get("post_id"), Event(kind, moment, count, totals, event_id)

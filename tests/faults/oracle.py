"""How each session has to end, read off the raw topics by offset, as the contract says it. Shares no code with the project: it imports nothing of it.

Of the contract it knows what the traffic of these tests uses: interactions that name their post, stops of sessions that no rule ends.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

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


@dataclass(slots=True)
class Fate:
    """What has to become of one session. Moments in microseconds."""

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
    snapshots: Counter[str] = field(default_factory=Counter)
    seen: set[str] = field(default_factory=set)

    @property
    def session_id(self) -> uuid.UUID:
        return uuid.uuid5(NAMESPACE, json.dumps([self.variant_id, self.post_id], ensure_ascii=False, separators=(",", ":")))

    @property
    def kill_id(self) -> uuid.UUID:
        return uuid.uuid5(self.session_id, "kill")

    @property
    def counts(self) -> dict[str, int]:
        return {kind: max(self.increments[kind], self.snapshots[kind]) for kind in KINDS}

    @property
    def views(self) -> int:
        return self.counts["view"]

    @property
    def interactions(self) -> int:
        return sum(self.counts.values()) - self.views

    @property
    def rate(self) -> float | None:
        return self.interactions / self.views if self.views else None


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
            event = _interaction(raw)
        except _Unusable:
            verdict.dead.add(("interaction", raw.partition, raw.offset))
            verdict.results["dead_letter"] += 1
            continue
        owner = verdict.fates.get((event["variant_id"], event["post_id"]))
        verdict.results["waiting" if owner is None else _fold(owner, event, raw, round(grace_seconds * SECOND))] += 1
    for raw in _in_order(topics["monitoring_control"]):
        stop = json.loads(raw.value or b"")
        stopped = [fate for (variant, post), fate in verdict.fates.items() if variant == stop["variant_id"] and stop.get("post_id") in (None, post) and fate.outcome == "timed_out"]
        for fate in stopped:
            assert raw.timestamp * 1_000 < fate.deadline, "a stop that comes about the deadline: whether it was read before is not in the topics"
            fate.outcome, fate.reason, fate.ended_at = "stopped", "Manually stopped", raw.timestamp * 1_000
        verdict.results["counted" if stopped else "after_end"] += 1
    for fate in verdict.fates.values():
        if fate.outcome == "timed_out":
            fate.ended_at, fate.reason = fate.deadline, f"{fate.timeout_minutes:.6g}-minute monitoring window expired"
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


def _interaction(raw: Raw) -> dict[str, Any]:
    value = _object(raw)
    kind = value.get("kind")
    if kind == "snapshot":
        totals = value.get("totals")
        if not isinstance(totals, dict) or not any(name in totals for name in TOTALS):
            raise _Unusable
        value["totals"] = {kind: _whole(totals.get(name) or 0, 0, MOST_TOTAL) for kind, name in zip(KINDS, TOTALS, strict=True)}
    elif kind in KINDS:
        value["count"] = _whole(value.get("count", 1), 1, MOST_COUNT)
    else:
        raise _Unusable
    value["moment"] = _moment(value.get("occurred_at"), raw)
    if value.get("event_id") is not None and not (isinstance(value["event_id"], str) and 1 <= len(value["event_id"]) <= LONGEST_ID):
        raise _Unusable
    return value


def _fold(fate: Fate, event: dict[str, Any], raw: Raw, grace: int) -> str:
    if fate.outcome == "killed":
        return "after_end"
    if event["moment"] < fate.posted_at:
        return "early"
    if event["moment"] >= fate.deadline or raw.timestamp * 1_000 >= fate.deadline + grace:
        return "late"
    if event.get("event_id") is not None:
        if event["event_id"] in fate.seen:
            return "duplicate"
        fate.seen.add(event["event_id"])
    if event["kind"] == "snapshot":
        fate.snapshots |= Counter(event["totals"])
    else:
        fate.increments[event["kind"]] += event["count"]
    views, interactions = fate.views, fate.interactions
    if interactions >= fate.min_interactions and views > 0 and interactions / views < fate.threshold * fate.expected_rate:
        fate.outcome, fate.ended_at, fate.decided_by = "killed", event["moment"], (raw.partition, raw.offset)
        fate.reason = f"Below {fate.threshold * 100:.6g}% of expected engagement rate"
    return "counted"

"""How each session has to end, read off the source topics as the contract's section 3 says. Shares no code with the project."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.simulation.history import DAY, KINDS, TOTALS, History

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Fate:
    """What has to become of one session.

    Attributes:
        is_open: The log leaves it open: an interaction's post came after the time that it has to wait.
    """

    variant_id: str
    post_id: str
    persona_id: str
    posted_at: int
    deadline: int
    posted_offset: int
    expected_rate: float
    threshold: float
    min_interactions: int
    timeout_minutes: float
    outcome: str = "timed_out"
    reason: str = ""
    ended_at: int = 0
    deciding_offset: int | None = None
    increments: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    snapshots: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    seen: set[str] = field(default_factory=set)
    is_open: bool = False

    @property
    def counts(self) -> dict[str, int]:
        return {kind: max(self.increments[kind], self.snapshots[kind]) for kind in KINDS}

    @property
    def views(self) -> int:
        return self.counts["view"]

    @property
    def interactions(self) -> int:
        return sum(count for kind, count in self.counts.items() if kind != "view")


@dataclass(slots=True)
class Verdicts:
    """What has to be on the output topics in the end.

    Attributes:
        dead: Records (topic, partition, offset) that must be in the dead letters.
        may_be_dead: Records that may be there.
    """

    fates: dict[tuple[str, str], Fate]
    dead: set[tuple[str, int, int]]
    may_be_dead: set[tuple[str, int, int]]


def _us(raw: Any, appended: int) -> int:
    if raw is None:
        return appended
    if isinstance(raw, int):
        return raw * 1_000
    return (datetime.fromisoformat(raw) - EPOCH) // timedelta(microseconds=1)


def judge(history: History) -> Verdicts:  # noqa: C901, PLR0912 - an oracle reads best from top to bottom, beside the contract
    """Say how all sessions must end; only for histories in which every interaction names its post."""
    fates: dict[tuple[str, str], Fate] = {}
    dead = set(history.bad)
    may_be_dead: set[tuple[str, int, int]] = set()
    posted_at_all: dict[tuple[str, str], int] = {}
    for (topic, partition), records in history.records.items():
        if topic != "variant_posted":
            continue
        for record in records:
            if (topic, partition, record.offset) in history.bad:
                continue
            assert record.value is not None
            value, appended = json.loads(record.value), record.timestamp * 1_000
            name = value["variant_id"], value["post_id"]
            if name in fates:
                continue
            posted_at = _us(value.get("posted_at"), appended)
            deadline = posted_at + timedelta(minutes=value["timeout_minutes"]) // timedelta(microseconds=1)
            if appended > deadline + DAY:
                dead.add((topic, partition, record.offset))
                continue
            posted_at_all[name] = appended
            fates[name] = Fate(
                *name, value["persona_id"], posted_at, deadline, record.offset,
                value["expected_engagement_rate"], value["kill_threshold"], value["min_interactions"], value["timeout_minutes"],
            )  # fmt: skip
    for (topic, partition), records in history.records.items():
        if topic != "interaction":
            continue
        for record in records:
            if (topic, partition, record.offset) in history.bad:
                continue
            assert record.value is not None
            value, appended = json.loads(record.value), record.timestamp * 1_000
            if "post_id" not in value:
                continue
            fate = fates.get((value["variant_id"], value["post_id"]))
            if fate is None:
                dead.add((topic, partition, record.offset))
                continue
            if posted_at_all[fate.variant_id, fate.post_id] >= appended + history.wait:
                may_be_dead.add((topic, partition, record.offset))
                fate.is_open = True
                continue
            _fold(fate, value, appended, record.offset, history.grace)
    for fate in fates.values():
        if fate.outcome == "timed_out":
            fate.ended_at, fate.reason = fate.deadline, f"{fate.timeout_minutes:.6g}-minute monitoring window expired"
    return Verdicts(fates, dead, may_be_dead)


def _fold(fate: Fate, value: dict[str, Any], appended: int, offset: int, grace: int) -> None:
    moment = _us(value.get("occurred_at"), appended)
    if fate.outcome == "killed" or not fate.posted_at <= moment < fate.deadline or appended >= fate.deadline + grace:
        return
    if "event_id" in value:
        if value["event_id"] in fate.seen:
            return
        fate.seen.add(value["event_id"])
    if value["kind"] == "snapshot":
        for kind, total in zip(KINDS, TOTALS, strict=True):
            fate.snapshots[kind] = max(fate.snapshots[kind], value["totals"].get(total) or 0)
    else:
        fate.increments[value["kind"]] += value.get("count", 1)
    views, interactions = fate.views, fate.interactions
    if interactions >= fate.min_interactions and views > 0 and interactions / views < fate.threshold * fate.expected_rate:
        fate.outcome, fate.ended_at, fate.deciding_offset = "killed", moment, offset
        fate.reason = f"Below {fate.threshold * 100:.6g}% of expected engagement rate"

"""How each session has to end, read off the source topics as the contract's section 3 says. Shares no code with the project.

What an interaction makes of its session is said in ``tests.faults.oracle``; here is what histories have beside that: posts that come late, or twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec

from tests.faults.oracle import EPOCH, KINDS, TOTALS, Event, Fate
from tests.simulation.history import DAY, History

SOON = 1_000_000
"""Microseconds within which a worker that has not crashed folds a post; one that has reads all posts before any stop."""
_decode = msgspec.json.Decoder().decode
_MICROSECOND = timedelta(microseconds=1)
_KINDS = dict(zip(TOTALS, KINDS, strict=True))


@dataclass(slots=True)
class Verdicts:
    """What has to be on the output topics in the end.

    Attributes:
        dead: Records (topic, partition, offset) that must be in the dead letters.
        may_be_dead: Records that may be there.
        undecided: Sessions of which the log leaves open how they end: an interaction's post came after the time that it has to wait.
        stopped: Sessions that cannot time out: a stop was appended before their deadline, and well after their post.
        stoppable: Sessions that a stop may have ended: one was appended before they had to time out.
    """

    fates: dict[tuple[str, str], Fate]
    dead: set[tuple[str, int, int]]
    may_be_dead: set[tuple[str, int, int]]
    undecided: set[tuple[str, str]] = field(default_factory=set)
    stopped: set[tuple[str, str]] = field(default_factory=set)
    stoppable: set[tuple[str, str]] = field(default_factory=set)


def _us(raw: Any, appended: int) -> int:
    if raw is None:
        return appended
    if isinstance(raw, int):
        return raw * 1_000
    return (datetime.fromisoformat(raw) - EPOCH) // _MICROSECOND


@lru_cache(maxsize=1)
def judge(history: History) -> Verdicts:  # noqa: C901, PLR0912 - an oracle reads best from top to bottom, beside the contract
    """Say how all sessions must end; only for histories in which every interaction names its post."""
    fates: dict[tuple[str, str], Fate] = {}
    dead = set(history.bad)
    may_be_dead: set[tuple[str, int, int]] = set()
    undecided: set[tuple[str, str]] = set()
    posted_at_all: dict[tuple[str, str], int] = {}
    for (topic, partition), records in history.records.items():
        if topic != "variant_posted":
            continue
        for record in records:
            if (topic, partition, record.offset) in history.bad:
                continue
            assert record.value is not None
            value, appended = _decode(record.value), record.timestamp * 1_000
            name = value["variant_id"], value["post_id"]
            if name in fates:
                continue
            posted_at = _us(value.get("posted_at"), appended)
            deadline = posted_at + timedelta(minutes=value["timeout_minutes"]) // _MICROSECOND
            if appended > deadline + DAY:
                dead.add((topic, partition, record.offset))
                continue
            posted_at_all[name] = appended
            fates[name] = Fate(
                *name, value["persona_id"], posted_at, deadline,
                value["expected_engagement_rate"], value["kill_threshold"], value["min_interactions"], value["timeout_minutes"],
            )  # fmt: skip
    for (topic, partition), records in history.records.items():
        if topic != "interaction":
            continue
        for record in records:
            if (topic, partition, record.offset) in history.bad:
                continue
            assert record.value is not None
            value, appended = _decode(record.value), record.timestamp * 1_000
            if "post_id" not in value:
                continue
            name = value["variant_id"], value["post_id"]
            fate = fates.get(name)
            if fate is None:
                dead.add((topic, partition, record.offset))
                continue
            if posted_at_all[name] >= appended + history.wait:
                may_be_dead.add((topic, partition, record.offset))
                undecided.add(name)
                continue
            fate.fold(_event(value, appended), appended, (partition, record.offset), history.grace)
    for fate in fates.values():
        fate.expire()
    named = [(name, at) for variant, post, at in _stops(history) for name in fates if name[0] == variant and post in (None, name[1])]
    stopped = {name for name, at in named if posted_at_all[name] + SOON <= at < fates[name].deadline}
    stoppable = {name for name, at in named if at < fates[name].deadline + history.grace}
    return Verdicts(fates, dead, may_be_dead, undecided, stopped, stoppable)


def _stops(history: History) -> Iterator[tuple[str, str | None, int]]:
    for (topic, partition), records in history.records.items():
        for record in records if topic == "monitoring_control" else ():
            if (topic, partition, record.offset) not in history.bad:
                value = _decode(record.value or b"")
                yield value["variant_id"], value["post_id"], record.timestamp * 1_000


def _event(value: dict[str, Any], appended: int) -> Event:
    moment = _us(value.get("occurred_at"), appended)
    totals = value.get("totals")
    if totals is not None:
        totals = {kind: totals.get(name) or 0 for name, kind in _KINDS.items()}
    return Event(value["kind"], moment, value.get("count", 1), totals, value.get("event_id"))

"""Compares what a system has made of its topics with what it had to: each difference is one line for people. Imports nothing of the project."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.faults.oracle import EPOCH, Fate, Raw, Verdict

Row = Mapping[str, Any]
RUNNABLE = ("scheduled", "retry_scheduled")


@dataclass(frozen=True, slots=True)
class Made:
    """What the system has made: the records of its output topics, and its tables."""

    killed: list[Raw]
    recorded: list[Raw]
    dead: list[Raw]
    sessions: list[Row]
    pool: list[Row]
    posts: list[Row]
    audit: list[Row]


def findings(verdict: Verdict, made: Made, prefix: str) -> list[str]:
    """Return every difference; none if nothing is missed, invented, doubled, wrong or unclean.

    Args:
        verdict: Of the oracle.
        made: What there is.
        prefix: Of the topics' names.
    """
    return [*_ends(verdict, made), *_announced(verdict, made), *_told(verdict, made), *_clean(verdict, made), *_audited(verdict, made), *_dead(verdict, made, prefix)]


def _moment(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)


def _ends(verdict: Verdict, made: Made) -> Iterator[str]:
    rows: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in made.sessions:
        rows[row["variant_id"], row["post_id"]].append(row)
    for name in rows.keys() - verdict.fates.keys():
        yield f"extra session {name}"
    for name, fate in verdict.fates.items():
        if len(rows[name]) != 1:
            yield f"{len(rows[name])} rows of session {name}"
            continue
        for what, is_there, has_to_be in _facts(fate, rows[name][0]):
            if is_there != has_to_be:
                yield f"session {name}: {what} is {is_there!r}, has to be {has_to_be!r}"


def _facts(fate: Fate, row: Row) -> Iterator[tuple[str, Any, Any]]:
    yield "session_id", row["session_id"], fate.session_id
    yield "outcome", row["outcome"], fate.outcome
    yield "is_active", row["is_active"], False
    yield "was_killed", row["was_killed"], fate.outcome == "killed"
    yield "kill_reason", row["kill_reason"], fate.reason
    yield "started_at", row["started_at"].astimezone(UTC), _moment(fate.posted_at)
    yield "ended_at", row["ended_at"] and row["ended_at"].astimezone(UTC), _moment(fate.ended_at)
    if fate.outcome == "stopped":  # its counts are those read before the stop: any part of them
        yield "whether it has more views than there were", (row["final_view_count"] or 0) > fate.views, False
        return
    yield "final_view_count", row["final_view_count"], fate.views
    yield "final_interaction_count", row["final_interaction_count"], fate.interactions
    yield "final_engagement_rate", row["final_engagement_rate"], fate.rate
    yield "counts", row["monitoring_metadata"].get("counts"), fate.counts
    if fate.decided_by is not None:
        event = row["monitoring_metadata"].get("deciding_event") or {}
        yield "deciding event", (event.get("partition"), event.get("offset")), fate.decided_by


def _announced(verdict: Verdict, made: Made) -> Iterator[str]:
    copies: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for raw in made.killed:
        value = json.loads(raw.value or b"{}")
        copies[value["kill_id"]].append(value | {"decided_at": None})
    wanted = {str(fate.kill_id): fate for fate in verdict.fates.values() if fate.outcome == "killed"}
    for kill in wanted.keys() - copies.keys():
        yield f"missed kill of {wanted[kill].variant_id}"
    for kill in copies.keys() - wanted.keys():
        yield f"extra kill {kill} of {copies[kill][0]['variant_id']}"
    for kill, fate in wanted.items():
        if any(copy != copies[kill][0] for copy in copies[kill]):
            yield f"copies of the kill of {fate.variant_id} differ"
        for copy in copies[kill][:1]:
            is_there = (copy["reason"], copy["final_view_count"], copy["final_interaction_count"], copy["deciding_event"]["partition"], copy["deciding_event"]["offset"])
            if is_there != (fate.reason, fate.views, fate.interactions, *(fate.decided_by or ())):
                yield f"the kill of {fate.variant_id} says {is_there}"


def _told(verdict: Verdict, made: Made) -> Iterator[str]:
    kinds: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for raw in made.recorded:
        value = json.loads(raw.value or b"{}")
        kinds[value["variant_id"], value["post_id"]].add(value["kind"])
    for name, fate in verdict.fates.items():
        if kinds[name] != {"started", fate.outcome}:
            yield f"monitoring_record tells of session {name}: {sorted(kinds[name])}"


def _clean(verdict: Verdict, made: Made) -> Iterator[str]:
    killed = {fate.variant_id for fate in verdict.fates.values() if fate.outcome == "killed"}
    for row in made.pool:
        if (row["status"] == "killed") != (row["variant_id"] in killed):
            yield f"the pool says {row['status']} of {row['variant_id']}"
    for row in made.posts:
        if (row["status"] in RUNNABLE) == (row["variant_id"] in killed):
            yield f"a post of {row['variant_id']} ({'killed' if row['variant_id'] in killed else 'not killed'}) is {row['status']}"


def _audited(verdict: Verdict, made: Made) -> Iterator[str]:
    rows: defaultdict[str, Counter[Any]] = defaultdict(Counter)
    for row in made.audit:
        rows[row["action"]][row["session_id"]] += 1
    everybody = {fate.session_id for fate in verdict.fates.values()}
    killed = {fate.session_id for fate in verdict.fates.values() if fate.outcome == "killed" and any(row["variant_id"] == fate.variant_id for row in made.pool)}
    for action, sessions in (("session_started", everybody), ("session_ended", everybody), ("variant_killed", killed)):
        if rows[action] != Counter(dict.fromkeys(sessions, 1)):
            difference = {key: rows[action][key] for key in rows[action].keys() | sessions if rows[action][key] != (key in sessions)}
            yield f"audit rows {action}: {len(difference)} sessions have none or several, as {next(iter(difference.items()))}"


def _dead(verdict: Verdict, made: Made, prefix: str) -> Iterator[str]:
    places = set()
    for raw in made.dead:
        value = json.loads(raw.value or b"{}")
        places.add((value["topic"].removeprefix(prefix), value["partition"], value["offset"]))
    for place in verdict.dead - places:
        yield f"missed dead letter of {place}"
    for place in places - verdict.dead:
        yield f"extra dead letter of {place}"

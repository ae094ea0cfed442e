"""A plan that fails, made as small as it still fails, and written down so that a person can read it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

from tests.simulation.broker import Record
from tests.simulation.history import START, History
from tests.simulation.plan import Plan
from tests.simulation.simulation import run_plan

SECONDS = 60.0
"""How long to look for something smaller."""

T = TypeVar("T")
Place = tuple[str, int, int]


def complaint(plan: Plan) -> str | None:
    """Run a plan; return what is wrong, in one line, or None."""
    try:
        run_plan(plan)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
        return " ".join(f"{type(error).__name__}: {error}".split())
    return None


def _kind(told: str) -> str:
    return ":".join(told.split(":")[:2])


def shrink(plan: Plan, seconds: float = SECONDS, clock: Callable[[], float] = time.monotonic) -> Plan:
    """Leave out lives and records of a plan that fails, as long as it fails for the same reason; give up after so many seconds."""
    first = complaint(plan)
    if first is None:
        raise ValueError("this plan does not fail")
    reason, until = _kind(first), clock() + seconds

    def fails(candidate: Plan) -> bool:
        told = complaint(candidate)
        return told is not None and _kind(told) == reason

    while clock() < until:
        before = plan
        lives = _fewer(list(plan.lives), lambda kept, plan=plan: fails(replace(plan, lives=tuple(kept))), lambda: clock() < until)  # type: ignore[misc]
        plan = replace(plan, lives=tuple(lives))
        places = _fewer(_places(plan.history), lambda kept, plan=plan: fails(replace(plan, history=_only(plan.history, set(kept)))), lambda: clock() < until)  # type: ignore[misc]
        plan = replace(plan, history=_only(plan.history, set(places)))
        if len(plan.lives) == len(before.lives) and len(_places(plan.history)) == len(_places(before.history)):
            break
    return plan


def _fewer(items: list[T], fails: Callable[[list[T]], bool], goes_on: Callable[[], bool]) -> list[T]:
    """Leave out runs of items, long ones first, as long as it fails without them."""
    size = max(1, len(items) // 2)
    while items and goes_on():
        start, has_shrunk = 0, False
        while start < len(items) and goes_on():
            candidate = items[:start] + items[start + size :]
            if fails(candidate):
                items, has_shrunk = candidate, True
            else:
                start += size
        if size == 1 and not has_shrunk:
            break
        size = max(1, size // 2)
    return items


def _places(history: History) -> list[Place]:
    timed = [(record.timestamp, tp.topic, tp.partition, record.offset) for tp, records in history.records.items() for record in records]
    return [(topic, partition, offset) for _, topic, partition, offset in sorted(timed)]


def _only(history: History, kept: set[Place]) -> History:
    """Return the history with no other records; they move up to where those were."""
    records, bad = {}, set()
    for tp, all_records in history.records.items():
        staying = [record for record in all_records if (tp.topic, tp.partition, record.offset) in kept]
        records[tp] = [Record(offset, record.timestamp, record.key, record.value) for offset, record in enumerate(staying)]
        bad |= {(tp.topic, tp.partition, offset) for offset, record in enumerate(staying) if (tp.topic, tp.partition, record.offset) in history.bad}
    return replace(history, records=records, bad=bad)


def describe(plan: Plan) -> str:
    """Write down what happens in a plan, in the order of time, and what is wrong with it."""
    diary: list[tuple[int, str]] = []
    told = "nothing is wrong"
    try:
        run_plan(plan, diary)
    except Exception as error:  # noqa: BLE001 - as above
        told = f"{type(error).__name__}: {error}"
    setting = plan.setting
    world = f"grace {setting.grace / 1e6:g} s, wait {setting.wait / 1e6:g} s, flush every {setting.flush_seconds:g} s, {setting.failures:.0%} of batches not acknowledged"
    lines = [f"{(at - START) / 1e6:+10.3f} s  {what}" for at, what in sorted([*diary, *_events(plan.history)])]
    return "\n".join([f"{len(_places(plan.history))} records, {len(plan.lives)} lives before the last; {world}", *lines, told])


def _events(history: History) -> Iterator[tuple[int, str]]:
    for tp, records in history.records.items():
        for record in records:
            text = record.value.decode(errors="replace") if record.value is not None else "null"
            yield record.timestamp * 1_000, f"{tp.topic}[{tp.partition}] {record.offset}: {text}"

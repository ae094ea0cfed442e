"""The hot path: a run of plain increments, folded as ``PartitionMonitor.interact`` would fold them one by one, but faster.

Plain is: an increment with ``post_id``, for an active session, inside its window. Whatever is not goes
the general way. So this can only be faster, never different; a property test holds it to that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from models.engagement import KIND_INDEX
from models.ids import event_hash
from models.moments import MILLISECOND
from models.monitor import PartitionMonitor
from models.rules import KEEP
from models.session import Origin, Result


class Increment(Protocol):
    """A well-formed event. If it is no plain increment, ``kind`` is none of ``KINDS``; else ``occurred_at`` is in microseconds since the epoch."""

    variant_id: str
    kind: str
    count: int
    post_id: str | None
    event_id: str | None
    occurred_at: Any


class Record(Protocol):
    """The record an event came in; ``timestamp`` is its append time in milliseconds."""

    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def timestamp(self) -> int: ...  # noqa: D102


R = TypeVar("R", bound=Record)
E = TypeVar("E", bound=Increment)


def fold_increments(monitor: PartitionMonitor, records: Sequence[R], events: Sequence[E], fold_one: Callable[[R, E], Result], now: int) -> dict[Result, int]:  # noqa: C901, PLR0912 - calls and branches taken apart cost a third of the speed
    """Fold the events of consecutive records, in order, and ask the rule after each that counts.

    Args:
        monitor: Of the partition.
        records: What the events came in.
        events: One for each record.
        fold_one: Folds one record, and its event, the general way.
        now: Wall clock, microseconds since the epoch.

    Returns:
        How many of them had which result.
    """
    heads = monitor.sessions.heads
    closed = max([record.timestamp for record in records], default=0) * MILLISECOND - monitor.limits.grace  # for some of them, if not for all
    kind_index, hash_of, note_change = KIND_INDEX.get, event_hash, monitor.changed.append
    results: dict[Result, int] = {}
    counted = 0
    for record, event in zip(records, events, strict=True):
        session, post_id = heads.get(event.variant_id), event.post_id
        while session is not None and session.post_id != post_id:
            session = session.older
        kind, offset, moment = kind_index(event.kind), record.offset, event.occurred_at
        if (
            session is None
            or kind is None
            or session.end is not None
            or offset <= session.applied
            or moment < session.posted_at
            or moment >= session.deadline
            or closed >= session.deadline
        ):
            result = fold_one(record, event)
            results[result] = results.get(result, 0) + 1
            continue
        if event.event_id is not None:
            value, event_ids = hash_of(event.event_id), session.event_ids
            if event_ids is None or event_ids.known is None:
                if not session.reserve(value):
                    results[Result.DUPLICATE] = results.get(Result.DUPLICATE, 0) + 1
                    continue
            elif value in event_ids.known:
                results[Result.DUPLICATE] = results.get(Result.DUPLICATE, 0) + 1
                continue
            else:
                event_ids.known.add(value)
                event_ids.tail.append(value)
        counts = session.counts
        if counts.snapshots is not None:
            counts.add(event.kind, event.count)
        else:
            counts.increments[kind] += event.count
            if kind:
                counts.interactions += event.count
            else:
                counts.views += event.count
        session.applied = offset
        if not session.is_changed:
            session.is_changed = True
            note_change(session)
        counted += 1
        if session.rule(counts, session.policy) is not KEEP:
            session.judge(Origin(monitor.interaction_topic, monitor.partition, offset, moment), now)
            monitor.announce_end(session)
    if counted:
        results[Result.COUNTED] = results.get(Result.COUNTED, 0) + counted
    if records and records[-1].offset > monitor.position:
        monitor.position = records[-1].offset
    return results

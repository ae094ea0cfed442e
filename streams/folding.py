"""Records of each source topic into the core: decode, fold, and count what became of them. Nothing escapes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from models.engagement import KIND_INDEX
from models.errors import Reject
from models.events import Interaction, parse_stop, parse_variant_posted
from models.increments import fold_increments
from models.monitor import PartitionMonitor
from models.policy import Defaults
from models.session import Result
from streams.codec import decode_interaction, microseconds
from streams.increments import Increment, decode_increments
from streams.ports import Incoming

log = logging.getLogger(__name__)

_CANNOT_FOLD = "cannot fold the record at %s %d %d"

FoldOne = Callable[[PartitionMonitor, Incoming, int, Defaults, int], Result]
Fold = Callable[[PartitionMonitor, str, Sequence[Incoming], Defaults, int], Mapping[Result, int]]

FEW = 8
"""So few records are not worth to be searched for those that are out of the ordinary."""


def _fold_posted(monitor: PartitionMonitor, record: Incoming, append_us: int, defaults: Defaults, now: int) -> Result:
    posting = parse_variant_posted(record.value, record.key, append_us, defaults)
    return monitor.post(posting, record.offset, append_us, record.key, record.value, now)


def _fold_interaction(monitor: PartitionMonitor, record: Incoming, append_us: int, _defaults: Defaults, now: int) -> Result:
    event = decode_interaction(record.value, record.key, append_us)
    return monitor.interact(event, record.offset, append_us, record.key, record.value, now)


def _fold_stop(monitor: PartitionMonitor, record: Incoming, append_us: int, _defaults: Defaults, now: int) -> Result:
    return monitor.stop(parse_stop(record.value, record.key), record.offset, append_us, now)


def _safely(fold_one: FoldOne, monitor: PartitionMonitor, topic: str, record: Incoming, defaults: Defaults, now: int) -> Result:
    append_us = microseconds(record.timestamp)
    try:
        return fold_one(monitor, record, append_us, defaults, now)
    except Reject as error:
        return monitor.reject(topic, record.offset, append_us, record.key, record.value, str(error))
    except MemoryError:  # nothing is wrong with the record, and half of it may be folded: the worker ends, and reads it again
        raise
    except Exception:
        log.exception(_CANNOT_FOLD, topic, monitor.partition, record.offset)
        return monitor.reject(topic, record.offset, append_us, record.key, record.value, "internal error")


def _fold_increment(monitor: PartitionMonitor, topic: str, record: Incoming, event: Increment, now: int) -> Result:
    """Fold what has been read already."""
    append_us = microseconds(record.timestamp)
    try:
        known = Interaction(event.variant_id, event.kind, event.occurred_at, event.count, event.post_id, event.event_id)  # type: ignore[arg-type] # a moment, by now
        return monitor.interact(known, record.offset, append_us, record.key, record.value, now)
    except MemoryError:  # as in ``_safely``
        raise
    except Exception:
        log.exception(_CANNOT_FOLD, topic, monitor.partition, record.offset)
        return monitor.reject(topic, record.offset, append_us, record.key, record.value, "internal error")


def _one_by_one(fold_one: FoldOne) -> Fold:
    def fold(monitor: PartitionMonitor, topic: str, records: Sequence[Incoming], defaults: Defaults, now: int) -> Counter[Result]:
        return Counter([_safely(fold_one, monitor, topic, record, defaults, now) for record in records])

    return fold


_each_interaction = _one_by_one(_fold_interaction)


def _fold_interactions(monitor: PartitionMonitor, topic: str, records: Sequence[Incoming], defaults: Defaults, now: int) -> Mapping[Result, int]:
    """Fold as many at once as can be; around records that are out of the ordinary, ever fewer."""
    events = decode_increments(records)
    if events is not None:

        def fold_one(record: Incoming, event: Increment) -> Result:
            if event.kind in KIND_INDEX:
                return _fold_increment(monitor, topic, record, event, now)
            return _safely(_fold_interaction, monitor, topic, record, defaults, now)

        return fold_increments(monitor, records, events, fold_one, now)
    if len(records) <= FEW:
        return _each_interaction(monitor, topic, records, defaults, now)
    middle = len(records) // 2
    results = Counter(_fold_interactions(monitor, topic, records[:middle], defaults, now))
    results.update(_fold_interactions(monitor, topic, records[middle:], defaults, now))
    return results


FOLDS: tuple[Fold, Fold, Fold] = (_one_by_one(_fold_posted), _fold_interactions, _one_by_one(_fold_stop))
"""How records of ``variant_posted``, ``interaction`` and ``monitoring_control`` are folded, in this order."""

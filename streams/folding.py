"""Records of each source topic into the core: decode, fold, and count what became of them. Nothing escapes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from models.errors import Reject
from models.events import parse_stop, parse_variant_posted
from models.monitor import PartitionMonitor
from models.policy import Defaults
from models.session import Result
from streams.codec import decode_interaction, microseconds

log = logging.getLogger(__name__)


class Incoming(Protocol):
    """A record as the consumer delivers it; ``timestamp`` is its append time in milliseconds."""

    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def timestamp(self) -> int: ...  # noqa: D102
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102


FoldOne = Callable[[PartitionMonitor, Incoming, int, Defaults, int], Result]
Fold = Callable[[PartitionMonitor, str, Sequence[Incoming], Defaults, int], Counter[Result]]


def _fold_posted(monitor: PartitionMonitor, record: Incoming, append_us: int, defaults: Defaults, now: int) -> Result:
    posting = parse_variant_posted(record.value, record.key, append_us, defaults)
    return monitor.post(posting, record.offset, append_us, record.key, record.value, now)


def _fold_interaction(monitor: PartitionMonitor, record: Incoming, append_us: int, _defaults: Defaults, now: int) -> Result:
    event = decode_interaction(record.value, record.key, append_us)
    return monitor.interact(event, record.offset, append_us, record.key, record.value, now)


def _fold_stop(monitor: PartitionMonitor, record: Incoming, append_us: int, _defaults: Defaults, now: int) -> Result:
    return monitor.stop(parse_stop(record.value, record.key), record.offset, append_us, now)


def _folding(fold_one: FoldOne) -> Fold:
    def fold(monitor: PartitionMonitor, topic: str, records: Sequence[Incoming], defaults: Defaults, now: int) -> Counter[Result]:
        results: Counter[Result] = Counter()
        for record in records:
            append_us = microseconds(record.timestamp)
            try:
                result = fold_one(monitor, record, append_us, defaults, now)
            except Reject as error:
                result = monitor.reject(topic, record.offset, append_us, record.key, record.value, str(error))
            except Exception:
                log.exception("cannot fold the record at %s %d %d", topic, monitor.partition, record.offset)
                result = monitor.reject(topic, record.offset, append_us, record.key, record.value, "internal error")
            results[result] += 1
        return results

    return fold


FOLDS: tuple[Fold, Fold, Fold] = (_folding(_fold_posted), _folding(_fold_interaction), _folding(_fold_stop))
"""How records of ``variant_posted``, ``interaction`` and ``monitoring_control`` are folded, in this order."""

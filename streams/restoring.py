"""A partition as it was: built anew from what recovery has read of its changelogs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from faust.types import TP

from models.errors import Stop
from models.moments import MILLISECOND
from models.state import decode_session, decode_waiters
from streams.changelog import Changelog, Changelogs
from streams.codec import decode_interaction
from streams.tables import COMPACTION_LAG_MS, StateTable, parse_key

if TYPE_CHECKING:
    from models.monitor import PartitionMonitor
    from models.session import Session
    from models.waiting import Waiter
    from streams.ports import Log

log = logging.getLogger(__name__)

T = TypeVar("T")

YIELD_EVERY = 500
"""Values restored before other work gets its turn. Segments of waiting interactions are large: it gets its turn after each."""


def changelogs_read_back(partition: int, tables: Sequence[StateTable], beginnings: Mapping[TP, int], sink: Log, now: int) -> Changelogs:
    """Return the changelogs of a partition with what recovery has found in them, not claimed yet.

    Args:
        partition: Its number.
        tables: In the order of ``Changelogs``.
        beginnings: First offset of each of their changelogs.
        sink: Where they are written to.
        now: Microseconds.

    Raises:
        Stop: One was not read from its beginning.
    """
    changelogs = []
    for table in tables:
        recovered, tp = table.take(partition), TP(table.changelog_topic_name, partition)
        if not recovered.has_all_since(beginnings[tp]):
            raise Stop(f"{tp.topic}[{partition}] was not read back from its beginning; this worker starts anew")
        recovered.settle(now // MILLISECOND - COMPACTION_LAG_MS)
        changelogs.append(Changelog(sink, table.changelog_topic_name, partition, recovered))
    return Changelogs(*changelogs)


async def restore(monitor: PartitionMonitor, changelogs: Changelogs) -> list[bytes]:
    """Give a new ``monitor`` the sessions and waiting interactions found in claimed changelogs, which forget them.

    Returns:
        Keys of segments of event ids that no state counts on: written just before a crash.
    """
    engagement, event_id, waiting = (changelog.hand_over() for changelog in changelogs)
    segments: dict[tuple[Any, ...], tuple[bytes, bytes]] = {}
    used: set[bytes] = set()

    def segment(session: Session, number: int) -> bytes | None:
        key, packed = segments.get((session.variant_id, session.post_id, number), (b"", None))
        used.add(key)
        return packed

    async for key, packed in _in_turns(event_id.items()):
        segments[tuple(parse_key(key))] = (key, packed)
    async for value in _in_turns(engagement.values()):
        monitor.restore([decode_session(value, segment)], [])
    waiters: list[Waiter] = []
    async for key, packed in _in_turns(waiting.items(), 1):
        waiters += decode_waiters(packed, parse_key(key)[1], decode_interaction)
    async for waiter in _in_turns(sorted(waiters, key=lambda waiter: waiter.offset)):
        monitor.restore([], [waiter])
    if engagement or waiters:
        log.info("partition %d: restored %d sessions and %d waiting interactions", monitor.partition, len(engagement), len(waiters))
    return [key for key in event_id if key not in used]


async def _in_turns(items: Iterable[T], count: int = YIELD_EVERY) -> AsyncIterator[T]:
    """Yield items; other work, heartbeats too, gets its turn after so many of them."""
    for number, item in enumerate(items, 1):
        yield item
        if number % count == 0:
            await asyncio.sleep(0)

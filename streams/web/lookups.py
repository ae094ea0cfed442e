"""Reads over all workers and the database: one session, those that are active, all that ever were."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from models.errors import Retry, Stop
from models.moments import DAY
from models.views import Place, SessionRecord, SessionView, place_of
from streams.web.cluster import Cluster
from streams.web.inputs import to_cursor
from streams.web.ports import SessionFilter, StorePort
from streams.web.rendering import Shown, show_live, show_recorded

logger = logging.getLogger(__name__)
T = TypeVar("T")

_DATABASE_PATIENCE_SECONDS = 3.0
_BATCH = 500
_MOST_BATCHES = 20


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of sessions; ``is_complete`` is False if some worker and the database could not be reached."""

    items: list[Shown]
    next_cursor: str | None
    is_complete: bool = True


class Lookups:
    """Answers reads, live where the owner answers, from the record where it does not.

    Args:
        cluster: All workers' live sessions.
        store: The database.
        now_us: The wall clock, in microseconds since the epoch.
    """

    def __init__(self, cluster: Cluster, store: StorePort, now_us: Callable[[], int]) -> None:
        self._cluster = cluster
        self._store = store
        self._now_us = now_us

    async def record(self, variant_id: str, post_id: str | None, patience_seconds: float | None = None) -> SessionRecord | None:
        """Return the record of the session posted last, or of ``post_id``; raises ``Retry`` while PostgreSQL is away."""
        return await in_time(self._store.latest(variant_id, post_id), patience_seconds or _DATABASE_PATIENCE_SECONDS)

    async def recorded(self, wanted: SessionFilter, limit: int, after: Place | None) -> list[SessionRecord]:
        """Return at most ``limit`` records, newest first; raises ``Retry`` while PostgreSQL is away."""
        return await in_time(self._store.sessions(wanted, limit, after), _DATABASE_PATIENCE_SECONDS)

    async def status(self, variant_id: str, post_id: str | None, authorization: str | None) -> Shown | None:
        """Return the session that was posted last, or that of ``post_id``, or None.

        Raises:
            Retry: Nobody who could know answers.
        """
        found = await self._cluster.find([variant_id], authorization)
        view = next((view for view in found.sessions.get(variant_id, ()) if post_id in (None, view.post_id)), None)
        now_us = self._now_us()
        # Workers forget a session a day after its deadline at the earliest, so only an older one can hide a later one that is forgotten.
        if view is not None and view.is_active and (post_id is not None or view.started_at_us > now_us - DAY):
            return show_live(view, now_us)
        try:
            record = await self.record(variant_id, post_id)
        except Retry:
            if view is None:
                raise
            return show_live(view, now_us)
        if view is None and record is None and variant_id not in found.answered:
            raise Retry("the worker that would know this variant cannot be reached")
        return _better(view, record, now_us)

    async def active(self, limit: int, after: Place | None, authorization: str | None) -> Listing:
        """Return a page of the active sessions of all workers, newest first; from the record where an owner is not reached."""
        views, covered = await self._cluster.active(limit + 1, after, authorization)
        now_us = self._now_us()
        merged: dict[Place, Shown] = {}
        missing, is_complete = self._cluster.partitions - covered, True
        if missing:
            try:
                merged = {place_of(record): show_recorded(record) for record in await self._active_records(limit + 1, after, missing)}
            except Retry as error:
                logger.warning("the list of active sessions lacks partitions %s: %s", sorted(missing), error)
                is_complete = False
        merged |= {place_of(view): show_live(view, now_us) for view in views}
        places = sorted(merged, reverse=True)
        return Listing([merged[place] for place in places[:limit]], to_cursor(places[limit - 1]) if len(places) > limit else None, is_complete)

    async def _active_records(self, limit: int, after: Place | None, partitions: frozenset[int]) -> list[SessionRecord]:
        """Return active records of these partitions, which the database does not know of, so it is asked batch by batch."""
        found: list[SessionRecord] = []
        for _ in range(_MOST_BATCHES):
            batch = await self.recorded(SessionFilter(outcome="active"), _BATCH, after)
            found += [record for record in batch if self._cluster.partition_of(record.variant_id) in partitions]
            if len(batch) < _BATCH or len(found) >= limit:
                break
            after = place_of(batch[-1])
        return found[:limit]

    async def sessions(self, wanted: SessionFilter, limit: int, after: Place | None, authorization: str | None) -> Listing:
        """Return a page of recorded sessions, newest first, with live numbers for those that are active."""
        records = await self.recorded(wanted, limit + 1, after)
        next_cursor = to_cursor(place_of(records[limit - 1])) if len(records) > limit else None
        records = records[:limit]
        found = await self._cluster.find(list(dict.fromkeys(record.variant_id for record in records if record.is_active)), authorization)
        live = {view.session_id: view for views in found.sessions.values() for view in views}
        now_us = self._now_us()
        items = [_better(live.get(record.session_id), record, now_us) for record in records]
        return Listing([item for item in items if item is not None and (wanted.outcome != "active" or item["is_active"])], next_cursor)


async def in_time(call: Awaitable[T], seconds: float) -> T:
    """Ask the database, and return in time even if the question cannot be called off at once: psycopg takes seconds over that when the server stands still.

    Raises:
        Retry: It is away, does not answer in time, or is set up wrong, which must not end what works without it.
    """
    question = asyncio.ensure_future(call)
    question.add_done_callback(lambda done: done.cancelled() or done.exception())  # or asyncio complains of one that ends late
    try:
        await asyncio.wait({question}, timeout=seconds)
        if not question.done():
            raise Retry("PostgreSQL does not answer in time")
        return question.result()
    except Stop as error:
        raise Retry(str(error)) from None
    finally:
        question.cancel()


def _better(view: SessionView | None, record: SessionRecord | None, now_us: int) -> Shown | None:
    """Show the later of two sessions; of the same one its record if that has the end, else what its owner holds."""
    if record is None or view is None:
        return show_live(view, now_us) if view is not None else show_recorded(record) if record is not None else None
    if view.session_id == record.session_id:
        return show_live(view, now_us) if record.is_active else show_recorded(record)
    return show_live(view, now_us) if place_of(view) > place_of(record) else show_recorded(record)

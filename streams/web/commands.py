"""What callers change: start monitoring, stop it, undo a kill. The first two return once every worker's status call shows it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from models.errors import NotKilled, Retry
from models.ids import session_id
from models.views import SessionView
from streams.web.cluster import Cluster
from streams.web.lookups import Lookups, in_time
from streams.web.ports import PublishPort, SessionFilter, StorePort
from streams.web.problems import Problem, unavailable
from streams.web.trail import Trail

logger = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 0.01
_LONGEST_PAUSE_SECONDS = 0.25
_MOST_POSTINGS = 500
_GLANCE_SECONDS = 1.0
"""How long a start waits for the database, which knows of nothing that the owner does not know but of sessions long over."""
_REVIVE_PATIENCE_SECONDS = 10.0
"""How long a revival waits for the database: longer than one that answers lets a statement wait for a lock and run."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks for something: the name for the trail, the token to ask other workers with, the request's id."""

    name: str
    authorization: str | None
    request_id: str


class Commands:
    """Publishes what callers want, and waits until it has taken effect.

    Args:
        cluster: All workers' live sessions.
        lookups: The database's records.
        store: The database.
        publish: Kafka.
        trail: The audit trail.
        start_seconds: Longest wait of ``start``.
        stop_seconds: Longest wait of ``stop``.
        revive_seconds: Longest wait of ``revive`` for a kill to be recorded.
    """

    def __init__(
        self,
        cluster: Cluster,
        lookups: Lookups,
        store: StorePort,
        publish: PublishPort,
        trail: Trail,
        *,
        start_seconds: float = 5.0,
        stop_seconds: float = 10.0,
        revive_seconds: float = 5.0,
    ) -> None:
        self._cluster = cluster
        self._lookups = lookups
        self._store = store
        self._revive_seconds = revive_seconds
        self._publish = publish
        self._trail = trail
        self._start_seconds = start_seconds
        self._stop_seconds = stop_seconds
        self._stopping: dict[tuple[str, str | None], asyncio.Task[None]] = {}
        self._closing = asyncio.Event()

    def close(self) -> None:
        """Let those who wait give up at once; the server is going down."""
        self._closing.set()

    async def start(self, message: dict[str, Any], asker: Asker) -> str:
        """Publish a validated ``variant_posted`` and return the session's id once every worker's status call finds it.

        Of several requests at once, at one worker or many, only the one whose record began the session is told that it did.

        Raises:
            Problem: 409 if this posting is or was monitored; 503 if it takes too long.
        """
        variant_id, post_id = message["variant_id"], message["post_id"]
        session = str(session_id(variant_id, post_id))
        try:
            async with asyncio.timeout(self._start_seconds):
                if await self._is_known(variant_id, post_id, asker):
                    raise _already(variant_id, post_id)
                offset = await self._publish.publish_posted(message)
                self._trail.note(actor=asker.name, action="start_requested", session_id=session, variant_id=variant_id, request_id=asker.request_id, facts={"post_id": post_id})
                async for _ in self._patiently():
                    view = await self._live(variant_id, post_id, asker)
                    if view is not None and _is_of_another(view, offset):
                        raise _already(variant_id, post_id)
                    if view is not None and await self._cluster.everywhere(variant_id, post_id, asker.authorization):
                        return session
        except TimeoutError:
            pass
        raise unavailable("The start was not seen to take effect in time. Repeat the request: 201 or 409 then both mean that the posting is monitored.")

    async def _live(self, variant_id: str, post_id: str, asker: Asker) -> SessionView | None:
        found = await self._cluster.find([variant_id], asker.authorization)
        return next((view for view in found.sessions.get(variant_id, ()) if view.post_id == post_id), None)

    async def _is_known(self, variant_id: str, post_id: str, asker: Asker) -> bool:
        found = await self._cluster.find([variant_id], asker.authorization)
        if any(view.post_id == post_id for view in found.sessions.get(variant_id, ())):
            return True
        try:
            return await self._lookups.record(variant_id, post_id, _GLANCE_SECONDS) is not None
        except Retry as error:
            if variant_id not in found.answered:
                raise
            # The owner remembers a session until a day after its deadline; a start need not wait for the database to rule out older ones.
            logger.warning("start without a look into the database: %s", error)
            return False

    async def stop(self, variant_id: str, post_id: str | None, asker: Asker) -> None:
        """Stop the variant's active sessions, or that of ``post_id``, and return once they have ended. Requests at the same time share one stop.

        Raises:
            Problem: 404 if nothing of it is active; 503 if it takes too long, or nobody knows.
        """
        begun = self._stopping.get((variant_id, post_id))
        if begun is not None and await self._covers(begun) and not await self._active_postings(variant_id, post_id, asker):
            return
        task = self._stopping.get((variant_id, post_id))
        if task is None:
            task = asyncio.create_task(self._stop(variant_id, post_id, asker))
            self._stopping[variant_id, post_id] = task
            task.add_done_callback(lambda _: self._stopping.pop((variant_id, post_id), None))
        await asyncio.shield(task)

    async def _covers(self, begun: asyncio.Task[None]) -> bool:
        """Wait for a stop that another request has begun; tell whether it has found something. What was posted since it looked is not stopped by it."""
        try:
            await asyncio.shield(begun)
        except Problem as problem:
            if problem.status != HTTPStatus.NOT_FOUND:
                raise
            return False
        return True

    async def _stop(self, variant_id: str, post_id: str | None, asker: Asker) -> None:
        active = await self._active_postings(variant_id, post_id, asker)
        if not active:
            raise Problem(404, f"Nothing of variant {variant_id!r} is monitored now." if post_id is None else f"Post {post_id!r} of variant {variant_id!r} is not monitored now.")
        try:
            async with asyncio.timeout(self._stop_seconds):
                for post, partition in active.items():
                    await self._publish.publish_stop(variant_id, post, partition, asker.request_id, asker.name)
                    self._trail.note(
                        actor=asker.name,
                        action="stop_requested",
                        session_id=str(session_id(variant_id, post)),
                        variant_id=variant_id,
                        request_id=asker.request_id,
                        facts={"post_id": post},
                    )
                async for _ in self._patiently():
                    found = await self._cluster.find([variant_id], asker.authorization)
                    if variant_id in found.answered and not any(view.is_active and view.post_id in active for view in found.sessions[variant_id]):
                        return
        except TimeoutError:
            pass
        raise unavailable("The stop is on its way, but was not seen to take effect in time. Repeat the request: 200 or 404 then both mean that monitoring has ended.")

    async def _active_postings(self, variant_id: str, post_id: str | None, asker: Asker) -> dict[str, int]:
        """Return what is to be stopped, and in which partition each is: where its post was published, whatever partitioner did it; the record does not say."""
        found = await self._cluster.find([variant_id], asker.authorization)
        if variant_id in found.answered:
            return {view.post_id: view.partition for view in found.sessions[variant_id] if view.is_active and post_id in (None, view.post_id)}
        records = await self._lookups.recorded(SessionFilter(variant_id=variant_id, outcome="active"), _MOST_POSTINGS, None)
        partition = self._cluster.partition_of(variant_id)
        active = {record.post_id: partition for record in records if post_id in (None, record.post_id)}
        if not active and await self._lookups.record(variant_id, post_id) is None:
            raise unavailable("The worker that would know this variant cannot be reached; repeat the request.")
        return active

    async def revive(self, variant_id: str, asker: Asker, *, is_key: bool) -> Mapping[str, Any]:
        """Undo a kill, and return what was restored; waits for one that is told of and not recorded yet. Errors as ``StorePort.revive``.

        Args:
            variant_id: The variant.
            asker: Who asks.
            is_key: The request's id is a key: asked again under it, the answer is the same.

        Raises:
            Problem: 503 if it is not recorded in time.
            Retry: The database is away, or does not answer in time; the variant may be revived all the same.
        """
        until = time.monotonic() + self._revive_seconds
        async for _ in self._patiently():
            try:
                return await in_time(self._store.revive(variant_id, actor=asker.name, request_id=asker.request_id, is_key=is_key), _REVIVE_PATIENCE_SECONDS)
            except (LookupError, NotKilled):
                if not await self._is_kill_on_its_way(variant_id, asker):
                    raise
            if time.monotonic() > until:
                break
        raise unavailable("The kill is not recorded yet, so nothing was revived; repeat the request.")

    async def _is_kill_on_its_way(self, variant_id: str, asker: Asker) -> bool:
        found = await self._cluster.find([variant_id], asker.authorization)
        killed = [view.post_id for view in found.sessions.get(variant_id, ()) if view.was_killed]
        records = [await self._lookups.record(variant_id, post_id) for post_id in killed]
        return any(record is None or record.is_active for record in records)

    async def _patiently(self) -> AsyncIterator[None]:
        """Go round until somebody stops it, with growing pauses; end early when the server goes down."""
        pause = _FIRST_PAUSE_SECONDS
        while not self._closing.is_set():
            yield
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)


def _is_of_another(view: SessionView, offset: int | None) -> bool:
    """Tell whether another record than that at ``offset`` began a session; no, where one of the two is not known."""
    return None not in (view.posted_offset, offset) and view.posted_offset != offset


def _already(variant_id: str, post_id: str) -> Problem:
    return Problem(409, f"Post {post_id!r} of variant {variant_id!r} is or was monitored.", title="Already monitoring variant")

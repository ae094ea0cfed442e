"""All workers as one: who holds a variant's sessions, and what they are now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from models.views import Place, SessionView, place_of
from streams.web.ports import LiveSessions


@dataclass(frozen=True, slots=True)
class PeerAnswer:
    """What one worker holds: the partitions it owns and has restored, and the sessions asked for."""

    partitions: frozenset[int]
    sessions: tuple[SessionView, ...]


class PeerPort(Protocol):
    """The other workers. An answer of None means that this one could not be reached in time."""

    async def lookup(self, base_url: str, variant_ids: Collection[str], authorization: str | None) -> PeerAnswer | None:
        """Ask a worker for all sessions it holds of these variants."""

    async def active(self, base_url: str, limit: int, after: Place | None, authorization: str | None) -> PeerAnswer | None:
        """Ask a worker for a page of its active sessions."""

    async def shows(self, base_url: str, variant_id: str, post_id: str, authorization: str | None) -> bool | None:
        """Say whether a worker's status call finds this session."""


@dataclass(slots=True)
class Found:
    """The live sessions of some variants, and the variants whose owner answered."""

    sessions: dict[str, list[SessionView]] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)


class Cluster:
    """Reads that give the same answer whichever worker is asked.

    Args:
        live: This worker's own sessions, and who owns the rest.
        peers: How to ask the others.
        own_url: This worker's own base URL among ``live.peers()``.
        partition_of: The partition of a variant.
        partitions: How many there are.
    """

    def __init__(self, live: LiveSessions, peers: PeerPort, own_url: str, partition_of: Callable[[str], int], partitions: int) -> None:
        self._live = live
        self._peers = peers
        self._own_url = own_url.rstrip("/")
        self.partition_of = partition_of
        self.partitions = frozenset(range(partitions))

    def owned(self) -> frozenset[int]:
        """Return the partitions that this worker owns and has restored."""
        return frozenset() if self._live.is_recovering() else frozenset(self._live.assigned())

    def own_lookup(self, variant_ids: Iterable[str]) -> PeerAnswer:
        """Answer ``PeerPort.lookup`` for this worker."""
        return PeerAnswer(self.owned(), tuple(view for variant_id in variant_ids for view in self._live.sessions_of(variant_id)))

    def own_active(self, limit: int, after: Place | None) -> PeerAnswer:
        """Answer ``PeerPort.active`` for this worker."""
        return PeerAnswer(self.owned(), tuple(self._live.active(limit, after)))

    def others(self) -> list[str]:
        """Return the base URLs of the other workers."""
        return [url for url in dict.fromkeys(url.rstrip("/") for url in self._live.peers()) if url != self._own_url]

    async def find(self, variant_ids: Collection[str], authorization: str | None) -> Found:
        """Ask the owners, then whoever may own them by now, for all sessions of these variants, posted last first."""
        found = Found()
        self._take(found, self.own_lookup(variant_ids), variant_ids)
        owners = {partition: url.rstrip("/") for partition, url in self._live.owners().items()}
        by_owner: dict[str, list[str]] = {}
        for variant_id in variant_ids:
            owner = owners.get(self.partition_of(variant_id), self._own_url)
            if variant_id not in found.answered and owner != self._own_url:
                by_owner.setdefault(owner, []).append(variant_id)
        await self._ask(found, by_owner, authorization)
        left = [variant_id for variant_id in variant_ids if variant_id not in found.answered]
        if left:
            await self._ask(found, {url: [v for v in left if v not in by_owner.get(url, ())] for url in self.others()}, authorization)
        return found

    async def _ask(self, found: Found, questions: dict[str, list[str]], authorization: str | None) -> None:
        asked = [(url, variant_ids) for url, variant_ids in questions.items() if variant_ids]
        answers = await asyncio.gather(*(self._peers.lookup(url, variant_ids, authorization) for url, variant_ids in asked))
        for (_, variant_ids), answer in zip(asked, answers, strict=True):
            if answer is not None:
                self._take(found, answer, variant_ids)

    def _take(self, found: Found, answer: PeerAnswer, variant_ids: Iterable[str]) -> None:
        for variant_id in variant_ids:
            if variant_id not in found.answered and self.partition_of(variant_id) in answer.partitions:
                found.answered.add(variant_id)
                found.sessions[variant_id] = sorted((view for view in answer.sessions if view.variant_id == variant_id), key=place_of, reverse=True)

    async def active(self, limit: int, after: Place | None, authorization: str | None) -> tuple[list[SessionView], frozenset[int]]:
        """Return at most ``limit`` active sessions of all workers, newest first, and the partitions whose owner answered."""
        answers = [self.own_active(limit, after)]
        answers += [answer for answer in await asyncio.gather(*(self._peers.active(url, limit, after, authorization) for url in self.others())) if answer is not None]
        merged = {view.session_id: view for answer in answers for view in answer.sessions if self.partition_of(view.variant_id) in answer.partitions}
        covered = frozenset[int]().union(*(answer.partitions for answer in answers))
        return sorted(merged.values(), key=place_of, reverse=True)[:limit], covered

    async def everywhere(self, variant_id: str, post_id: str, authorization: str | None) -> bool:
        """Say whether the status call of every other worker that can be reached finds this session."""
        answers = await asyncio.gather(*(self._peers.shows(url, variant_id, post_id, authorization) for url in self.others()))
        return all(answer is not False for answer in answers)

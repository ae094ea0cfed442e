"""The safeguards of the system, each with a way to take it out: the simulation has to notice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

import streams.restoring
from models import duplicates
from models.monitor import PartitionMonitor
from models.session import Outcome, Session
from models.state import decode_session
from models.waiting import Waiter, Waiting
from streams.changelog import Changelog
from streams.monitoring import Monitoring
from streams.partition import PartitionWorker
from streams.tables import CLAIM, Recovered
from tests.simulation.history import Shape

Patch = pytest.MonkeyPatch


def without_offset_guard(patch: Patch) -> None:
    """Records that are delivered again are folded again."""

    def decode(value: bytes, segment: Callable[[Session, int], bytes | None]) -> Session:
        session = decode_session(value, segment)
        session.applied = -1
        return session

    patch.setattr(streams.restoring, "decode_session", decode)


def without_repetition(patch: Patch) -> None:
    """What an earlier process may not have told is not told again."""
    restore = PartitionMonitor.restore

    def forgetful(self: PartitionMonitor, sessions: Iterable[Session], waiters: Iterable[Waiter]) -> None:
        restore(self, sessions, waiters)
        self.emissions.clear()

    patch.setattr(PartitionMonitor, "restore", forgetful)


class _Hasty:
    """A log whose acknowledgements nobody waits for."""

    def __init__(self, log: Any) -> None:
        self.send, self.send_all, self.course, self.place, self.read = log.send, log.send_all, log.course, log.place, log.read

    async def delivered(self, _sent: Any) -> bool:
        return True


def without_awaited_sends(patch: Patch) -> None:
    """Kills and records count as told while they are still on their way."""
    tell = PartitionWorker._tell

    async def hasty_tell(self: PartitionWorker, emissions: list[Any]) -> None:
        log, self._log = self._log, self._log if isinstance(self._log, _Hasty) else _Hasty(self._log)
        try:
            await tell(self, emissions)
        finally:
            self._log = log

    patch.setattr(PartitionWorker, "_tell", hasty_tell)


def without_waiting_for_the_changelog(patch: Patch) -> None:
    """Records are done while the states they have changed are still on their way."""

    async def delivered(_self: Changelog, _ticket: Any) -> bool:
        return True

    patch.setattr(Changelog, "delivered", delivered)


def without_latch(patch: Patch) -> None:
    """Ends are told before they are durable."""

    async def latch(worker: PartitionWorker) -> None:
        ends, worker._latching, worker._is_latching = worker._latching, [], False
        await worker._tell(ends)

    patch.setattr(PartitionWorker, "_latch", latch)


def without_latch_for_time_outs(patch: Patch) -> None:
    """A stop that is read again after a crash comes before the time-out that was told."""
    _tell_at_once(patch, Outcome.TIMED_OUT)


def without_latch_for_kills(patch: Patch) -> None:
    """A kill is decided again after a crash, and told with another moment."""
    _tell_at_once(patch, Outcome.KILLED)


def _tell_at_once(patch: Patch, outcome: Outcome) -> None:
    latch = PartitionWorker._latch

    async def tell(worker: PartitionWorker) -> None:
        hasty = [emission for emission in worker._latching if emission.session.end.outcome is outcome]  # type: ignore[union-attr] # it has ended
        worker._latching = [emission for emission in worker._latching if emission not in hasty]
        await worker._tell(hasty)
        await latch(worker)

    patch.setattr(PartitionWorker, "_latch", tell)


def without_order_of_topics(patch: Patch) -> None:
    """Stops wait neither for the interactions nor for posts, nor interactions for these."""

    def may_fetch(self: Monitoring, tp: Any) -> bool:
        return tp.partition in self._owned

    async def posts_are_folded(_self: Monitoring, _owned: Any) -> bool:
        return True

    patch.setattr(Monitoring, "may_fetch", may_fetch)
    patch.setattr(Monitoring, "_posts_are_folded", posts_are_folded)


def without_waiting_for_the_backlog(patch: Patch) -> None:
    """Deadlines pass as soon as the clock says so."""
    tick = PartitionMonitor.tick

    def impatient(self: PartitionMonitor, _read_through: int, now: int, limit: int = 1_000) -> bool:
        return tick(self, now, now, limit)

    patch.setattr(PartitionMonitor, "tick", impatient)


def without_duplicate_ids(patch: Patch) -> None:
    """An event id counts as often as it comes."""
    patch.setattr(duplicates.EventIds, "reserve", lambda _self, _event_id: True)


def without_segments_of_waiters(patch: Patch) -> None:
    """Waiting records are done without being durable."""
    patch.setattr(Waiting, "changed_segments", lambda _self: [])


def without_generations(patch: Patch) -> None:
    """Whatever stands last in a changelog counts, whoever has written it."""

    def is_next(self: Recovered, headers: list[tuple[str, bytes]]) -> bool:
        self.furthest = max(self.furthest, next((int(value) for _, value in headers), 0))
        return True

    patch.setattr(Recovered, "_is_next", is_next)


def without_claims(patch: Patch) -> None:
    """A new owner does not look at what has arrived since it asked for the end of a changelog."""

    async def claimed(self: Changelog) -> None:
        self._first = self._generation = self._recovered.furthest + 1
        await self._log.delivered(await self._log.send_all(self.topic, self._partition, [(CLAIM, None)], self._headers))

    patch.setattr(Changelog, "_claimed", claimed)


def without_claiming_again(patch: Patch) -> None:
    """What a failed producer had handed to the network counts, wherever it arrives."""

    async def send(self: Changelog, records: Iterable[tuple[bytes, bytes | None]]) -> Any:
        records = list(records)
        async with self._sending:
            return self._ticket(await self._log.send_all(self.topic, self._partition, records, self._headers), len(records))

    patch.setattr(Changelog, "send", send)


def without_looking_for_gaps(patch: Patch) -> None:
    """Nobody notices that somebody else writes to its changelogs."""
    patch.setattr(Changelog, "_overtaken", lambda _self, _expected, _found: None)


def without_looking_at_quiet_changelogs(patch: Patch) -> None:
    """What another has written to a changelog is noticed only by who writes to it, and by then compaction may have taken what it hides."""
    patch.setattr(Changelog, "look", lambda _self, _end: None)


def without_writing_again(patch: Patch) -> None:
    """What strays stand in front of is left to compaction."""
    claim = Changelog.claim

    async def idle(self: Changelog) -> None:
        self._recovered.hidden.clear()
        await claim(self)

    patch.setattr(Changelog, "claim", idle)


@dataclass(frozen=True, slots=True)
class Safeguard:
    """One safeguard: how to take it out, and the histories in which that has to be noticed."""

    take_out: Callable[[Patch], None]
    shape: Shape

    @property
    def name(self) -> str:
        """What is taken out, in words."""
        return self.take_out.__name__.replace("_", " ")


SAFEGUARDS: Sequence[Safeguard] = (
    Safeguard(without_offset_guard, Shape()),
    Safeguard(without_awaited_sends, Shape()),
    Safeguard(without_repetition, Shape()),
    Safeguard(without_waiting_for_the_changelog, Shape()),
    Safeguard(without_latch, Shape(stops=True, anonymous=0.4)),
    Safeguard(without_latch_for_time_outs, Shape(stops=True)),
    Safeguard(without_latch_for_kills, Shape()),
    Safeguard(without_order_of_topics, Shape(stops=True)),
    Safeguard(without_waiting_for_the_backlog, Shape()),
    Safeguard(without_duplicate_ids, Shape()),
    Safeguard(without_segments_of_waiters, Shape()),
    Safeguard(without_generations, Shape(stops=True, strays=True)),
    Safeguard(without_claims, Shape(stops=True, strays=True)),
    Safeguard(without_claiming_again, Shape(stops=True, strays=True)),
    Safeguard(without_looking_for_gaps, Shape(stops=True, strays=True)),
    Safeguard(without_looking_at_quiet_changelogs, Shape(stops=True, strays=True, quiet=1.0)),
    Safeguard(without_writing_again, Shape(stops=True, strays=True)),
)

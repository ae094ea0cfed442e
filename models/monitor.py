"""The monitoring of one partition: records and moments in, emissions out. Pure: no clock, no Kafka, no asyncio."""

from __future__ import annotations

import heapq
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from models.arrival import Arrival, Resolved
from models.events import Interaction, Posting, Stop
from models.moments import MINUTE, SECOND
from models.policy import STOP_REASON
from models.session import End, Origin, Outcome, Result, Session
from models.sessions import Sessions
from models.waiting import Waiter, Waiting


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the contract, in microseconds and counts.

    Attributes:
        grace: How long after a deadline an interaction may still be appended.
        wait: How long an interaction waits for its ``variant_posted``, counted from its append time.
    """

    grace: int = 5 * SECOND
    wait: int = 10 * MINUTE


@dataclass(frozen=True, slots=True)
class Started:
    """Tell that a session has started."""

    session: Session


@dataclass(frozen=True, slots=True)
class Ended:
    """Tell that a session has ended, once its state is durable."""

    session: Session


@dataclass(frozen=True, slots=True)
class Rejected:
    """Put a record into the dead letters: of ``topic``, at ``offset``, appended at ``append_us``."""

    topic: str
    offset: int
    append_us: int
    key: bytes | None
    value: bytes | None
    reason: str


Emission = Started | Ended | Rejected


@dataclass(slots=True)
class PartitionMonitor:
    """All sessions of one partition.

    Attributes:
        position: Highest offset of ``interaction`` that has been folded, by this process or, before the last commit, by another.
        emissions: What has to be told since ``take_emissions``.
        changed: Sessions whose state has changed since ``take_changes``.
        deleted: Sessions that were forgotten since ``take_changes``.
        wants_flush: A variant has a new session, and an older one whose window has moments of its: what that one took has to be durable
            before records without ``post_id`` are folded again. Source: contract, section 3.1.
        active_count: How many sessions have no end.
        untold: Those, and the ones whose end nobody may know of yet (``Session.told_end``): what is shown as active. Most sessions held are of the day that is past.
        event_ids: How many event ids active sessions remember, as of when their states were last taken to be written.
        resolved: How many waiting records got which result in the end, since ``take_resolved``.
        at_once: So many waiting interactions get into a new session with its post; with more it stays ``arriving``.
        arriving: A session that has not got all of its waiting interactions. Until ``go_on_arriving`` has brought it in nothing else may be folded, ticked or pushed out.
    """

    partition: int
    limits: Limits = field(default_factory=Limits)
    interaction_topic: str = "interaction"
    control_topic: str = "monitoring_control"
    posted_topic: str = "variant_posted"
    position: int = -1
    sessions: Sessions = field(default_factory=Sessions)
    waiting: Waiting = field(default_factory=Waiting)
    emissions: list[Emission] = field(default_factory=list)
    changed: list[Session] = field(default_factory=list)
    deleted: list[Session] = field(default_factory=list)
    wants_flush: bool = False
    active_count: int = 0
    untold: set[Session] = field(default_factory=set)
    event_ids: int = 0
    resolved: Counter[Resolved] = field(default_factory=Counter)
    at_once: int = sys.maxsize
    arriving: Arrival | None = None
    _deadlines: list[tuple[int, int, Session]] = field(default_factory=list)
    _ended: list[tuple[int, int, Session]] = field(default_factory=list)

    # -- records -----------------------------------------------------------------------------------------------------

    def post(self, posting: Posting, offset: int, append_us: int, key: bytes | None, value: bytes | None, now: int) -> Result:
        """Fold one ``variant_posted``: start its session, with the interactions that waited for it, in order of arrival; then look at ``arriving``."""
        known = self.sessions.find(posting.variant_id, posting.post_id)
        if known is not None:
            return Result.REDELIVERED if offset <= known.posted_offset else Result.DUPLICATE
        siblings = self.sessions.of(posting.variant_id)
        floor = max([self.position, *(session.applied for session in siblings)])
        session = Session.start(posting, offset, self.position, floor)
        if append_us > session.forget_at:
            self.emissions.append(Rejected(self.posted_topic, offset, append_us, key, value, "posted more than a day after its own deadline"))
            return Result.DEAD_LETTER
        arriving = Arrival(session, self.waiting.find(posting.variant_id, lambda waiter: _belongs(waiter.event, session)))
        self.arriving = None if self._advance(arriving, now) else arriving
        return Result.COUNTED

    def go_on_arriving(self, now: int) -> None:
        """Give the session that is ``arriving`` the next ``at_once`` of its waiting interactions; after the last it is like any other."""
        if self.arriving is not None and self._advance(self.arriving, now):
            self.arriving = None

    def _advance(self, arriving: Arrival, now: int) -> bool:
        """Apply the next part; once all are applied take the session in, tell of it, and return True."""
        session = arriving.session
        if not arriving.apply(self.at_once, self.interaction_topic, self.partition, now, self.limits.grace):
            return False
        self.waiting.remove(arriving.waiters)
        self.resolved.update(arriving.resolved)
        self.wants_flush = self.wants_flush or any(session.shares_moments_with(sibling) for sibling in self.sessions.of(session.variant_id))
        self._take_in(session)
        self.note_change(session)
        return True

    def interact(self, event: Interaction, offset: int, append_us: int, key: bytes | None, value: bytes | None, now: int) -> Result:
        """Fold one ``interaction``. ``key`` and ``value`` are the record's, as they came; moments in microseconds."""
        if offset > self.position:  # noqa: PLR1730 - max() would cost every record a call
            self.position = offset
        if event.post_id is not None:
            session = self.sessions.find(event.variant_id, event.post_id)
        else:
            session = _latest_holding(self.sessions.of(event.variant_id), event.occurred_at, offset)
        if session is None:
            return self._wait(event, offset, append_us, key, value)
        if offset <= session.applied:
            return Result.REDELIVERED
        return self._count(session, event, offset, append_us, now)

    def stop(self, stop: Stop, offset: int, append_us: int, now: int) -> Result:
        """Fold one stop: it ends the active sessions it names, at its append time. One whose time was over by then has timed out, whoever was there to say so."""
        stopped = False
        for session in self.sessions.of(stop.variant_id):
            if session.end is None and append_us < session.deadline + self.limits.grace and stop.post_id in (None, session.post_id):
                origin = Origin(self.control_topic, self.partition, offset, append_us)
                self._finish(session, End(Outcome.STOPPED, STOP_REASON, append_us, now, origin, "stopped", stop.request))
                stopped = True
        return Result.COUNTED if stopped else Result.AFTER_END

    def reject(self, topic: str, offset: int, append_us: int, key: bytes | None, value: bytes | None, reason: str) -> Result:
        """Put aside a record that cannot be used."""
        if topic == self.interaction_topic and offset > self.position:
            self.position = offset
        self.emissions.append(Rejected(topic, offset, append_us, key, value, reason))
        return Result.DEAD_LETTER

    # -- time --------------------------------------------------------------------------------------------------------

    def tick(self, read_through: int, now: int, limit: int = 1_000) -> bool:
        """Do what is due once everything appended before ``read_through``, on every topic of the partition, has been folded.

        Args:
            read_through: Microseconds since the epoch, on the broker's clock.
            now: Wall clock.
            limit: Most deadlines, and then most waiting records, to look at in this call.

        Returns:
            True if there may be more to do: call again.
        """
        done = 0
        while done < limit and self._deadlines and self._deadlines[0][0] + self.limits.grace <= read_through:
            session = heapq.heappop(self._deadlines)[2]
            if session.end is None:
                self._finish(session, End(Outcome.TIMED_OUT, session.policy.timeout_reason, session.deadline, now, None, "expired"))
                done += 1
        for waiter in self.waiting.expired(read_through):
            if waiter is not None:
                self._give_up(waiter)
            done += 1
            if done >= limit:
                break
        return self.waiting.sweep(limit) or done >= limit

    def forget(self, committed_through: int, limit: int = 1_000) -> bool:
        """Drop ended sessions that nothing can refer to any more.

        Args:
            committed_through: Everything appended before this moment has been folded, its effects are durable, and its
                offsets are committed, so that it cannot be delivered again.
            limit: Most sessions to drop in this call.

        Returns:
            True if there may be more to do: call again.
        """
        done = 0
        while done < limit and self._ended and self._ended[0][0] < committed_through:
            session = self._ended[0][2]
            if session.end_pending or session.start_pending:
                break
            heapq.heappop(self._ended)
            self.sessions.remove(session)
            self.untold.discard(session)
            session.is_changed = False
            self.deleted.append(session)
            done += 1
        return done >= limit

    def push_out(self, count: int) -> None:
        """Give up the ``count`` waiting interactions whose wait would end first."""
        for _ in range(count):
            waiter = self.waiting.pushed_out()
            if waiter is None:
                return
            self._give_up(waiter)

    # -- what follows ------------------------------------------------------------------------------------------------

    def take_emissions(self) -> list[Emission]:
        """Return what has to be told, in order, and forget it."""
        emissions, self.emissions = self.emissions, []
        return emissions

    def take_resolved(self) -> Counter[Resolved]:
        """Return how many waiting records have got which result, and forget it."""
        resolved, self.resolved = self.resolved, Counter()
        return resolved

    def take_changes(self) -> tuple[list[Session], list[Session]]:
        """Return the sessions whose state is to be written, and those whose state is to be deleted, and forget both."""
        changed, deleted = [session for session in self.changed if session.is_changed], self.deleted
        self.changed, self.deleted = [], []
        for session in changed:
            session.is_changed = False
        return changed, deleted

    def note_change(self, session: Session) -> None:
        """Have the state of ``session`` written with the next ``take_changes``."""
        if not session.is_changed:
            session.is_changed = True
            self.changed.append(session)

    def latched(self, session: Session) -> None:
        """Learn that the end of ``session`` is durable: from now on everybody may know of it."""
        session.is_end_durable = True
        self.untold.discard(session)

    def acknowledged(self, emission: Started | Ended) -> None:
        """Learn that an emission has arrived: it need not come again after a crash."""
        session = emission.session
        if isinstance(emission, Started):
            session.start_pending = False
        else:
            session.end_pending = False
        self.note_change(session)

    def restore(self, sessions: Iterable[Session], waiters: Iterable[Waiter]) -> None:
        """Take over what an earlier process left; what it may not have told is emitted again."""
        for session in sessions:
            self._take_in(session)
        for waiter in waiters:
            if waiter.offset > self.position:
                # It is delivered again, as is what had come before it. Taken from here it would overtake those: segments do not become durable in order.
                self.waiting.leave_out(waiter)
                continue
            self.waiting.add(waiter)
            # Whoever was to have it has taken it: its segment is deleted only after the session's state is written.
            if any(_belongs(waiter.event, session) for session in self.sessions.of(waiter.event.variant_id)):
                self.waiting.remove((waiter,))

    def _take_in(self, session: Session) -> None:
        """Hold a session, new or restored, and tell what nobody may know of it yet."""
        self.sessions.add(session)
        if session.event_ids is not None:
            self.event_ids += session.event_ids.growth()
        if session.told_end is None:
            self.untold.add(session)
        if session.end is None:
            self.active_count += 1
            heapq.heappush(self._deadlines, (session.deadline, session.posted_offset, session))
        else:
            heapq.heappush(self._ended, (session.forget_at, session.posted_offset, session))
        if session.start_pending:
            self.emissions.append(Started(session))
        if session.end_pending:
            self.emissions.append(Ended(session))

    def _count(self, session: Session, event: Interaction, offset: int, append_us: int, now: int) -> Result:
        result = session.count(event, offset, append_us, self.interaction_topic, self.partition, now, self.limits.grace)
        if result is Result.COUNTED:
            self.note_change(session)
            if session.end is not None:  # it was active, or the event would not have counted
                self.announce_end(session)
        return result

    def _finish(self, session: Session, end: End) -> None:
        session.finish(end)
        self.note_change(session)
        self.announce_end(session)

    def announce_end(self, session: Session) -> None:
        """Tell that a session has just ended."""
        self.active_count -= 1
        heapq.heappush(self._ended, (session.forget_at, session.posted_offset, session))
        self.emissions.append(Ended(session))

    def _wait(self, event: Interaction, offset: int, append_us: int, key: bytes | None, value: bytes | None) -> Result:
        if self.waiting.holds(offset):
            return Result.REDELIVERED
        self.waiting.add(Waiter(event, offset, append_us, key or b"", value or b"", append_us + self.limits.wait))
        return Result.WAITING

    def _give_up(self, waiter: Waiter) -> None:
        siblings = self.sessions.of(waiter.event.variant_id)
        if siblings and waiter.event.post_id is None:
            earliest = min(session.posted_at for session in siblings)
            self.resolved[Result.EARLY if waiter.event.occurred_at < earliest else Result.LATE, waiter.restored] += 1
            return
        self.resolved[Result.DEAD_LETTER, waiter.restored] += 1
        self.emissions.append(Rejected(self.interaction_topic, waiter.offset, waiter.append_us, waiter.key, waiter.value, "no post"))


def _belongs(event: Interaction, session: Session) -> bool:
    """Tell whether a waiting ``event`` was waiting for ``session``."""
    return event.post_id == session.post_id if event.post_id is not None else session.holds(event.occurred_at)


def _latest_holding(siblings: Iterable[Session], moment: int, offset: int) -> Session | None:
    """Find whose an interaction without ``post_id`` is.

    It belongs to the session posted last whose window holds ``moment``, among those that were there when its record was
    first read (``floor``). Only if none of these holds it, it had been waiting, and went to the first that came later.
    """
    best: Session | None = None
    best_rank = (False, 0, "")
    for session in siblings:
        if session.holds(moment):
            rank = _claim(session, offset)
            if best is None or rank > best_rank:
                best, best_rank = session, rank
    return best


def _claim(session: Session, offset: int) -> tuple[bool, int, str]:
    was_there = session.floor < offset
    return (was_there, session.posted_at if was_there else -session.posted_offset, session.post_id)

"""One partition at work: records are folded, what follows is told, state is made durable, and only then are records done.

The order that makes it right (docs/adr):

1. An end is *latched*: its session's state is durable before it is sent. So is it also where a worker does not know that it
   has lost its partition, and would decide otherwise than its successor: that one's state is the one that counts.
   A start is sent as soon as it is decided; deciding it again gives the same.
2. A state says which of its emissions are not known to have arrived; they are sent again after a restore. So the state may
   be written before the acknowledgement is there.
3. A chunk of records is done once the state they changed, and the dead letters they became, are acknowledged.

A crash anywhere leaves either nothing or a repetition with the same ids.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from models.announcement import end_record, kill_event, start_record
from models.duplicates import SEGMENT_LIMIT
from models.moments import SECOND
from models.monitor import Ended, PartitionMonitor, Rejected, Started
from models.policy import Defaults
from models.session import Outcome, Session
from models.state import encode_session, encode_waiters, seal_event_ids
from models.waiting import Waiter
from streams.changelog import Changelog, Changelogs
from streams.codec import dead_letter, encode_json, microseconds
from streams.crash_points import crash_point
from streams.folding import FOLDS
from streams.ports import Done, Incoming, Log, Observer, Tables, Topics

FOLD_SLICE = 300
"""Records folded before other work gets its turn: a kill has to wait for dozens of turns, and each may be as long as folding so many takes, at 3 us each."""
SLICE, LARGEST_SLICE = 100, 500
"""Likewise values written to a table, or records sent: the end of a session waits for one slice of a flush at most, not for all of it."""
SLICES = 50
"""More values than so many slices hold are cut into larger ones, up to the largest: each slice is acknowledged before the next is sent."""
WAITERS_AT_ONCE = 300
"""Waiting interactions that a new session gets before other work gets its turn, at 3 to 15 us each: there may be a million."""
PUSHED_OUT_AT_ONCE = 1_000
"""Waiting interactions that are given up before other work gets its turn."""

T = TypeVar("T")


class PartitionWorker:
    """Drives one ``PartitionMonitor``; lives from an assignment to its revocation.

    Args:
        turn: Shared by the partitions of a worker: one of them folds a slice, then all other work gets its turn, then the next.
    """

    def __init__(
        self,
        monitor: PartitionMonitor,
        *,
        log: Log,
        tables: Tables,
        changelogs: Changelogs,
        topics: Topics,
        defaults: Defaults,
        observer: Observer,
        clock: Callable[[], int],
        turn: asyncio.Lock,
    ) -> None:
        self.monitor = monitor
        self.is_closed = False
        self._log, self._tables, self._topics, self._defaults, self._observer, self._clock = log, tables, topics, defaults, observer, clock
        self._changelogs = changelogs
        self._folded: list[Done] = []
        self._dead_letters: list[Rejected] = []
        self._being_buried: list[Rejected] = []
        self._unused: list[bytes] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._latching: list[Ended] = []
        self._is_latching = False
        self._folding, self._turn = asyncio.Lock(), turn
        self._flushing = asyncio.Lock()
        self._ordering = asyncio.Lock()
        self._burying = asyncio.Lock()
        self._kill_appended: dict[int, int] = {}  # id(session) -> append time of its deciding event

    # -- folding -----------------------------------------------------------------------------------------------------

    async def fold(self, topic: str, records: Sequence[Incoming], done: Done) -> None:
        """Fold the records of a chunk, in order. They are done after a later ``flush``."""
        fold = FOLDS[self._topics.sources.index(topic)]
        crash_point("after_read")
        async with self._folding:
            at = 0
            while at < len(records):
                await self._let_arrive()
                part = records[at : self._end_of_turn(topic, records, at)]
                at += len(part)
                async with self._turn:
                    if self.is_closed:
                        return
                    now = self._clock()
                    self._observer.folded(topic, len(part), fold(self.monitor, topic, part, self._defaults, now))
                    self._follow(topic, part)
                    await asyncio.sleep(0)
            await self._let_arrive()
            if self.is_closed:
                return
            self._folded.append(done)
            crash_point("after_fold")
            if self.monitor.wants_flush:
                self.monitor.wants_flush = False
                await asyncio.shield(self.flush())  # its lane may be closed; half a flush must not be followed by another

    def _end_of_turn(self, topic: str, records: Sequence[Incoming], start: int) -> int:
        """Return up to where to fold in one turn: not past posts that many wait for, since a session that is arriving has to be the last."""
        end = min(start + FOLD_SLICE, len(records))
        left = self.monitor.at_once
        if topic == self._topics.variant_posted and self.monitor.waiting.count > left:
            for at in range(start, end):
                left -= self.monitor.waiting.count_of((records[at].key or b"").decode(errors="replace"))
                if left < 0:
                    return at + 1
        return end

    async def _let_arrive(self) -> None:
        """Bring in the session that is arriving, if one is; other work gets its turn in between."""
        while self.monitor.arriving is not None and not self.is_closed:
            async with self._turn:
                if not self.is_closed:
                    self.monitor.go_on_arriving(self._clock())
                    self._follow()
                    await asyncio.sleep(0)

    @property
    def _is_unmoved(self) -> bool:
        """Whether nothing but what is folded may touch the monitor now."""
        return self.is_closed or self.monitor.arriving is not None

    async def tick(self, read_through: int, committed_through: int) -> None:
        """Do what is due; arguments as in ``PartitionMonitor.tick`` and ``forget``. Nothing while a session is arriving: the next look will do."""
        more = True
        while more and not self._is_unmoved:
            more = self.monitor.tick(read_through, self._clock()) | self.monitor.forget(committed_through)
            self._follow()
            await asyncio.sleep(0)

    def look(self, ends: Mapping[str, int]) -> None:
        """Compare where the changelogs end, by topic, with what was written; raises ``Overtaken`` if somebody else has."""
        for changelog in self._changelogs:
            if changelog.topic in ends:
                changelog.look(ends[changelog.topic])

    async def push_out(self, count: int) -> None:
        """Give up ``count`` waiting interactions, to make room; other work gets its turn in between. None while a session is arriving: it makes room itself."""
        while count > 0 and not self._is_unmoved:
            self.monitor.push_out(min(count, PUSHED_OUT_AT_ONCE))
            self._follow()
            count -= PUSHED_OUT_AT_ONCE
            await asyncio.sleep(0)

    def resume(self, unused: Sequence[bytes] = ()) -> None:
        """Tell again what an earlier process may not have told; its state is durable already.

        Args:
            unused: Keys of segments of event ids that no state counts on: written just before a crash. The next flush deletes them.
        """
        self._unused = list(unused)
        self._announce([emission for emission in self.monitor.take_emissions() if not isinstance(emission, Rejected)], durable=True)

    def _follow(self, topic: str = "", folded: Sequence[Incoming] = ()) -> None:
        for (result, restored), count in self.monitor.take_resolved().items():
            self._observer.resolved(result, count, restored=restored)
        emissions = self.monitor.take_emissions()
        if not emissions:
            return
        news: list[Started | Ended] = []
        for emission in emissions:
            match emission:
                case Rejected():
                    self._dead_letters.append(emission)
                case Started():
                    self._observer.started()
                    news.append(emission)
                case Ended(session):
                    self._count_end(session, topic, folded)
                    news.append(emission)
        self._announce(news, durable=False)

    def _count_end(self, session: Session, topic: str, folded: Sequence[Incoming]) -> None:
        end = session.end
        if end is None:
            return
        self._observer.ended(end.outcome.value, end.label, (end.ended_at - session.posted_at) / SECOND, session.counts.rate)
        if end.outcome is Outcome.KILLED and end.origin is not None and end.origin.topic == topic:  # not out of those that waited for their post
            for record in folded:
                if record.offset == end.origin.offset:
                    self._kill_appended[id(session)] = microseconds(record.timestamp)

    async def _send_dead_letter(self, rejected: Rejected) -> Any:
        key, value = dead_letter(rejected.topic, self.monitor.partition, rejected.offset, rejected.append_us, rejected.key, rejected.value, rejected.reason, self._clock())
        return await self._log.send(self._topics.dead_letter, key, value)

    # -- telling -----------------------------------------------------------------------------------------------------

    def _announce(self, emissions: Iterable[Started | Ended], *, durable: bool) -> None:
        """Send starts and ends in the background; ends only once their state is durable."""
        at_once: list[Started | Ended] = []
        latched: list[Ended] = []
        for emission in emissions:
            if durable or isinstance(emission, Started):
                at_once.append(emission)
            else:
                latched.append(emission)
        if at_once:
            self._spawn(self._tell(at_once))
        if latched:
            self._latching += latched
            if not self._is_latching:
                self._is_latching = True
                self._spawn(self._latch())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._failure = task.exception()

    async def _latch(self) -> None:
        """Make ends durable and let them be told; those that come while one write is under way go together in the next."""
        while self._latching and not self.is_closed:
            emissions, self._latching = self._latching, []
            await self._bury_of({emission.session.variant_id.encode() for emission in emissions})
            await self._write_states([emission.session for emission in emissions])
            crash_point("after_latch")
            if self.is_closed:
                return
            for emission in emissions:
                self.monitor.latched(emission.session)
            self._spawn(self._tell(emissions))
        self._is_latching = False

    async def _tell(self, emissions: Sequence[Started | Ended]) -> None:
        for start in range(0, len(emissions), SLICE):
            part = [(emission, self._messages(emission)) for emission in emissions[start : start + SLICE]]
            sent = [(emission, [(message, await self._log.send(*message)) for message in messages]) for emission, messages in part]
            crash_point("after_send")
            for emission, messages in sent:
                for message, ticket in messages:
                    while not await self._log.delivered(ticket):
                        ticket = await self._log.send(*message)  # noqa: PLW2901 - the same message again
                if isinstance(emission, Ended):
                    crash_point("after_end_ack")
                    appended = self._kill_appended.pop(id(emission.session), 0)
                    if appended:
                        self._observer.evaluated((self._clock() - appended) / SECOND)
                self.monitor.acknowledged(emission)

    def _messages(self, emission: Started | Ended) -> list[tuple[str, bytes, bytes, int]]:
        session, partition = emission.session, self.monitor.partition
        key = session.variant_id.encode()
        if isinstance(emission, Started):
            return [(self._topics.monitoring_record, key, start_record(session).to_bytes(), partition)]
        messages = [(self._topics.monitoring_record, key, end_record(session).to_bytes(), partition)]
        if session.end is not None and session.end.outcome is Outcome.KILLED:
            crash_point("before_kill_send")
            messages.insert(0, (self._topics.variant_killed, key, encode_json(kill_event(session)), partition))
        return messages

    # -- making durable ----------------------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Make what has been folded so far durable, then say that its records are done.

        Raises what made a background task fail, for nothing may be acknowledged after that.
        """
        async with self._flushing:
            if self._failure is not None:
                raise self._failure
            began, done = self._clock(), self._folded
            self._folded = []
            letters, self._dead_letters = self._dead_letters, []
            # All at one moment: a waiting record that is given up from here on leaves its segment after its letter, not before.
            sessions, deleted = self.monitor.take_changes()
            segments = self.monitor.waiting.changed_segments()
            unused, self._unused = self._unused, []
            if not (done or letters or sessions or deleted or segments or unused):
                return
            async with self._burying:
                self._being_buried = letters
                await self._bury(letters)
                self._being_buried = []
            if letters:
                crash_point("after_dead_letters")
            await self._write(self._changelogs.event_id, [(key, None) for key in unused])
            await self._write_sessions(sessions)
            if sessions:
                crash_point("after_state_write")
            await self._delete_states(deleted)
            for part in _slices(segments):
                await self._write_slice(self._changelogs.waiting, [self._waiting_segment(*segment) for segment in part])
            if self.is_closed:
                return
            if done:
                _acknowledge(done)
            if sessions or deleted or segments:
                self._observer.flushed((self._clock() - began) / SECOND, {"engagement": len(sessions) + len(deleted), "waiting": len(segments)})

    async def _bury_of(self, keys: set[bytes]) -> None:
        """Send the dead letters of variants whose state is written before the next flush.

        That state says up to which offset all is applied. Records that were given up before it would be taken for applied after a crash, and not be told of.
        """
        if not any(letter.key in keys for letter in (*self._dead_letters, *self._being_buried)):
            return
        async with self._burying:
            letters = [letter for letter in self._dead_letters if letter.key in keys]
            self._dead_letters = [letter for letter in self._dead_letters if letter.key not in keys]
            await self._bury(letters)

    async def _bury(self, letters: list[Rejected]) -> None:
        left = letters
        while left and not self.is_closed:
            tickets = []
            for count, rejected in enumerate(left, 1):
                tickets.append(await self._send_dead_letter(rejected))
                if count % SLICE == 0:
                    await asyncio.sleep(0)
            left = [rejected for rejected, ticket in zip(left, tickets, strict=True) if not await self._log.delivered(ticket)]

    def _session_key(self, session: Session) -> bytes:
        return self._tables.engagement.key(session.variant_id, session.post_id, at=session.posted_at / SECOND)

    def _segment_key(self, session: Session, number: int) -> bytes:
        return self._tables.event_id.key(session.variant_id, session.post_id, number, at=session.posted_at / SECOND)

    def _waiting_segment(self, variant_id: str, first: int, waiters: list[Waiter]) -> tuple[bytes, bytes | None]:
        return self._tables.waiting.key(variant_id, first), encode_waiters(waiters) if waiters else None

    async def _write_sessions(self, sessions: list[Session]) -> None:
        written: list[tuple[bytes, bytes | None]] = []
        dropped: list[tuple[bytes, bytes | None]] = []
        for part in _slices(sessions):
            for session in part:
                changes = seal_event_ids(session)
                self.monitor.event_ids += changes.growth
                written += [(self._segment_key(session, number), packed) for number, packed in changes.written]
                dropped += [(self._segment_key(session, number), None) for number in changes.dropped]
            await asyncio.sleep(0)
        await self._write(self._changelogs.event_id, written)
        grown = [session for session in sessions if session.event_ids is not None and len(session.event_ids.tail) > SEGMENT_LIMIT]
        if grown:  # that many while the segments were on their way: too many to travel inside the state
            await self._write_sessions(grown)
        await self._write_states(sessions)
        await self._write(self._changelogs.event_id, dropped)

    async def _write_states(self, sessions: list[Session]) -> None:
        await self._write_in_turn(sessions, lambda part: [(self._session_key(session), encode_session(session)) for session in part])

    async def _delete_states(self, sessions: list[Session]) -> None:
        """Delete what is forgotten; but not the state of a session that has the same key, for the same post came again meanwhile."""
        await self._write_in_turn(sessions, lambda part: [(key, None) for session in part if (key := self._session_key(session)) != self._key_in_use(session)])

    async def _write_in_turn(self, sessions: list[Session], records_of: Callable[[list[Session]], list[tuple[bytes, bytes | None]]]) -> None:
        """Write each session as it is when its turn comes, so that a later write never carries an earlier state."""
        for part in _slices(sessions):
            while not self.is_closed:
                async with self._ordering:
                    records = records_of(part)
                    ticket = await self._changelogs.engagement.send(records) if records else None
                if ticket is None or await self._changelogs.engagement.delivered(ticket):
                    break

    def _key_in_use(self, session: Session) -> bytes | None:
        found = self.monitor.sessions.find(session.variant_id, session.post_id)
        return None if found is None else self._session_key(found)

    async def _write(self, changelog: Changelog, items: list[tuple[bytes, bytes | None]]) -> None:
        for part in _slices(items):
            await self._write_slice(changelog, part)

    async def _write_slice(self, changelog: Changelog, part: list[tuple[bytes, bytes | None]]) -> None:
        while not self.is_closed and not await changelog.write(part):
            pass

    # -- leaving -----------------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Tell what is decided, and flush: nothing is left to repeat."""
        while self._tasks:
            await asyncio.gather(*self._tasks)
        await self.flush()

    def close(self) -> None:
        """Stop at once: the partition is somebody else's now. What is not durable is decided again there. Its changelogs have to be let go, too."""
        self.is_closed = True
        for task in self._tasks:
            task.cancel()


def _acknowledge(chunks: Iterable[Done]) -> None:
    crash_point("before_ack")
    for chunk in chunks:
        chunk.ack()
    crash_point("after_ack")


def _slices(items: list[T]) -> Iterator[list[T]]:
    """Cut a list into pieces of ``SLICE``, or into larger ones if it is very long."""
    size = min(max(SLICE, len(items) // SLICES), LARGEST_SLICE)
    for start in range(0, len(items), size):
        yield items[start : start + size]

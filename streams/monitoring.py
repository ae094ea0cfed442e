"""The partitions this worker owns: taken over at an assignment, driven by agents and ticks, let go at a revocation."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import faust
from aiokafka.errors import KafkaError
from faust.exceptions import FaustError
from faust.types import TP

from models.errors import Stop
from models.moments import SECOND
from models.monitor import Limits, PartitionMonitor
from streams.changelog import Changelog, Overtaken, claim
from streams.lane import Lane
from streams.origins import cut_short
from streams.partition import WAITERS_AT_ONCE, PartitionWorker
from streams.ports import Tables, Topics
from streams.readings import Reading, Readings
from streams.restoring import changelogs_read_back, restore
from streams.tables import StateTable
from streams.underway import Underway

if TYPE_CHECKING:
    from models.policy import Defaults
    from streams.ports import Log, Observer
    from streams.transport import Chunk, ChunkedConsumer

log = logging.getLogger(__name__)


TICK_SECONDS = 0.25
"""Pause between two looks at what is due."""
CHUNKS_AHEAD = 4
"""Chunks of one partition that may wait to be folded before no more are fetched."""
RECORDS_AHEAD = 1_000_000
"""Records of one partition that may be folded and not yet done before no more are fetched."""
READABLE_WITHIN = SECOND
"""Microseconds until a record that has got its append time can be read: its replicas come first, and append times are cut to milliseconds."""
ANSWER_SECONDS = 2.0
"""How long a look at what is due waits for the consumer; during a rebalance, or without Kafka, it may never answer."""
ORDER_SECONDS = 0.01
"""Pause between two looks whether the posts that a stop waits for are folded."""
CHANGELOG_LOOK_SECONDS = 60.0
"""Pause between two looks whether somebody else has written to a changelog: well below what compaction leaves alone (5 minutes)."""
FLUSH_REST = 4
"""A pause between two flushes is at least so many times as long as the last one took."""
LONGEST_FLUSH_PAUSE = 4.0
"""Seconds until the next flush all the same, unless more are configured: so much is repeated after a crash at most."""
LEAVE_SECONDS = 5.0
"""How long a worker that is to stop goes on to make its work durable."""
Excuses = tuple[type[Exception], ...]
AWAY: Excuses = (KafkaError, FaustError, TimeoutError)
"""Kafka is away, or a rebalance is on: the next look will do."""


@dataclass(slots=True)
class Owned:
    """A partition this worker owns."""

    worker: PartitionWorker
    readings: Readings
    lanes: dict[str, Lane] = field(default_factory=dict)  # by topic

    def close_lanes(self) -> None:
        """Fold nothing more. What has been folded of a chunk without its end is passed over when that is delivered again."""
        for lane in self.lanes.values():
            lane.close()


class Monitoring:
    """All partitions of one monitor."""

    def __init__(
        self,
        app: faust.App,
        *,
        log: Log,
        state_log: Log,
        tables: Tables,
        topics: Topics,
        defaults: Defaults,
        limits: Limits,
        waiting_limit: int,
        flush_seconds: float,
        observer: Observer,
        clock: Callable[[], int],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._app, self._log, self._state_log, self._tables, self._topics, self._defaults = app, log, state_log, tables, topics, defaults
        self._limits, self._waiting_limit, self._flush_seconds = limits, waiting_limit, flush_seconds
        self._observer, self._clock, self._fail = observer, clock, fail
        self._owned: dict[int, Owned] = {}
        self._changelogs: list[Changelog] = []  # of what is assigned, claimed or about to be
        self._turn = asyncio.Lock()
        self._flush_pause = flush_seconds
        self._underway = Underway()
        self._generation = 0
        self._ends: dict[TP, int] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()

    # -- assignment --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to tick and to flush, unless that has begun."""
        if not self._tasks:
            chores: tuple[tuple[Callable[[], object], Callable[[], float], Excuses], ...] = (
                (self._tick, lambda: TICK_SECONDS, AWAY),
                (self._flush, lambda: self._flush_pause, ()),  # never: half of one must not be followed by another
                (self._look_at_changelogs, lambda: CHANGELOG_LOOK_SECONDS, AWAY),
            )
            self._tasks = [asyncio.create_task(self._for_ever(*chore)) for chore in chores]

    async def stop(self) -> None:
        """Make everything durable that has been folded; after that the offsets may be committed.

        Gives up after ``LEAVE_SECONDS``, when Kafka is away: what is not durable is done again after the next start.
        """
        self._stopping.set()
        for owned in self._owned.values():
            owned.close_lanes()
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                if self._tasks:
                    await asyncio.wait(self._tasks)  # not cancelled: half a flush must not be followed by another
                await asyncio.gather(*(owned.worker.drain() for owned in self._owned.values()))
        except Overtaken as error:
            log.warning("leaving with work undone: %s", error)
        except TimeoutError:
            log.warning("leaving with work undone, Kafka does not take it; it is done again after the next start")

    def let_go(self) -> None:
        """Give up all partitions: the group is being rebalanced. What is not durable is repeated by the next owner."""
        self._generation += 1
        for owned in self._owned.values():
            owned.worker.close()
            owned.close_lanes()
        self._owned.clear()
        for changelog in self._changelogs:
            changelog.is_let_go = True
        self._underway.forget()
        for table in self._state_tables:
            table.forget()

    @property
    def _state_tables(self) -> tuple[StateTable, ...]:
        tables = (self._tables.engagement, self._tables.event_id, self._tables.waiting)
        return tuple(table for table in tables if isinstance(table, StateTable))

    @property
    def _consumer(self) -> ChunkedConsumer:
        return self._app.consumer  # type: ignore[no-any-return]

    async def take_over(self) -> bool:
        """Rebuild the assigned partitions from what recovery has read. Called when recovery is complete, before any record flows.

        Returns:
            False if the assignment has changed meanwhile: then nothing more is taken over. With no partition assigned all are.
        """
        generation = self._generation
        partitions = sorted({tp.partition for tp in self._consumer.assignment() if tp.topic == self._topics.interaction})
        tps = [TP(topic, partition) for partition in partitions for topic in self._topics.sources]
        if not tps:
            return True
        committed = {TP(tp.topic, tp.partition): offset or 0 for tp, offset in (await self._consumer.seek_to_committed()).items()}
        starts = await self._consumer.earliest_offsets(*tps)
        ends = await self._consumer.highwaters(*tps)
        beginnings = await self._consumer.earliest_offsets(*(TP(table.changelog_topic_name, partition) for partition in partitions for table in self._state_tables))
        if generation != self._generation:
            return False
        claimed = {partition: changelogs_read_back(partition, self._state_tables, beginnings, self._state_log, self._clock()) for partition in partitions}
        self._changelogs = [changelog for changelogs in claimed.values() for changelog in changelogs]
        try:
            await asyncio.gather(*(claim(changelogs) for changelogs in claimed.values()))
        except Overtaken:
            if generation == self._generation:
                raise
        if generation != self._generation:
            return False
        for partition, changelogs in claimed.items():
            own = {topic: TP(topic, partition) for topic in self._topics.sources}
            readings = Readings({topic: Reading(tp, catch_up=ends[tp], next=max(committed.get(tp, 0), starts[tp])) for topic, tp in own.items()})
            position = readings[self._topics.interaction].next - 1
            monitor = PartitionMonitor(
                partition, self._limits, self._topics.interaction, self._topics.monitoring_control, self._topics.variant_posted, position=position, at_once=WAITERS_AT_ONCE
            )
            unused = await restore(monitor, changelogs)
            if generation != self._generation:
                return False
            worker = PartitionWorker(
                monitor,
                log=self._log,
                tables=self._tables,
                changelogs=changelogs,
                topics=self._topics,
                defaults=self._defaults,
                observer=self._observer,
                clock=self._clock,
                turn=self._turn,
            )
            self._owned[partition] = Owned(worker, readings)
            worker.resume(unused)
        return True

    # -- records -----------------------------------------------------------------------------------------------------

    def may_fetch(self, tp: TP) -> bool:
        """Tell the consumer whether to fetch from a source partition now."""
        owned = self._owned.get(tp.partition)
        reading = owned.readings.open(tp.topic) if owned is not None else None
        return reading is not None and reading.unfolded < CHUNKS_AHEAD and self._undone(reading) < RECORDS_AHEAD

    def _undone(self, reading: Reading) -> int:
        return reading.next - (self._consumer.committed(reading.tp) or reading.next)

    def fetched(self, chunk: Chunk) -> None:
        """Note that a chunk is on its way to its agent."""
        owned = self._owned.get(chunk.tp.partition)
        if owned is not None:
            owned.readings[chunk.tp.topic].unfolded += 1
            self._underway.fetched(chunk)

    def take(self, chunk: Chunk) -> None:
        """Take a chunk from its agent, to be folded after those of its topic and partition before it, and beside all others.

        What goes wrong then stops the worker, for no later record may pass it.
        """
        owned, topic = self._owned.get(chunk.tp.partition), chunk.tp.topic
        if owned is None or self._stopping.is_set():
            return
        lost = self._underway.arrived(chunk)
        if lost is not None:
            self._fail(_lost(lost))
        if topic not in owned.lanes:
            owned.lanes[topic] = Lane(partial(self._fold, owned))
        owned.lanes[topic].put(chunk)

    async def _fold(self, owned: Owned, chunk: Chunk) -> None:
        try:
            if chunk.tp.topic == self._topics.monitoring_control and not await self._posts_are_folded(owned):
                return
            records, chunk.records = chunk.records, []
            await owned.worker.fold(chunk.tp.topic, records, chunk)
            owned.readings[chunk.tp.topic].folded(chunk.span.last)
        except Exception as error:  # noqa: BLE001 - handed to whoever stops the worker
            self._fail(error)

    async def _posts_are_folded(self, owned: Owned) -> bool:
        """Wait until every post is folded that is there now, so that a stop finds a session posted before it; False if the partition, or the worker, goes first."""
        posts = owned.readings[self._topics.variant_posted]
        end = None
        while not (owned.worker.is_closed or self._stopping.is_set()):
            if end is None:
                with contextlib.suppress(KafkaError, FaustError, TimeoutError):
                    async with asyncio.timeout(ANSWER_SECONDS):
                        end = (await self._consumer.highwaters(posts.tp))[posts.tp]
            if end is not None and posts.next >= end:
                return True
            await asyncio.sleep(ORDER_SECONDS)
        return False

    # -- time --------------------------------------------------------------------------------------------------------

    async def _for_ever(self, work: Callable[[], object], pause: Callable[[], float], excuses: Excuses) -> None:
        while not await self._is_stopping_within(pause()):
            try:
                await work()  # type: ignore[misc]
            except excuses as error:
                log.debug("skipped once: %r", error)
            except Exception as error:  # noqa: BLE001 - handed to whoever stops the worker
                self._fail(error)

    async def _is_stopping_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        return self._stopping.is_set()

    async def _flush(self) -> None:
        """Flush one partition after the other, so that kills find their way in between; with very many sessions that takes long, and so comes less often."""
        clock = asyncio.get_running_loop().time
        began = clock()
        for owned in list(self._owned.values()):
            await owned.worker.flush()
        self._flush_pause = self._pause_after(clock() - began)

    def _pause_after(self, flush_took: float) -> float:
        return max(self._flush_seconds, min(FLUSH_REST * flush_took, LONGEST_FLUSH_PAUSE))

    async def _look_at_changelogs(self) -> None:
        generation = self._generation
        tps = [TP(table.changelog_topic_name, partition) for partition in self._owned for table in self._state_tables]
        if not tps or self._app.rebalancing:
            return
        async with asyncio.timeout(ANSWER_SECONDS):
            ends = await self._consumer.highwaters(*tps)
        if generation != self._generation:
            return
        for partition, owned in self._owned.items():
            owned.worker.look({tp.topic: end for tp, end in ends.items() if tp.partition == partition})

    async def _tick(self) -> None:
        generation = self._generation
        looked_at = list(self._owned.values())
        read_to = {reading.tp: reading.next for owned in looked_at for reading in owned.readings}
        if not read_to or self._app.rebalancing:
            return
        asked_at = self._clock() - READABLE_WITHIN
        async with asyncio.timeout(ANSWER_SECONDS):
            ends = await self._consumer.highwaters(*read_to)
            if generation != self._generation:
                return
            for tp, offset in read_to.items():
                if ends[tp] < offset:
                    self._fail(cut_short(tp, offset, f"ends at {ends[tp]}"))
            self._ends = {TP(tp.topic, tp.partition): end for tp, end in ends.items()}
            positions = {tp: await self._consumer.position(tp) for tp in read_to if self._idle(tp)}
        if generation != self._generation:
            return
        for owned in looked_at:
            read, committed = owned.readings.look(asked_at, self._ends, positions, self._is_committed)
            await owned.worker.tick(read, committed)
        await self._make_room()
        lost = self._underway.look()
        if lost is not None:
            self._fail(_lost(lost))

    def went_back(self, tp: TP, read_to: int, first: int) -> None:
        """Stop the worker: a source partition that was read up to ``read_to`` goes on at ``first``. What is counted of it may be gone, and offsets to come mean other records."""
        self._fail(cut_short(tp, read_to, f"goes on at {first}"))

    def _idle(self, tp: TP) -> bool:
        owned = self._owned.get(tp.partition)
        return owned is not None and owned.readings[tp.topic].unfolded == 0 and owned.readings[tp.topic].next < self._ends.get(tp, 0)

    def _is_committed(self, reading: Reading, end: int) -> bool:
        if reading.next < end:
            return False
        ledger = self._consumer.ledgers.get(reading.tp)
        if ledger is None:
            return True
        committed = self._consumer.committed(reading.tp) or 0
        return committed >= end or (ledger.open_count == 0 and committed >= (ledger.committable or 0))

    async def _make_room(self) -> None:
        excess = sum(owned.worker.monitor.waiting.count for owned in self._owned.values()) - self._waiting_limit
        if excess > 0:
            fullest = max(self._owned.values(), key=lambda owned: owned.worker.monitor.waiting.count)
            await fullest.worker.push_out(excess)

    def lag(self) -> dict[tuple[str, int], int]:
        """Return the records not folded yet by (topic, partition), as of the last tick."""
        readings = [reading for owned in self._owned.values() for reading in owned.readings]
        return {(reading.tp.topic, reading.tp.partition): max(0, self._ends.get(reading.tp, 0) - reading.next) for reading in readings}

    @property
    def monitors(self) -> dict[int, PartitionMonitor]:
        """The partitions that are owned, restored, and know every post there was at the assignment.

        A post that the last owner had told of, and not made durable, is read again first: until then its session is missing here.
        """
        posted = self._topics.variant_posted
        return {partition: owned.worker.monitor for partition, owned in self._owned.items() if owned.readings[posted].is_caught_up}


def _lost(tp: TP) -> Stop:
    return Stop(f"records of {tp.topic}[{tp.partition}] were fetched and never came to their agent")

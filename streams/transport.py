"""A Faust transport that hands an agent a whole fetched chunk of one partition as one event, with one acknowledgement.

Faust spends about 100 microseconds on each event. Fed with chunks it spends them once for hundreds of records. These things
change against the stock consumer:

* ``getmany`` yields one message for each chunk of a source partition; its ``value`` is a ``Chunk``. Of a changelog it
  yields one ``ChangelogMessage`` for all that was fetched, for Faust's recovery.
* Offsets to commit come from a ``Ledger`` for each partition, not from lists of single offsets.
* Records are aiokafka's own, as its C code has unpacked them (offset, timestamp, key, value), not
  copied into a ``ConsumerRecord`` each: that copy costs more than all the rest of fetching.
* No record gets lost in a rebalance: a fetch during which one begins or ends gives back what it has read of source
  partitions, and what was fetched before one began is dropped, for its partitions are read from the committed offsets after it.
* ``ChunkedConsumer.may_fetch`` is asked before each fetch, so the application can hold a partition back; ``on_fetched``
  tells it of each chunk.
* A source partition that goes back behind what was read of it, as when its broker has lost its youngest records, is read from where
  it begins, and ``on_going_back`` told. Faust would pass over its records up to there.
* A worker of which a part of aiokafka's has given up ends. Faust asks none of them, and would go on with nothing to read.
* A group's leader that knows nothing of a topic asks again each second. It has given nobody any of its partitions, and aiokafka would leave it at that for five minutes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.subscription_state import SubscriptionState
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage, Message
from mode import Service
from mode.utils.futures import maybe_async

from streams.batches import bundle, unbundle
from streams.crash_points import crash_point
from streams.ledger import Ledger, Span
from streams.pace import Pace
from streams.pieces import Piece, Reach
from streams.ports import Incoming

log = logging.getLogger(__name__)

CHUNK = 2_000
"""Most records in one chunk."""
IDLE_WAIT = 0.02
"""Seconds until partitions that are held back are asked about again."""
FETCH_WAIT_MS = 100
"""How long a broker may hold a fetch that finds nothing new. Each broker has one at a time, and partitions not named in it wait."""
LOOK_SECONDS = 1.0
"""Pause between two looks whether aiokafka still fetches, belongs to its group, and knows the group's topics."""
_APPEND_TIME = 1  # Kafka's number of the timestamp type


@dataclass(slots=True, eq=False)
class Chunk:
    """Consecutive records of one partition, and the way to say that they are done."""

    tp: TP
    records: list[Incoming]
    span: Span
    _ledger: Ledger

    def ack(self) -> None:
        """Say that no record of this chunk has to be delivered again, so that its offsets may be committed."""
        self._ledger.done(self.span)


class ChangelogMessage(ConsumerMessage):  # type: ignore[misc]
    """A message that stands at the last of many consecutive records of a changelog, and carries all of them.

    Attributes:
        piece: The records, and from where to where they were read.
    """

    __slots__ = ("piece",)

    def __init__(self, tp: TP, piece: Piece[Incoming], generation_id: int) -> None:
        last = piece.records[-1]
        super().__init__(tp.topic, tp.partition, last.offset, last.timestamp / 1_000, _APPEND_TIME, (), None, None, None, tp=tp, generation_id=generation_id)
        self.piece = piece


class Fetched(dict[TP, Piece[Incoming]]):
    """What one fetch has returned.

    Attributes:
        rebalances: How many rebalances had begun when it returned. When there are more, these partitions are another's.
    """

    def __init__(self, rebalances: int, pieces: Mapping[TP, Piece[Incoming]]) -> None:
        super().__init__(pieces)
        self.rebalances = rebalances


class InlineConsumer(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """Faust's consumer thread without the thread: an aiokafka consumer on the application's own event loop.

    Each fetch of the stock one crosses between two loops twice, and both want the one interpreter: that took most of the
    time of a kill. The price is that heartbeats wait when the loop does; see ``Watchdog``.
    """

    abstract = False
    wait_for_shutdown = False
    maybe_start = Service.maybe_start
    start = Service.start
    stop = Service.stop
    crash = Service.crash
    set_shutdown = Service.set_shutdown
    _stopped_set = Service._stopped_set  # noqa: SLF001 - a ServiceThread replaces it, and here it is a plain service again; likewise below
    _stop_children = Service._stop_children  # noqa: SLF001
    _stop_futures = Service._stop_futures  # noqa: SLF001
    _stop_exit_stacks = Service._stop_exit_stacks  # noqa: SLF001

    def __init__(self, consumer: ChunkedConsumer, **options: Any) -> None:
        self._reach: Reach[TP] = Reach()
        self._pace = Pace()
        super().__init__(consumer, thread_loop=consumer.loop, loop=consumer.loop, **options)

    async def on_stop(self) -> None:
        """Leave the group, and disconnect."""
        if self._consumer is not None:
            await self._consumer.stop()

    def raise_what_ended(self) -> None:
        """Raise the error with which aiokafka's fetching or its part in the group has ended, if one has.

        Raises:
            KafkaError: Neither is begun again by anybody.
        """
        consumer = self._consumer
        coordinator = None if consumer is None or consumer._closed else consumer._coordinator  # noqa: SLF001 - aiokafka itself tells only who reads through it; likewise below
        if coordinator is None:
            return
        coordinator.check_errors()
        fetching = consumer._fetcher.error_future  # noqa: SLF001
        if fetching.done():
            fetching.result()

    def ask_for_missing_topics(self) -> None:
        """Have Kafka asked again for topics of which this group's leader knew no partitions when it shared them out; the answer brings a new rebalance."""
        coordinator: Any = None if self._consumer is None else self._consumer._coordinator  # noqa: SLF001 - aiokafka looks by itself after five minutes; likewise below
        topics = getattr(coordinator, "_group_subscription", None) or ()  # a leader's only
        if any(not coordinator._cluster.partitions_for_topic(topic) for topic in topics):  # noqa: SLF001
            coordinator._client.force_metadata_update()  # noqa: SLF001

    def fetch_no_more(self, tps: Iterable[TP]) -> None:
        """Have aiokafka leave partitions out of its fetches, up to the next assignment."""
        if self._consumer is not None:
            self._consumer.pause(*(TopicPartition(tp.topic, tp.partition) for tp in tps))

    async def call_thread(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call ``fun`` at once, where the stock one sends it to the thread."""
        return await maybe_async(fun(*args, **kwargs))

    def _create_worker_consumer(self, transport: driver.Transport) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS  # noqa: SLF001 - Faust names 1,500 and asks nobody
        return consumer

    async def _fetch_records(self, consumer: AIOKafkaConsumer, active_partitions: set[TP], timeout: float | None = None, max_records: int | None = None) -> Any:  # noqa: ASYNC109 - Faust's signature
        rebalances, is_rebalancing = self.app.rebalancing_count, self.app.rebalancing
        pieces = await self._read(consumer, active_partitions, timeout, max_records)
        if is_rebalancing or self.app.rebalancing_count != rebalances:
            # Faust seeks and empties the agents' queues while a rebalance ends: none of these may get lost in between.
            for tp in [tp for tp in pieces if not self.consumer._is_changelog_tp(tp)]:  # noqa: SLF001 - a friend
                consumer.seek(tp, pieces.pop(tp).records[0].offset)
        return Fetched(self.app.rebalancing_count, pieces)

    async def _read(self, consumer: AIOKafkaConsumer, active_partitions: set[TP], timeout: float | None, max_records: int | None) -> dict[TP, Piece[Incoming]]:  # noqa: ASYNC109 - Faust's name for it
        pieces = await self._read_now(consumer, active_partitions, max_records)
        if not pieces and timeout and self.consumer.flow_active:
            await _something_fetched(consumer._fetcher, timeout)  # noqa: SLF001 - not left to aiokafka, which would unpack what comes before it can be bundled
            pieces = await self._read_now(consumer, active_partitions, max_records)
        return pieces

    async def _read_now(self, consumer: AIOKafkaConsumer, active_partitions: set[TP], max_records: int | None) -> dict[TP, Piece[Incoming]]:
        fetcher = consumer._fetcher  # noqa: SLF001 - Faust's consumer uses it too
        subscriptions = fetcher._subscriptions  # noqa: SLF001 - likewise
        if subscriptions.reassignment_in_progress:
            await subscriptions.wait_for_assignment()  # aiokafka would wait for it when the positions have been noted
        self._pace.set(fetcher)
        bundle(fetcher)
        before = _positions(subscriptions, active_partitions)
        read: Mapping[TP, list[Any]] = await super()._fetch_records(consumer, active_partitions, 0, max_records)
        after = _positions(subscriptions, before)
        pieces = {tp: self._reach.piece(tp, position, unbundle(read.get(tp, ())), after[tp]) for tp, position in before.items()}
        found = {tp: piece for tp, piece in pieces.items() if piece is not None}
        if found:
            self._pace.found(sum(len(piece.records) for piece in found.values()))
        return found


def _positions(subscriptions: SubscriptionState, tps: Iterable[TP]) -> dict[TP, int]:
    """Return the positions of partitions, by default of all that are assigned, as far as they have one."""
    assigned = subscriptions.subscription and subscriptions.subscription.assignment
    states = {tp: assigned.state_value(tp) for tp in tps or assigned.tps} if assigned else {}
    return {tp: state.position for tp, state in states.items() if state is not None and state.has_valid_position}


async def _something_fetched(fetcher: Fetcher, seconds: float) -> None:
    """Wait until the fetcher has got something, but not for longer; raises what keeps it from fetching."""
    waiter = fetcher._create_fetch_waiter()  # noqa: SLF001 - as its own ``fetched_records`` does
    timer = asyncio.get_running_loop().call_later(seconds, fetcher._notify, waiter)  # noqa: SLF001 - ``asyncio.wait`` takes two turns of the event loop to say that it came, and this one
    try:
        await waiter
    finally:
        timer.cancel()


NOTHING = Fetched(0, {})


def _say_it_goes_back(tp: TP, read_to: int, first: int) -> None:
    log.error("%s[%d] goes on at %d, and was read up to %d: Kafka has lost records. It is read from there", tp.topic, tp.partition, first, read_to)


def _nothing(_tp: TP) -> bool:
    return False


class ChunkedConsumer(driver.Consumer):  # type: ignore[misc]
    """Delivers source topics in chunks of up to ``CHUNK`` records."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.may_fetch: Callable[[TP], bool] = lambda _tp: True
        self.on_fetched: Callable[[Chunk], None] = lambda _chunk: None
        self.on_going_back: Callable[[TP, int, int], None] = _say_it_goes_back
        self.ledgers: dict[TP, Ledger] = {}
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> InlineConsumer:
        return InlineConsumer(self, beacon=self.beacon)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Fetched:  # noqa: ASYNC109 - Faust's signature
        if active_partitions is not None:
            # Faust resumes source partitions some steps before it empties the agents' queues for the last time in a rebalance.
            may_fetch = self.may_fetch if not self.app.rebalancing else _nothing
            wanted = {tp for tp in active_partitions if self._is_changelog_tp(tp) or may_fetch(tp)}
            if not wanted:
                await asyncio.sleep(IDLE_WAIT)
                return NOTHING
            if len(wanted) < len(active_partitions):
                timeout = min(timeout, IDLE_WAIT)
            active_partitions = wanted
        fetched: Fetched = await super()._getmany(active_partitions, timeout)
        return fetched

    async def _drain_messages(self, fetcher: Service) -> None:
        """Hand on what is fetched. The stock one spends three tasks on each message, to hear of a rebalance while a queue is full; none of ours fills up."""
        read_offsets = self._read_offset
        try:
            while not (self.should_stop or fetcher.should_stop):
                await asyncio.sleep(0)
                async for tp, message in self.getmany(1.0):
                    last = read_offsets[tp]
                    if last is None or message.offset >= last:
                        await self.callback(message)
                        read_offsets[tp] = message.offset
        except (asyncio.CancelledError, *self.consumer_stopped_errors):
            if not self.app.should_stop:
                raise

    @Service.task  # type: ignore[untyped-decorator]
    async def _look_after_aiokafka(self) -> None:
        while not self.should_stop:
            self._thread.raise_what_ended()
            self._thread.ask_for_missing_topics()
            await self.sleep(LOOK_SECONDS)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:  # noqa: ASYNC109 - Faust's signature
        """Yield (partition, message) for what has been fetched; a message of a source topic carries a ``Chunk``."""
        fetched, active = await self._wait_next_records(timeout)
        if not fetched or self.should_stop:
            return
        if not self.flow_active:
            try:
                await self.perform_seek()
            except Exception as error:  # noqa: BLE001 - as the stock consumer: the next assignment seeks again
                self.log.warning("cannot seek while the flow is stopped: %r", error)
            await self._read_again(fetched)
            return
        for tp, piece in fetched.items():
            if active is not None and tp not in active and tp not in self._buffered_partitions:
                await self._read_again([tp])
                continue
            for part in self._parts(tp, piece):
                if not self.flow_active or self.app.rebalancing_count != fetched.rebalances:
                    await self._read_again(fetched)
                    return  # a rebalance has begun: what is left is delivered again to whoever owns it now
                yield tp, self._message(tp, part)

    async def _read_again(self, dropped: Iterable[TP]) -> None:
        """Read changelogs anew of which records are dropped here: recovery, which may just have sought there, would wait for them for ever.

        What it has had already it passes over.
        """
        for tp in dropped:
            if self._is_changelog_tp(tp) and tp in self.assignment():
                try:
                    await self.seek(tp, 0)
                except Exception as error:  # noqa: BLE001 - revoked meanwhile: the next assignment seeks again
                    self.log.warning("cannot read %s again: %r", tp, error)

    def _parts(self, tp: TP, piece: Piece[Incoming]) -> Iterator[Piece[Incoming]]:
        """Cut what was fetched into what one message carries: of a changelog, all of it."""
        records = piece.records
        if self._is_changelog_tp(tp) or len(records) <= CHUNK:
            yield piece
            return
        for start in range(0, len(records), CHUNK):
            part = records[start : start + CHUNK]
            yield Piece(part[0].offset, part, part[-1].offset + 1)

    def _message(self, tp: TP, part: Piece[Incoming]) -> Message:
        """Hand a part out. It must belong to the assignment that there is now."""
        if self._is_changelog_tp(tp):
            return ChangelogMessage(tp, part, self.app.consumer_generation_id)
        records, last = part.records, self._read_offset[tp]
        if last is not None and records[0].offset < last:  # each seek of ours sets it: Kafka has sent aiokafka to the beginning
            self.on_going_back(tp, last + 1, records[0].offset)
            self._begin_again(tp)
        ledger = self.ledgers.setdefault(tp, Ledger())
        chunk = Chunk(tp, records, ledger.hand_out(records[0].offset, records[-1].offset), ledger)
        self.on_fetched(chunk)
        return self._chunk_message(tp, chunk)

    def _begin_again(self, tp: TP) -> None:
        """Count nothing of a source partition as read or committed."""
        self._read_offset[tp] = self._committed_offset[tp] = None
        self.ledgers.pop(tp, None)

    def _chunk_message(self, tp: TP, chunk: Chunk) -> Message:
        """Return a message that stands at the last record of ``chunk``."""
        last, generation = chunk.records[-1], self.app.consumer_generation_id
        return ConsumerMessage(tp.topic, tp.partition, last.offset, last.timestamp / 1_000, _APPEND_TIME, (), None, chunk, None, tp=tp, generation_id=generation)

    def committed(self, tp: TP) -> int | None:
        """Return the offset last committed, or resumed from; None if there is none."""
        offset: int | None = self._committed_offset[tp]
        return offset

    def leave_changelogs(self) -> None:
        """Fetch no changelog any more, up to the next assignment; to be called when recovery is complete.

        Faust would have each fetch ask for them all, and read back what their owner itself has just written.
        """
        self._thread.fetch_no_more([tp for tp in self.assignment() if self._is_changelog_tp(tp)])

    async def perform_seek(self) -> None:
        """Go to where each source partition was committed; to its beginning, if it ends before that: what is there now has not been read."""
        await super().perform_seek()
        committed = {tp: offset for tp, offset in self._committed_offset.items() if offset and not self._is_changelog_tp(tp) and tp in self.assignment()}
        ends = await self.highwaters(*committed) if committed else {}
        cut = [tp for tp, offset in committed.items() if ends[tp] < offset]
        for tp, start in (await self.earliest_offsets(*cut) if cut else {}).items():
            log.error("%s[%d] ends at %d, and was read up to %d: Kafka has lost records. It is read from its beginning", tp.topic, tp.partition, ends[tp], committed[tp])
            await self.seek(tp, start)
            self._begin_again(TP(tp.topic, tp.partition))

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Forget what was handed out: chunks of an earlier assignment no longer count."""
        self.ledgers.clear()
        await super().on_partitions_revoked(revoked)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Say nothing: Faust looks for acknowledgements of single records and finds none. ``Monitoring.lag`` tells how it goes."""

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Gaps need no care; see ``Ledger``."""

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        crash_point("before_offset_commit")
        committed: bool = await super()._commit(offsets)
        crash_point("after_offset_commit")
        return committed

    def _filter_tps_with_pending_acks(self, topics: Iterable[TP | str] | None = None) -> Iterator[TP]:
        wanted = None if topics is None else set(topics)
        return (tp for tp in list(self.ledgers) if wanted is None or tp in wanted or tp.topic in wanted)

    def _filter_committable_offsets(self, tps: Iterable[TP]) -> dict[TP, int]:
        offsets = {}
        for tp in tps:
            offset = self.ledgers[tp].committable
            if offset is not None and offset > (self._committed_offset[tp] or 0):
                offsets[tp] = offset
        return offsets


class ChunkedTransport(driver.Transport):  # type: ignore[misc]
    """Faust's aiokafka transport with the consumer above."""

    Consumer = ChunkedConsumer

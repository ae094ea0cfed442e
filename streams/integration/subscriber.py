"""Hear of kills, each once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from models.errors import Reject, Retry, Stop
from streams.integration.client import Client
from streams.integration.kills import VariantKilled, parse_kill
from streams.integration.leaving import leave
from streams.integration.places import Places
from streams.integration.refusals import REFUSED
from streams.integration.seen import SeenIds
from streams.kafka_access import kafka_client_options, unreachable
from streams.topics import topic_name

if TYPE_CHECKING:
    from aiokafka.structs import ConsumerRecord

    from streams.settings import Settings

log = logging.getLogger(__name__)

REMEMBERED = 100_000
"""Kill ids that a subscriber remembers, the latest; some 20 MB. A repetition follows its kill within seconds, so this is plenty."""
JOIN_SECONDS = 30.0
"""Longest wait for the group's coordinator at the start."""
COMMIT_SECONDS = 1.0
"""Longest time that a kill the caller is done with goes uncommitted, while more are at hand."""
STOP_SECONDS = 5.0
"""Longest wait for a last commit, by which a partition is given up, and then for the group to be left."""


class KillSubscriber(Client):
    """An asynchronous iterator of kills: ``async with KillSubscriber(group_id="…") as kills: async for kill in kills: …``.

    Each ``kill_id`` comes once, however often it is on the topic: the latest 100,000 are remembered, and at the start, or when a
    partition comes over from another member of the group, those of the 1,000 records before its position are read back.

    With a ``group_id`` it goes on where the group stopped. A kill is committed only after the caller has come back for the
    next one; so one that was being worked on in a crash comes again: at least once across restarts. Kafka spreads the
    partitions over the members of a group. Without a group nothing is committed, and every subscriber gets every kill.
    """

    def __init__(self, settings: Settings | None = None, *, group_id: str | None = None, from_beginning: bool = False, remember: int = REMEMBERED) -> None:
        """Prepare; nothing is connected yet.

        Args:
            settings: Which Kafka, and the topics' prefix; from the environment when None.
            group_id: Consumer group whose position to keep. Not the monitor's own ``EARLY_KILL_APP_ID``.
            from_beginning: Where to start without a position: with the oldest kill on the topic, or with those that come from now on.
            remember: How many kill ids to remember, > 0.
        """
        super().__init__(settings)
        self._topic = topic_name(self._settings, "variant_killed")
        self._group_id = group_id
        self._places = Places(group_id, from_beginning=from_beginning)
        self._seen = SeenIds(remember)
        self._consumer: AIOKafkaConsumer | None = None
        self._fetched: deque[ConsumerRecord] = deque()
        self._in_hand: ConsumerRecord | None = None
        self._done: dict[TopicPartition, int] = {}
        self._times_given_up: Counter[TopicPartition] = Counter()
        self._committed_at = 0.0
        self._assigned = asyncio.Event()
        self._in_position = asyncio.Event()

    async def start(self) -> None:
        """Connect and take position: a kill that happens after this has returned will come.

        Raises:
            Retry: No broker answers.
            Stop: The topic does not exist, or may not be read, or Kafka does not let this client in.
        """
        consumer = AIOKafkaConsumer(
            **kafka_client_options(self._settings),
            group_id=self._group_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",  # only where retention has overtaken the position: what is left must not be skipped
            session_timeout_ms=10_000,
            heartbeat_interval_ms=1_000,
        )
        self._consumer = consumer
        try:
            await consumer.start()
            await self._join(consumer)
        except REFUSED as error:
            await self.stop()
            raise Stop(f"Kafka does not allow reading {self._topic}{f' in group {self._group_id}' if self._group_id else ''}") from error
        except TimeoutError as error:
            await self.stop()
            raise Retry(f"Kafka did not assign partitions of {self._topic} within {JOIN_SECONDS:g} s") from error
        except KafkaError as error:
            await self.stop()
            raise await unreachable(self._settings) from error
        except BaseException:
            await self.stop()
            raise

    async def _join(self, consumer: AIOKafkaConsumer) -> None:
        if self._topic not in await consumer.topics():
            raise Stop(f"topic {self._topic} is not there, or may not be seen; `early-kill topics` creates it")
        if self._group_id is None:
            consumer.subscribe([self._topic])
            async with asyncio.timeout(JOIN_SECONDS):
                while not consumer.assignment():  # noqa: ASYNC110 - aiokafka has no event for it
                    await asyncio.sleep(0.02)
            await self._take_position(consumer.assignment())
            return
        consumer.subscribe([self._topic], listener=_Rebalance(self))
        async with asyncio.timeout(JOIN_SECONDS):
            while not self._assigned.is_set():  # an event would not tell what goes wrong in joining
                consumer._coordinator.check_errors()  # noqa: SLF001 - getmany would, too, and fetch
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """Commit the kills the caller is done with, then leave. A kill it holds without having come back comes again.

        While Kafka is away it waits 5 s for each of both, and no longer; what was not committed then comes again, too.
        """
        consumer = self._consumer
        if consumer is None:
            return
        try:
            await self._commit(STOP_SECONDS)
        finally:
            self._consumer = None
            await leave(consumer, STOP_SECONDS)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> VariantKilled:
        """Wait for the next kill; coming here says that the caller is done with the one before.

        Raises:
            Stop: Kafka no longer allows reading the topic.
            Retry: Reading failed otherwise; a broker that is away is not an error, but waited for.
        """
        if self._consumer is None:
            raise RuntimeError("the subscriber is not started: use it with `async with`")
        if self._in_hand is not None:
            self._finish(self._in_hand)
            self._in_hand = None
        while True:
            if not self._fetched or time.monotonic() - self._committed_at > COMMIT_SECONDS:
                await self._commit()
            while not self._fetched:
                await self._fetch(timeout_ms=500)
            record = self._fetched.popleft()
            kill = self._new_kill(record)
            if kill is not None:
                self._in_hand = record
                return kill
            self._finish(record)

    async def done(self) -> None:
        """Commit the kill in hand too: for a caller that has finished with it, and will not come back for another."""
        if self._in_hand is not None:
            self._finish(self._in_hand)
            self._in_hand = None
        await self._commit()

    def _new_kill(self, record: ConsumerRecord) -> VariantKilled | None:
        try:
            kill = parse_kill(record.value)
        except Reject as error:
            log.warning("%s partition %d offset %d %s: left out", record.topic, record.partition, record.offset, error.reason.splitlines()[0])
            return None
        is_new = self._seen.add(kill.kill_id)
        return kill if is_new and self._places.is_told(TopicPartition(record.topic, record.partition), record.offset) else None

    def _finish(self, record: ConsumerRecord) -> None:
        place = TopicPartition(record.topic, record.partition)
        if self._places.is_told(place, record.offset):
            self._done[place] = record.offset + 1

    async def _fetch(self, timeout_ms: int) -> None:
        assert self._consumer is not None  # noqa: S101 - for the type checker
        consumer = self._consumer
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_ms / 1000):
                await self._in_position.wait()
        try:
            batches = await consumer.getmany(timeout_ms=timeout_ms if self._in_position.is_set() else 0, max_records=500)
        except REFUSED as error:
            raise Stop(f"Kafka does not allow reading {self._topic}") from error
        except KafkaError as error:
            raise Retry(f"kills cannot be read: {error}") from error
        if not self._in_position.is_set():  # aiokafka wakes who waits before it tells what is assigned: these are put back, the look-back comes first
            for place, batch in batches.items():
                consumer.seek(place, batch[0].offset)
            return
        self._places.read(batches, consumer.assignment())
        for batch in batches.values():
            self._fetched.extend(batch)

    async def _commit(self, seconds: float | None = None) -> None:
        """Commit what is done; what could not be committed stays done, but for partitions that were given up meanwhile.

        Args:
            seconds: Longest wait; None for as long as Kafka is away.
        """
        self._committed_at = time.monotonic()
        done, self._done = self._done, {}
        if self._group_id is None or self._consumer is None:
            return
        done = {place: offset for place, offset in done.items() if place in self._consumer.assignment()}
        if not done:
            return
        times_given_up = self._times_given_up.copy()
        try:
            async with asyncio.timeout(seconds):
                await self._consumer.commit(done)
        except BaseException as error:
            still_ours = {place: offset for place, offset in done.items() if self._times_given_up[place] == times_given_up[place]}
            self._done = {**still_ours, **self._done}
            if not isinstance(error, (KafkaError, TimeoutError)):
                raise
            log.warning("could not commit the position of group %s (%s); the last kills may come again", self._group_id, type(error).__name__)

    async def _take_position(self, partitions: Iterable[TopicPartition]) -> None:
        """Decide where each partition is delivered from, and seek some way before it; from then on records are fetched."""
        try:
            await self._seek(frozenset(partitions))
        finally:
            self._in_position.set()

    async def _seek(self, partitions: frozenset[TopicPartition]) -> None:
        consumer = self._consumer
        self._places.assign(partitions)
        if not partitions or consumer is None:  # the latter when it is being stopped
            return
        first, end = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        committed = {place: None if self._group_id is None else await consumer.committed(place) for place in partitions}
        new = self._places.take(first, end, committed)
        for place in partitions:
            consumer.seek(place, self._places.next(place))
        if new:
            await consumer.commit(new)
        if self._group_id is not None:
            self._places.keep(partitions)

    async def _give_up(self, partitions: Iterable[TopicPartition]) -> None:
        """Commit what is done, and forget what was fetched of partitions that go to another member."""
        self._in_position.clear()
        gone = set(partitions)
        try:
            await self._commit(STOP_SECONDS)
        finally:
            self._times_given_up.update(gone)
            self._fetched = deque(record for record in self._fetched if TopicPartition(record.topic, record.partition) not in gone)
            self._places.forget(gone)
            for place in gone:
                self._done.pop(place, None)


class _Rebalance(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    def __init__(self, subscriber: KillSubscriber) -> None:
        self._subscriber = subscriber

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        await self._subscriber._give_up(revoked)  # noqa: SLF001 - one class in two, as aiokafka wants it

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        await self._subscriber._take_position(assigned)  # noqa: SLF001
        self._subscriber._assigned.set()  # noqa: SLF001

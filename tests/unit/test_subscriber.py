"""A subscriber whose topic is cut, whose partitions move, or whose Kafka is away: no kill is swallowed, none told twice, and it always ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaConnectionError

from streams.integration import KillSubscriber, leaving, subscriber
from streams.integration.subscriber import _Rebalance
from streams.settings import Settings
from streams.topics import topic_name
from tests.records import kill_of

SETTINGS = Settings.model_validate({})
PLACE, ADDED = (TopicPartition(topic_name(SETTINGS, "variant_killed"), number) for number in (0, 1))


def record(offset: int, number: int, place: TopicPartition = PLACE) -> Any:
    """A kill, by its number, at an offset."""
    return SimpleNamespace(topic=place.topic, partition=place.partition, offset=offset, value=json.dumps(kill_of(number)).encode())


class Consumer:
    """Stands in for aiokafka's: a log for each partition, a position in it, and one committed."""

    def __init__(self, *places: TopicPartition) -> None:
        self.logs: dict[TopicPartition, list[Any]] = {place: [] for place in places}
        self.positions: dict[TopicPartition, int] = {}
        self.positions_kept: dict[TopicPartition, int] = {}
        self.commits: list[dict[TopicPartition, int]] = []
        self.committing: asyncio.Future[None] | None = None
        self.assigned: frozenset[TopicPartition] = frozenset(places)
        self.looked_up = asyncio.Event()
        self.looked_up.set()

    def assignment(self) -> frozenset[TopicPartition]:
        return self.assigned

    def is_made_anew(self, *records: Any) -> None:
        """As aiokafka has it when a position is out of range: it begins with what there is."""
        self.logs[PLACE], self.positions[PLACE] = list(records), 0

    async def beginning_offsets(self, places: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        await self.looked_up.wait()
        return dict.fromkeys(places, 0)

    async def end_offsets(self, places: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return {place: len(self.logs[place]) for place in places}

    async def committed(self, place: TopicPartition) -> int | None:
        return self.positions_kept.get(place)

    def seek(self, place: TopicPartition, offset: int) -> None:
        if place not in self.assigned:
            raise IllegalStateError
        self.positions[place] = offset

    async def getmany(self, *, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        fetched = {place: self.logs[place][position : position + max_records] for place, position in self.positions.items() if self.logs[place][position:]}
        for place, batch in fetched.items():
            self.positions[place] += len(batch)
        await asyncio.sleep(0 if fetched else min(timeout_ms, 10) / 1000)
        return fetched

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        if self.committing is not None:
            await self.committing
        self.commits.append(offsets)
        self.positions_kept.update(offsets)

    async def stop(self) -> None:
        pass


async def subscribed(consumer: Consumer, *, group: bool = False, from_beginning: bool = False) -> KillSubscriber:
    """A subscriber in position, that has not been told anything."""
    made = KillSubscriber(SETTINGS, group_id="g" if group else None, from_beginning=from_beginning)
    made._consumer = consumer
    await made._give_up(set())
    await made._take_position(consumer.assigned)
    return made


async def hears(made: KillSubscriber, seconds: float = 0.1) -> list[int]:
    """The kills that come, until none does for a while; the last one is done, too."""
    heard = []
    try:
        while True:
            heard.append((await asyncio.wait_for(anext(made), seconds)).kill_id.int)
    except TimeoutError:
        return heard


@pytest.mark.parametrize("group", [False, True])
async def test_kills_on_a_topic_that_was_made_anew_are_told(caplog: pytest.LogCaptureFixture, group: bool) -> None:
    """Their offsets are lower than where the subscriber once began; it says so in its log."""
    consumer = Consumer(PLACE)
    consumer.logs[PLACE] = [record(offset, offset) for offset in range(5)]
    made = await subscribed(consumer, group=group)
    assert await hears(made) == []
    consumer.is_made_anew(record(0, 10), record(1, 11))
    assert await hears(made) == [10, 11]
    assert "cut or made anew: from offset 5 back to 0" in caplog.text
    if group:
        assert consumer.positions_kept == {PLACE: 2}


async def test_what_is_left_of_a_topic_that_was_cut_is_told_once() -> None:
    """Kills that the subscriber has told, or read back, are not told again."""
    consumer = Consumer(PLACE)
    consumer.logs[PLACE] = [record(offset, offset) for offset in range(5)]
    made = await subscribed(consumer)
    consumer.logs[PLACE].append(record(5, 5))
    assert await hears(made) == [5]
    consumer.is_made_anew(*consumer.logs[PLACE][:4], record(4, 6))
    assert await hears(made) == [6]


async def test_a_look_back_is_no_cut(caplog: pytest.LogCaptureFixture) -> None:
    """The subscriber went back by itself: what another member of the group was told stays told."""
    consumer = Consumer(PLACE)
    consumer.logs[PLACE] = [record(offset, offset) for offset in range(3)]
    made = await subscribed(consumer, group=True, from_beginning=True)
    assert await hears(made) == [0, 1, 2]
    await made._give_up({PLACE})
    made._seen = subscriber.SeenIds(10)  # as in another process
    await made._take_position({PLACE})
    consumer.logs[PLACE].append(record(3, 3))
    assert await hears(made) == [3]
    assert caplog.text == ""


async def test_a_partition_that_is_added_makes_none_of_the_others_new(caplog: pytest.LogCaptureFixture) -> None:
    """Without a group aiokafka then reads all of them from the beginning; only the added one is told from there."""
    consumer = Consumer(PLACE, ADDED)
    consumer.assigned = frozenset({PLACE})
    consumer.logs[PLACE] = [record(offset, offset) for offset in range(3)]
    made = await subscribed(consumer)
    consumer.logs[PLACE].append(record(3, 3))
    assert await hears(made) == [3]
    made._seen = subscriber.SeenIds(10)  # so much came that the old ones are forgotten
    consumer.logs[PLACE].append(record(4, 4))
    consumer.logs[ADDED].append(record(0, 20, ADDED))
    consumer.assigned, consumer.positions = frozenset({PLACE, ADDED}), {PLACE: 0, ADDED: 0}
    assert sorted(await hears(made)) == [4, 20]
    assert caplog.text == ""


async def test_a_group_whose_position_went_with_the_topic_begins_with_the_new_one() -> None:
    """Kafka deletes positions with their topic; this is not a group that has never been there."""
    consumer = Consumer(PLACE)
    consumer.logs[PLACE] = [record(offset, offset) for offset in range(3)]
    made = await subscribed(consumer, group=True)
    assert await hears(made) == []
    await made._give_up({PLACE})
    consumer.positions_kept.clear()
    consumer.is_made_anew(record(0, 10))
    await made._take_position({PLACE})
    assert await hears(made) == [10]


async def test_a_stop_while_kafka_is_away_ends(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The commit would be repeated for ever."""
    monkeypatch.setattr(subscriber, "STOP_SECONDS", 0.05, raising=False)
    consumer = Consumer(PLACE)
    made = await subscribed(consumer, group=True, from_beginning=True)
    made._done, consumer.committing = {PLACE: 1}, asyncio.get_running_loop().create_future()
    async with asyncio.timeout(5):
        await made.stop()
    assert "the last kills may come again" in caplog.text


async def test_a_consumer_that_does_not_close_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that still joins its group, say; none of its tasks stays behind."""
    monkeypatch.setattr(subscriber, "STOP_SECONDS", 0.05, raising=False)
    consumer = AIOKafkaConsumer(group_id="g")

    async def for_ever() -> None:
        await asyncio.Event().wait()

    async def close_coordinator() -> None:
        await consumer._coordinator._coordination_task

    tasks = {name: asyncio.create_task(for_ever()) for name in ("_coordination_task", "_heartbeat_task", "_commit_refresh_task")}
    consumer._coordinator = SimpleNamespace(**tasks, close=close_coordinator)
    consumer._fetcher = SimpleNamespace(_fetch_task=asyncio.create_task(for_ever()), _pending_tasks={asyncio.create_task(for_ever())}, close=for_ever)
    consumer._client._sync_task = asyncio.create_task(for_ever())
    made = KillSubscriber(SETTINGS, group_id="g")
    made._consumer = consumer
    async with asyncio.timeout(5):
        await made.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KafkaConnectionError()])
async def test_a_consumer_that_fails_to_close_is_closed_all_the_same(error: BaseException) -> None:
    """The fetcher of aiokafka, closed while it waits before it asks again, ends with a cancellation of its own."""

    async def fails() -> None:
        raise error

    consumer = AIOKafkaConsumer()
    consumer._closed = True
    consumer.stop = fails
    consumer._client._sync_task = asyncio.create_task(asyncio.Event().wait())  # type: ignore[arg-type]
    async with asyncio.timeout(5):
        await leaving.leave(consumer, 1.0)
    assert consumer._client._sync_task is None


async def test_a_commit_that_its_caller_gives_up_is_made_later() -> None:
    """Waiting for a kill with a limit loses no position."""
    consumer = Consumer(PLACE)
    consumer.logs[PLACE] = [record(0, 0)]
    made = await subscribed(consumer, group=True, from_beginning=True)
    await anext(made)
    consumer.committing = asyncio.get_running_loop().create_future()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(made), 0.05)
    consumer.committing = None
    await made.stop()
    assert consumer.positions_kept == {PLACE: 1}


@pytest.mark.parametrize("error", [CommitFailedError(), None])
async def test_a_commit_that_fails_after_its_partition_was_given_up_is_not_made_later(error: Exception | None) -> None:
    """When the partition comes back the position of the group may be further; a partition that stayed keeps its own."""
    consumer = Consumer(PLACE, ADDED)
    made = await subscribed(consumer, group=True, from_beginning=True)
    made._done, consumer.committing = {PLACE: 1, ADDED: 1}, asyncio.get_running_loop().create_future()
    committing = asyncio.create_task(made._commit())
    await asyncio.sleep(0)
    await made._give_up({PLACE})
    if error is None:
        committing.cancel()
    else:
        consumer.committing.set_exception(error)
    await asyncio.wait([committing])
    assert made._done == {ADDED: 1}


async def test_a_partition_is_given_up_within_seconds_while_kafka_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A last commit holds up neither the group nor a stop."""
    monkeypatch.setattr(subscriber, "STOP_SECONDS", 0.05, raising=False)
    consumer = Consumer(PLACE)
    made = await subscribed(consumer, group=True, from_beginning=True)
    made._done, consumer.committing = {PLACE: 1}, asyncio.get_running_loop().create_future()
    async with asyncio.timeout(5):
        await made._give_up({PLACE})
    assert made._done == {}


@pytest.mark.parametrize("look_up_fails", [False, True])
async def test_what_is_fetched_before_the_look_back_is_put_back(look_up_fails: bool) -> None:
    """Records from the committed position on are handed out before the assignment is told: a repetition among them is known, nothing is skipped."""
    consumer = Consumer(PLACE)
    consumer.logs[PLACE] = [record(0, 0), record(1, 1)]
    consumer.positions_kept = {PLACE: 2}  # another member was told these
    made = await subscribed(consumer, group=True)
    listener = _Rebalance(made)
    await listener.on_partitions_revoked({PLACE})
    made._seen = subscriber.SeenIds(10)
    consumer.positions[PLACE] = 2
    consumer.logs[PLACE] += [record(2, 1), record(3, 3)]
    consumer.looked_up.clear()
    assigning = asyncio.create_task(listener.on_partitions_assigned({PLACE}))
    fetching = asyncio.create_task(hears(made, 1.5))
    await asyncio.sleep(0.6)  # longer than a fetch waits for the position
    if look_up_fails:
        assigning.cancel()
    consumer.looked_up.set()
    await asyncio.wait([assigning])
    assert await fetching == ([1, 3] if look_up_fails else [3])


async def test_a_fetch_that_was_waiting_when_partitions_moved_is_put_back() -> None:
    """It comes back with records of the new assignment while the look-back is still sought."""
    consumer = Consumer(PLACE)
    consumer.logs[PLACE] = [record(0, 0)]
    consumer.positions_kept = {PLACE: 1}
    made = await subscribed(consumer, group=True)
    made._in_position.set()
    consumer.logs[PLACE].append(record(1, 0))
    consumer.positions[PLACE] = 1
    fetching = asyncio.create_task(made._fetch(timeout_ms=100))
    await asyncio.sleep(0)
    await made._give_up({PLACE})
    await fetching
    assert consumer.positions == {PLACE: 1}
    made._seen = subscriber.SeenIds(10)
    await made._take_position({PLACE})
    assert await hears(made) == []

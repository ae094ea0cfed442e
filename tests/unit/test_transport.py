"""Chunks out of fetches, and when a partition may be fetched at all."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.errors import ConsumerStoppedError, KafkaError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from streams.batches import Bundle
from streams.ledger import Ledger
from streams.monitoring import CHUNKS_AHEAD, LONGEST_FLUSH_PAUSE, ORDER_SECONDS, RECORDS_AHEAD, Monitoring, Owned
from streams.pace import Pace
from streams.pieces import Piece, Reach
from streams.readings import Reading, Readings
from streams.transport import CHUNK, FETCH_WAIT_MS, Chunk, ChunkedConsumer, Fetched, InlineConsumer, _say_it_goes_back
from tests.idle import idle_monitoring

POSTS, SEEN, STOPS, OTHER = TP("variant_posted", 0), TP("interaction", 0), TP("monitoring_control", 0), TP("interaction", 1)
CHANGELOG = TP("app-engagement-changelog", 0)


def record(offset: int) -> Any:
    return SimpleNamespace(offset=offset, timestamp=5_000, key=b"k", value=b"v")


def consumer() -> Any:
    """A consumer that was never started: what it needs of Faust is put in by hand."""
    made = ChunkedConsumer.__new__(ChunkedConsumer)
    made.ledgers = {}
    made._committed_offset, made._read_offset = {}, defaultdict(lambda: None)
    made.on_going_back = _say_it_goes_back
    made.told = []
    made.on_fetched = made.told.append
    made._is_changelog_tp = lambda tp: tp.topic.endswith("changelog")  # type: ignore[method-assign]
    made.app = SimpleNamespace(consumer_generation_id=1, rebalancing=False, rebalancing_count=1)
    made._to_message = lambda _tp, one: SimpleNamespace(offset=one.offset, key=one.key, value=one.value)  # type: ignore[method-assign]
    return made


def messages_of(made: Any, tp: TP, fetched: Piece[Any]) -> Iterator[Any]:
    return (made._message(tp, part) for part in made._parts(tp, fetched))


def piece(*offsets: int) -> Piece[Any]:
    return Piece(offsets[0], [record(offset) for offset in offsets], offsets[-1] + 1)


def test_a_fetch_becomes_chunks_of_bounded_size() -> None:
    """Each knows its offsets, is announced before it is handed over, and stands at its last record."""
    made = consumer()
    messages = []
    for message in messages_of(made, SEEN, piece(*range(10, 10 + CHUNK + 1))):
        assert made.told[-1] is message.value
        messages.append(message)
    spans = [(message.value.span.first, message.value.span.last, message.offset, message.key, len(message.value.records)) for message in messages]
    assert spans == [(10, 9 + CHUNK, 9 + CHUNK, None, CHUNK), (10 + CHUNK, 10 + CHUNK, 10 + CHUNK, None, 1)]


def test_a_chunk_that_is_done_lets_its_offsets_be_committed() -> None:
    """In order, once all before it are; and only forward."""
    made = consumer()
    first, second = (message.value for message in messages_of(made, SEEN, piece(*range(CHUNK + 5))))
    made._committed_offset = {SEEN: None}
    second.ack()
    assert made._filter_committable_offsets([SEEN]) == {}
    first.ack()
    assert made._filter_committable_offsets([SEEN]) == {SEEN: CHUNK + 5}
    made._committed_offset = {SEEN: CHUNK + 5}
    assert made.committed(SEEN) == CHUNK + 5
    assert made._filter_committable_offsets([SEEN]) == {}


def test_a_source_that_goes_back_is_read_from_there(caplog: pytest.LogCaptureFixture) -> None:
    """And said so, before its first chunk: Faust would pass over all of it, up to where it has been read. What was committed, and is on its way, counts no more."""
    made = consumer()
    made._read_offset.update({SEEN: 109, POSTS: 3})
    made._committed_offset.update({SEEN: 100, POSTS: 3})
    [old] = messages_of(made, SEEN, piece(110, 111))
    made._read_offset[SEEN] = 111
    messages = messages_of(made, SEEN, piece(5, 6))
    [new] = messages
    assert caplog.messages == ["interaction[0] goes on at 5, and was read up to 112: Kafka has lost records. It is read from there"]
    assert (made._read_offset[SEEN], made.committed(SEEN)) == (None, None)
    old.value.ack()
    assert made._filter_committable_offsets([SEEN]) == {}
    new.value.ack()
    assert made._filter_committable_offsets([SEEN]) == {SEEN: 7}
    list(messages_of(made, POSTS, piece(3, 9)))
    assert (len(caplog.messages), made._read_offset[POSTS]) == (1, 3)


def test_what_was_fetched_of_a_changelog_travels_together() -> None:
    """At the offset of its last record, past which recovery is then; no offset of it is ever committed."""
    made = consumer()
    read = piece(1, 2)
    (message,) = messages_of(made, CHANGELOG, read)
    assert (message.offset, message.timestamp, message.tp, message.piece) == (2, 5.0, CHANGELOG, read)
    assert (made.told, made.ledgers) == ([], {})


def test_only_partitions_with_something_handed_out_can_be_committed() -> None:
    """By topic or by partition, or all."""
    made = consumer()
    list(messages_of(made, SEEN, piece(1)))
    list(messages_of(made, POSTS, piece(1)))
    assert set(made._filter_tps_with_pending_acks()) == {SEEN, POSTS}
    assert set(made._filter_tps_with_pending_acks(["interaction"])) == {SEEN}
    assert set(made._filter_tps_with_pending_acks([POSTS, STOPS])) == {POSTS}


class Committed:
    """A consumer that knows offsets only."""

    def __init__(self) -> None:
        self.offsets: dict[TP, int] = {}
        self.ledgers: dict[TP, Ledger] = {}

    def committed(self, tp: TP) -> int | None:
        return self.offsets.get(tp)


def monitoring() -> tuple[Monitoring, dict[str, Reading], Committed]:
    """One that owns partition 0, with nothing there at the assignment and nothing read."""
    known = Committed()
    nothing: Any = SimpleNamespace(worker=None)
    made = idle_monitoring(known)
    readings = {tp.topic: Reading(tp, catch_up=0, next=0) for tp in (POSTS, SEEN, STOPS)}
    made._owned[0] = Owned(nothing, Readings(readings))
    return made, readings, known


async def folded(*_: Any) -> None:
    """Fold, or tick, at once."""


def nothing_read(partition: int) -> Readings:
    return Readings({tp.topic: Reading(TP(tp.topic, partition), catch_up=0, next=0) for tp in (POSTS, SEEN, STOPS)})


def chunk(tp: TP) -> Chunk:
    ledger = Ledger()
    return Chunk(tp, [record(0)], ledger.hand_out(0, 0), ledger)


def test_nothing_is_fetched_for_a_partition_that_is_not_taken_over() -> None:
    """Nor for a topic that is not ours."""
    made, _, _ = monitoring()
    assert not made.may_fetch(OTHER)
    assert not made.may_fetch(TP("variant_killed", 0))


def test_no_more_is_fetched_than_can_be_folded() -> None:
    """So many chunks may wait, and so many records be folded and not done."""
    made, readings, known = monitoring()
    reading = readings["variant_posted"]
    reading.unfolded = CHUNKS_AHEAD - 1
    assert made.may_fetch(POSTS)
    reading.unfolded = CHUNKS_AHEAD
    assert not made.may_fetch(POSTS)
    reading.unfolded = 0
    reading.next, known.offsets[POSTS] = RECORDS_AHEAD + 10, 11
    assert made.may_fetch(POSTS)
    known.offsets[POSTS] = 10
    assert not made.may_fetch(POSTS)


def test_what_is_committed_cannot_be_delivered_again() -> None:
    """All handed out is done and committed, or the end itself is."""
    made, readings, known = monitoring()
    reading = readings["interaction"]
    reading.next = 9
    assert not made._is_committed(reading, 10)
    assert made._is_committed(reading, 9)
    ledger = known.ledgers[SEEN] = Ledger()
    span = ledger.hand_out(0, 6)
    assert not made._is_committed(reading, 9)
    ledger.done(span)
    assert not made._is_committed(reading, 9)
    known.offsets[SEEN] = 7
    assert made._is_committed(reading, 9)


@pytest.mark.parametrize(("took", "pause"), [(0.0, 1), (0.25, 1), (0.5, 2), (LONGEST_FLUSH_PAUSE, LONGEST_FLUSH_PAUSE)])
def test_flushes_that_take_long_come_less_often(took: float, pause: float) -> None:
    """They get a fifth of the time at most, up to a longest pause; quick ones come as configured."""
    made, _, _ = monitoring()
    assert made._pause_after(took) == pause


async def test_a_chunk_that_comes_to_no_agent_stops_the_worker() -> None:
    """When a later one of its topic comes, or after so many looks at which its agent has nothing to do, whatever other topics and partitions have."""
    made, _, _ = monitoring()
    made._owned[1] = Owned(SimpleNamespace(fold=folded, is_closed=False, tick=folded, monitor=SimpleNamespace(waiting=SimpleNamespace(count=0))), nothing_read(1))  # type: ignore[arg-type]
    failed: list[BaseException] = []
    made._fail = failed.append
    lost, other = chunk(SEEN), chunk(TP(SEEN.topic, 1))
    made.fetched(lost)
    made.fetched(other)
    made.take(other)
    assert [str(error) for error in failed] == ["records of interaction[0] were fetched and never came to their agent"]


async def test_a_partition_that_takes_long_keeps_no_other_one_waiting() -> None:
    """An agent has the chunks of all partitions of its topic, one after the other, and only hands them over."""
    made, _, _ = monitoring()
    goes_on, folded = asyncio.Event(), list[int]()

    def worker(partition: int) -> Any:
        async def fold(*_: Any) -> None:
            if partition == 0:
                await goes_on.wait()
            folded.append(partition)

        return SimpleNamespace(fold=fold, is_closed=False, close=lambda: None)

    for partition in range(2):
        made._owned[partition] = Owned(worker(partition), nothing_read(partition))
        made.fetched(one := chunk(TP(SEEN.topic, partition)))
        made.take(one)
    await asyncio.sleep(0.01)
    assert folded == [1]
    goes_on.set()
    await asyncio.sleep(0.01)
    assert folded == [1, 0]
    made.let_go()
    made.take(chunk(SEEN))
    await asyncio.sleep(0.01)
    assert folded == [1, 0]


async def test_a_topic_that_ends_before_what_was_read_of_it_stops_a_monitor() -> None:
    """Its state may count records that are gone; and until new ones come to where it has read, deadlines would pass as if it had read them."""
    made, readings, known = monitoring()
    failed: list[BaseException] = []
    made._fail = failed.append
    readings["interaction"].next = 7
    ends = {POSTS: 0, SEEN: 7, STOPS: 0}

    async def highwaters(*_: TP) -> Mapping[TP, int]:
        readings["interaction"].next += 3  # folded while Kafka answers
        return ends

    async def tick(*_: int) -> None:
        """Nothing is due."""

    known.highwaters = highwaters  # type: ignore[attr-defined]
    made._owned[0] = Owned(SimpleNamespace(tick=tick, monitor=SimpleNamespace(waiting=SimpleNamespace(count=0))), made._owned[0].readings)  # type: ignore[arg-type]
    await made._tick()
    assert not failed
    ends[SEEN] = 9
    await made._tick()
    assert [str(error).partition(",")[0] for error in failed] == ["interaction[0] ends at 9"]


@pytest.mark.parametrize("goes_on", [True, False])
async def test_a_stop_waits_for_the_posts_that_are_there(*, goes_on: bool) -> None:
    """Both may come with one fetch, each to its own agent: a stop that is folded before its post finds no session. It waits as long as it has its partition."""
    made, readings, known = monitoring()
    folded: list[str] = []
    answers: list[Any] = [KafkaError(), {POSTS: 5}]

    async def fold(topic: str, *_: Any) -> None:
        folded.append(topic)

    async def highwaters(_tp: TP) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    worker = made._owned[0].worker = SimpleNamespace(fold=fold, is_closed=False)  # type: ignore[assignment]
    known.highwaters = highwaters  # type: ignore[attr-defined]
    readings["variant_posted"].next = 4
    chunk: Any = SimpleNamespace(tp=STOPS, records=[record(1)], span=SimpleNamespace(last=1))
    made.take(chunk)
    await asyncio.sleep(5 * ORDER_SECONDS)
    assert (folded, answers, chunk.records) == ([], [], [record(1)])
    if goes_on:
        readings["variant_posted"].next = 5
    else:
        worker.is_closed = True
    await asyncio.sleep(5 * ORDER_SECONDS)
    assert folded == (["monitoring_control"] if goes_on else [])


@pytest.mark.parametrize("drop", ["flow stopped", "generation over", "not active"])
async def test_changelogs_whose_records_are_dropped_are_read_again(drop: str) -> None:
    """Recovery waits for them; records of sources come again by themselves, from the offset committed."""
    made = consumer()
    made._stopped = made._crashed = SimpleNamespace(is_set=lambda: False)
    made._buffered_partitions, sought = set(), []
    made.flow_active, made.assignment = drop != "flow stopped", lambda: {SEEN, CHANGELOG}
    rebalances = 1 if drop != "generation over" else 0

    async def fetched(_timeout: float) -> Any:
        read = piece(1)
        return Fetched(rebalances, {SEEN: read, CHANGELOG: read} if drop != "not active" else {CHANGELOG: read}), {SEEN} if drop == "not active" else None

    async def seek(tp: TP, offset: int) -> None:
        sought.append((tp, offset))

    async def perform_seek() -> None:
        """As Faust's, which moves sources only."""

    made._wait_next_records, made.seek, made.perform_seek = fetched, seek, perform_seek
    assert [message async for message in made.getmany(1.0)] == []
    assert sought == [(CHANGELOG, 0)]


async def test_what_a_rebalance_drops_is_not_handed_out() -> None:
    """Nor taken for a source that goes back: it is delivered again, from where the group has committed meanwhile."""
    made = consumer()
    made._stopped, made._crashed, made.flow_active, made._buffered_partitions = asyncio.Event(), asyncio.Event(), True, set()
    made._read_offset[SEEN] = 9
    went_back = []
    made.on_going_back = lambda *what: went_back.append(what)
    made.app.rebalancing_count = 2

    async def fetched(_timeout: float) -> Any:
        return Fetched(1, {SEEN: piece(5, 6)}), {SEEN}

    made._wait_next_records = fetched
    assert [message async for message in made.getmany(1.0)] == []
    assert (made.told, went_back, made.ledgers) == ([], [], {})


def fetcher(positions: Mapping[TP, int] | None = None, **more: Any) -> Any:
    """What of aiokafka's fetcher the consumer looks at: nothing buffered, and the positions of partitions."""
    states = {tp: SimpleNamespace(position=position, has_valid_position=True) for tp, position in (positions or {SEEN: 0, CHANGELOG: 0}).items()}
    assigned = SimpleNamespace(state_value=states.get, tps=set(states))
    return SimpleNamespace(
        _records={}, _subscriptions=SimpleNamespace(reassignment_in_progress=False, subscription=SimpleNamespace(assignment=assigned)), _get_actions_per_node=None, **more
    )


def inline_consumer(of: ChunkedConsumer) -> InlineConsumer:
    inline = InlineConsumer.__new__(InlineConsumer)
    inline.consumer, inline.app, inline._reach, inline._pace = of, of.app, Reach(), Pace()
    return inline


@pytest.mark.parametrize("when", ["before", "during", "over", "never"])
async def test_a_fetch_that_meets_a_rebalance_gives_its_source_records_back(monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """Before Faust is done seeking nobody can tell whether they will come again; the consumer stands where it stood. Changelogs are read on."""
    made, sought = consumer(), []
    app = made.app
    app.rebalancing, app.rebalancing_count = when in ("before", "over"), 1

    async def fetch(*_args: Any) -> Any:
        if when == "during":
            app.rebalancing, app.rebalancing_count = True, 2
        app.rebalancing = app.rebalancing and when != "over"
        return {SEEN: [record(7), record(8)], CHANGELOG: [record(1)]}

    monkeypatch.setattr(driver.AIOKafkaConsumerThread, "_fetch_records", fetch)
    inline = inline_consumer(made)
    fetched = await inline._fetch_records(SimpleNamespace(_fetcher=fetcher(), seek=lambda *to: sought.append(to)), set())  # type: ignore[arg-type]
    assert (set(fetched), sought) == (({SEEN, CHANGELOG}, []) if when == "never" else ({CHANGELOG}, [(SEEN, 7)]))
    assert fetched.rebalances == (2 if when == "during" else 1)


async def test_a_rebalance_lets_only_changelogs_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the application would allow."""
    asked: list[set[TP]] = []

    async def getmany(_self: Any, active: set[TP], _timeout: float) -> Any:
        asked.append(active)
        return Fetched(1, {})

    monkeypatch.setattr(driver.Consumer, "_getmany", getmany)
    made = consumer()
    made.may_fetch = lambda _tp: True
    for made.app.rebalancing in (True, False):
        await made._getmany({SEEN, CHANGELOG}, 1.0)
    assert asked == [{CHANGELOG}, {SEEN, CHANGELOG}]
    made.app.rebalancing = True
    assert not await made._getmany({SEEN}, 1.0)


async def test_what_is_fetched_comes_without_its_bundles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of sources and of changelogs."""

    async def fetch(*_args: Any) -> Any:
        return {SEEN: [Bundle([record(1), record(2)]), record(3)], CHANGELOG: [Bundle([record(1)])]}

    monkeypatch.setattr(driver.AIOKafkaConsumerThread, "_fetch_records", fetch)
    fetched = await inline_consumer(consumer())._fetch_records(SimpleNamespace(_fetcher=fetcher()), set())  # type: ignore[arg-type]
    assert {tp: [one.offset for one in piece.records] for tp, piece in fetched.items()} == {SEEN: [1, 2, 3], CHANGELOG: [1]}


async def test_pieces_of_a_changelog_tell_from_where_to_where_they_were_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions, not offsets of records: compaction leaves gaps. A fetch that finds nothing but a gap leaves it to the next; after a seek a piece begins there."""
    reading = fetcher({CHANGELOG: 0})
    state = reading._subscriptions.subscription.assignment.state_value(CHANGELOG)
    steps: list[tuple[list[Any], int]] = []

    async def fetch(*_args: Any) -> Any:
        found, state.position = steps.pop(0)
        return {CHANGELOG: found} if found else {}

    monkeypatch.setattr(driver.AIOKafkaConsumerThread, "_fetch_records", fetch)
    inline = inline_consumer(consumer())

    async def fetched(found: list[Any], position: int) -> tuple[int, int] | None:
        steps.append((found, position))
        pieces = await inline._fetch_records(SimpleNamespace(_fetcher=reading), {CHANGELOG})  # type: ignore[arg-type]
        return (pieces[CHANGELOG].start, pieces[CHANGELOG].end) if pieces else None

    assert await fetched([Bundle([record(2), record(3)])], 5) == (0, 5)
    assert await fetched([], 8) is None
    assert await fetched([Bundle([record(9)])], 10) == (5, 10)
    state.position = 3
    assert await fetched([Bundle([record(3)])], 5) == (3, 5)


@pytest.mark.parametrize("comes", [True, False])
async def test_what_comes_while_the_consumer_waits_is_fetched_at_once(monkeypatch: pytest.MonkeyPatch, *, comes: bool) -> None:
    """And in bundles, for which nobody else may have touched it; with nothing, the wait ends after the time given."""
    waiter, asked = asyncio.get_running_loop().create_future(), []

    async def fetch(_inline: Any, _consumer: Any, _active: Any, wait: float, _most: Any) -> Any:
        asked.append(wait)
        return {SEEN: [record(1)]} if comes and waiter.done() else {}

    monkeypatch.setattr(driver.AIOKafkaConsumerThread, "_fetch_records", fetch)
    inline = inline_consumer(consumer())
    inline.consumer.flow_active = True
    if comes:
        asyncio.get_running_loop().call_later(0.01, waiter.set_result, None)
    began = asyncio.get_running_loop().time()
    reading = fetcher(_create_fetch_waiter=lambda: waiter, _notify=lambda future: Fetcher._notify(None, future))
    found = await inline._fetch_records(SimpleNamespace(_fetcher=reading), {SEEN}, 5.0 if comes else 0.02)  # type: ignore[arg-type]
    assert (set(found), asked, waiter.done()) == (({SEEN} if comes else set()), [0, 0], True)
    assert asyncio.get_running_loop().time() - began < 2


def test_idle_partitions_hold_no_fetch_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faust's own time is put aside."""
    monkeypatch.setattr(driver.AIOKafkaConsumerThread, "_create_worker_consumer", lambda *_args: SimpleNamespace(_fetch_max_wait_ms=1_500))
    assert InlineConsumer.__new__(InlineConsumer)._create_worker_consumer(None)._fetch_max_wait_ms == FETCH_WAIT_MS


async def drained(messages: list[tuple[TP, Any]], *, error: BaseException | None = None, is_leaving: bool = False) -> list[int]:
    """Let a consumer hand on what it fetches, until it is told to stop; return the offsets handed on."""
    made, handed = consumer(), []
    made._stopped, made._crashed = asyncio.Event(), asyncio.Event()
    made._read_offset = defaultdict(lambda: None)
    made.app.should_stop = is_leaving

    async def getmany(_timeout: float) -> Any:
        for tp, message in messages:
            yield tp, message
        made._stopped.set()
        if error is not None:
            raise error

    async def callback(message: Any) -> None:
        handed.append(message.offset)

    made.getmany, made.callback = getmany, callback
    await made._drain_messages(SimpleNamespace(should_stop=False))
    return handed


async def test_what_is_fetched_is_handed_on_in_order_and_nothing_twice() -> None:
    """An offset before the last one of its partition has been handed on already; that of another partition has not."""
    assert await drained([(SEEN, record(5)), (POSTS, record(2)), (SEEN, record(4)), (SEEN, record(5)), (SEEN, record(9))]) == [5, 2, 5, 9]


@pytest.mark.parametrize("error", [ConsumerStoppedError(), asyncio.CancelledError()], ids=repr)
async def test_a_consumer_that_ends_is_no_error_of_a_worker_that_leaves(error: BaseException) -> None:
    """Of another it is one: Faust starts it again, or the worker ends."""
    assert await drained([(SEEN, record(5))], error=error, is_leaving=True) == [5]
    with pytest.raises(type(error)):
        await drained([(SEEN, record(5))], error=error)


class Part:
    """What stands for the two parts of aiokafka that work by themselves: it is well, or has ended with an error."""

    def __init__(self, error: KafkaError | None = None) -> None:
        self.error_future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._error = error
        if error is not None:
            self.error_future.set_exception(error)

    def check_errors(self) -> None:
        """As its coordinator's."""
        if self._error is not None:
            self.error_future.exception()
            raise self._error


@pytest.mark.parametrize("ended", ["fetching", "the group"])
async def test_a_part_of_aiokafka_that_has_ended_ends_the_consumer(ended: str) -> None:
    """Nobody else would notice that nothing is read any more. One that is not there yet, is well, or was closed is no error."""
    made = consumer()
    made._stopped, made._crashed = asyncio.Event(), asyncio.Event()
    made._thread = inline = inline_consumer(made)
    well, broken = Part(), Part(KafkaError("it gave up"))
    inline._consumer = None
    inline.raise_what_ended()
    inline._consumer = SimpleNamespace(_closed=False, _fetcher=well, _coordinator=None)
    inline.raise_what_ended()
    inline._consumer._coordinator = well
    inline.raise_what_ended()
    setattr(inline._consumer, "_fetcher" if ended == "fetching" else "_coordinator", broken)
    with pytest.raises(KafkaError, match="it gave up"):
        async with asyncio.timeout(5):
            await made._look_after_aiokafka.fun(made)
    inline._consumer._closed = True
    inline.raise_what_ended()


@pytest.mark.parametrize(("topics", "asks"), [(None, 0), (("known",), 0), (("known", "forgotten"), 1)])
async def test_a_leader_asks_again_for_topics_that_it_knows_nothing_of(topics: tuple[str, ...] | None, asks: int) -> None:
    """Only a leader has the topics of its group, and only once it has shared them out."""
    inline, asked = inline_consumer(consumer()), []
    inline._consumer = None
    inline.ask_for_missing_topics()
    cluster = SimpleNamespace(partitions_for_topic={"known": {0, 1}}.get)
    client = SimpleNamespace(force_metadata_update=lambda: asked.append(1))
    inline._consumer = SimpleNamespace(_coordinator=SimpleNamespace(_group_subscription=topics, _cluster=cluster, _client=client))
    inline.ask_for_missing_topics()
    assert len(asked) == asks


async def test_changelogs_are_left_out_of_fetches_once_recovery_is_complete() -> None:
    """As aiokafka knows partitions; sources are not."""
    made, left = consumer(), []
    made._thread = inline = inline_consumer(made)
    inline._consumer = SimpleNamespace(pause=lambda *tps: left.extend(tps), assignment=lambda: {SEEN, CHANGELOG, POSTS})
    made.leave_changelogs()
    assert left == [TopicPartition(*CHANGELOG)]
    assert all(type(tp) is TopicPartition for tp in left)


async def test_the_consumer_is_called_on_the_loop_of_the_application() -> None:
    """What it is asked happens in the asking task, not in a thread; some of its answers come at once, others are awaited."""
    inline = inline_consumer(consumer())

    async def slowly(value: int) -> int:
        await asyncio.sleep(0)
        return value + threading.get_ident()

    assert await inline.call_thread(slowly, 1) == 1 + threading.get_ident()
    assert await inline.call_thread(lambda value: value, 2) == 2

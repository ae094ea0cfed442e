"""What is sent arrives, however often the producer has to be made anew."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from aiokafka.errors import ClusterAuthorizationFailedError, KafkaTimeoutError, MessageSizeTooLargeError, TopicAuthorizationFailedError

from models.errors import Stop
from streams import delivery
from streams.delivery import KafkaLog
from streams.ports import Place


class Batch:
    """Takes two records."""

    def __init__(self) -> None:
        self.values: list[bytes] = []

    def append(self, *, timestamp: None, key: bytes, value: bytes | None, headers: list[tuple[str, bytes]]) -> object | None:  # noqa: ARG002 - aiokafka's signature
        if len(self.values) == 2:
            return None
        self.values.append(key + b"=" + (value or b"") + b";" + b"".join(header for _, header in headers))
        return self

    def record_count(self) -> int:
        return len(self.values)


class Producer:
    """Stands in for aiokafka's: fails as told, and remembers what arrived."""

    made: ClassVar[list[Producer]] = []
    failures: ClassVar[list[str]] = []
    offsets: ClassVar[list[int]] = []
    arrived: ClassVar[list[bytes]] = []
    batches: ClassVar[list[tuple[str, int, list[bytes]]]] = []
    waiting: ClassVar[list[asyncio.Future[Any]]] = []

    def __init__(self, **_: Any) -> None:
        self.is_stopped = self.is_disarmed = False
        Producer.made.append(self)

    async def start(self) -> None:
        await asyncio.sleep(0)
        if self._fails("start"):
            raise KafkaTimeoutError
        if self._fails("forbid start"):
            raise ClusterAuthorizationFailedError

    async def stop(self) -> None:
        self.is_stopped = True

    def disarm(self) -> None:
        self.is_disarmed = True

    async def send(self, _topic: str, value: bytes, **_: Any) -> asyncio.Future[None]:
        if self._fails("send"):
            raise KafkaTimeoutError
        if self._fails("forbid at once"):
            raise TopicAuthorizationFailedError
        if self._fails("refuse at once"):
            raise MessageSizeTooLargeError
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._fails("wait"):
            Producer.waiting.append(future)
        elif self._fails("acknowledge"):
            future.set_exception(KafkaTimeoutError())
        elif self._fails("forbid"):
            future.set_exception(TopicAuthorizationFailedError())
        elif self._fails("refuse"):
            future.set_exception(MessageSizeTooLargeError())
        else:
            Producer.arrived.append(value)
            future.set_result(SimpleNamespace(offset=Producer.offsets.pop(0) if Producer.offsets else -1))
        return future

    def create_batch(self) -> Batch:
        return Batch()

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> asyncio.Future[Any]:
        Producer.batches.append((topic, partition, batch.values))
        return asyncio.shield(await self.send(topic, b"".join(batch.values)))  # as aiokafka does

    @staticmethod
    def _fails(what: str) -> bool:
        if Producer.failures and Producer.failures[0] == what:
            Producer.failures.pop(0)
            return True
        return False


@pytest.fixture
def kafka_log(monkeypatch: pytest.MonkeyPatch) -> KafkaLog:
    monkeypatch.setattr(delivery, "AIOKafkaProducer", Producer)
    monkeypatch.setattr(delivery, "disarm", Producer.disarm)
    monkeypatch.setattr(delivery, "close_disarmed", Producer.stop)
    Producer.made, Producer.failures, Producer.arrived, Producer.batches, Producer.offsets, Producer.waiting = [], [], [], [], [], []
    return KafkaLog({}, client_id="test")


@pytest.mark.parametrize("failures", [[], ["start"], ["send"], ["acknowledge"], ["send", "start", "acknowledge", "send"]])
async def test_a_record_arrives_once_kafka_takes_it_again(kafka_log: KafkaLog, failures: list[str]):
    """Whatever failed before, ``append`` returns when the record is there, and only then."""
    Producer.failures = list(failures)
    await kafka_log.append("topic", b"key", b"value")
    assert Producer.arrived == [b"value"]
    assert kafka_log.away_since is None
    assert [producer.is_stopped for producer in Producer.made[:-1]] == [True] * (len(Producer.made) - 1)


@pytest.mark.parametrize(("failures", "offset", "told"), [([], 7, 7), (["send"], 7, 7), (["acknowledge"], 7, None), ([], -1, None)])
async def test_where_a_record_has_arrived_is_told_if_it_is_there_once(kafka_log: KafkaLog, failures: list[str], offset: int, told: int | None):
    """What was not acknowledged, and so sent again, may be there twice; and the brokers may have forgotten where."""
    Producer.failures, Producer.offsets = list(failures), [offset]
    assert await kafka_log.append("topic", b"key", b"value") == told


async def test_failed_records_of_one_producer_replace_it_once(kafka_log: KafkaLog):
    """A thousand failures of the same producer are one reason to start over, not a thousand."""
    Producer.failures = ["acknowledge"] * 3
    sent = [await kafka_log.send("topic", None, b"value") for _ in range(3)]
    assert [await kafka_log.delivered(ticket) for ticket in sent] == [False] * 3
    assert [(producer.is_disarmed, producer.is_stopped) for producer in Producer.made] == [(True, True), (False, False)]


@pytest.mark.parametrize(
    "send", [lambda log: log.send("topic", None, b"value"), lambda log: log.send_all("topic", 0, [(b"k", b"v")] * 2), lambda log: log.send_all("topic", 0, [(b"k", b"v")] * 3)]
)
async def test_who_gives_up_waiting_does_not_take_back_what_is_on_its_way(kafka_log: KafkaLog, send: Any):
    """One record, one batch, two batches."""
    Producer.failures = ["wait"] * 2
    giving_up = asyncio.create_task(kafka_log.delivered(await send(kafka_log)))
    await asyncio.sleep(0)
    giving_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await giving_up
    assert [future.done() for future in Producer.waiting] == [False] * len(Producer.waiting)
    assert Producer.waiting


async def test_records_of_a_partition_are_packed_into_batches_in_order(kafka_log: KafkaLog):
    """As many as fit, none left out, one acknowledgement for all."""
    sent = await kafka_log.send_all("changelog", 3, [(b"%d" % number, b"v" if number else None) for number in range(5)])
    assert await kafka_log.delivered(sent)
    assert Producer.batches == [("changelog", 3, [b"0=;", b"1=v;"]), ("changelog", 3, [b"2=v;", b"3=v;"]), ("changelog", 3, [b"4=v;"])]


async def test_all_records_of_a_changelog_carry_the_same_header(kafka_log: KafkaLog):
    """It says whose they are."""
    assert await kafka_log.delivered(await kafka_log.send_all("changelog", 0, [(b"a", b"v"), (b"b", None), (b"c", b"v")], [("g", b"<7>")]))
    assert Producer.batches == [("changelog", 0, [b"a=v;<7>", b"b=;<7>"]), ("changelog", 0, [b"c=v;<7>"])]


@pytest.mark.parametrize(("offsets", "place"), [([10, 12, 14], Place(10, 15)), ([10, 13, 15], Place(10, 16)), ([10, -1, 14], None)])
async def test_where_records_have_arrived_is_told_by_their_batches(kafka_log: KafkaLog, offsets: list[int], place: Place | None):
    """From the first one to the last, with what others have sent in between; nothing is told where the brokers no longer know."""
    Producer.offsets = offsets
    sent = await kafka_log.send_all("changelog", 0, [(b"%d" % number, b"v") for number in range(5)])
    assert await kafka_log.delivered(sent)
    assert kafka_log.place(sent) == place


async def test_a_producer_that_replaces_another_begins_a_new_course(kafka_log: KafkaLog):
    """What was sent before may have got lost."""
    first = await kafka_log.send_all("changelog", 0, [(b"a", b"v")])
    second = await kafka_log.send_all("changelog", 0, [(b"b", b"v")])
    assert kafka_log.course(first) is kafka_log.course(second)
    Producer.failures = ["acknowledge"]
    assert not await kafka_log.delivered(await kafka_log.send_all("changelog", 0, [(b"c", b"v")]))
    assert kafka_log.course(await kafka_log.send_all("changelog", 0, [(b"c", b"v")])) is not kafka_log.course(first)


@pytest.mark.parametrize("failures", [["send"], ["acknowledge"]])
async def test_batches_that_fail_are_all_sent_again(kafka_log: KafkaLog, failures: list[str]):
    """By a new producer: what cannot be sent at once, and what is never acknowledged when the caller asks."""
    Producer.failures = list(failures)
    records = [(b"%d" % number, b"v") for number in range(3)]
    while not await kafka_log.delivered(await kafka_log.send_all("changelog", 0, records)):
        pass
    assert Producer.arrived[-2:] == [b"0=v;1=v;", b"2=v;"]
    assert len(Producer.made) == 2


@pytest.mark.parametrize("failure", ["refuse at once", "refuse"])
async def test_a_record_that_is_too_large_for_kafka_stops_instead_of_being_sent_for_ever(kafka_log: KafkaLog, failure: str):
    """One line that names the topic; by the same producer, for it has not failed."""
    Producer.failures = [failure]
    with pytest.raises(Stop, match=r"record for changelog because of its size; max\.message\.bytes"):
        await kafka_log.append("changelog", None, b"value")
    Producer.failures = ["refuse"]
    with pytest.raises(Stop, match="record for changelog"):
        await kafka_log.delivered(await kafka_log.send_all("changelog", 0, [(b"k", b"v")]))
    assert len(Producer.made) == 1


@pytest.mark.parametrize("failure", ["forbid at once", "forbid"])
@pytest.mark.parametrize("send", [lambda log: log.send("topic", None, b"value"), lambda log: log.send_all("topic", 0, [(b"k", b"value")])])
async def test_a_write_that_kafka_forbids_stops_instead_of_being_sent_for_ever(kafka_log: KafkaLog, failure: str, send: Any):
    """No repetition mends a right that is missing, and one line says which topic it is."""
    Producer.failures = [failure]
    with pytest.raises(Stop, match="does not allow writing to topic: TopicAuthorizationFailedError"):
        await kafka_log.delivered(await send(kafka_log))
    assert len(Producer.made) == 1


async def test_a_user_who_may_write_nowhere_is_told_so_at_the_start(kafka_log: KafkaLog):
    """Kafka gives an idempotent producer no id then."""
    Producer.failures = ["forbid start"]
    with pytest.raises(Stop, match="does not let this user write"):
        await kafka_log.start()
    assert Producer.made[0].is_stopped


async def test_two_that_start_at_once_make_one_producer(kafka_log: KafkaLog):
    """A readiness probe and a worker may both be first."""
    await asyncio.gather(kafka_log.start(), kafka_log.start())
    assert len(Producer.made) == 1


async def test_a_start_that_is_given_up_leaves_no_producer_behind(kafka_log: KafkaLog):
    """A probe has little patience."""
    starting = asyncio.create_task(kafka_log.start())
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert [producer.is_stopped for producer in Producer.made] == [True]


async def test_a_stopped_log_takes_nothing_more(kafka_log: KafkaLog):
    """Whoever still wants to send when the worker leaves is cancelled."""
    await kafka_log.start()
    await kafka_log.stop()
    with pytest.raises(asyncio.CancelledError):
        await kafka_log.append("topic", None, b"value")
    assert Producer.arrived == []

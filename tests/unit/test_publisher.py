"""A publisher whose Kafka is away, or forbids: told in time, and told as what it is."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError, KafkaTimeoutError, TopicAuthorizationFailedError
from aiokafka.structs import BrokerMetadata

from models.errors import Retry, Stop
from streams.integration import EventPublisher, Landed, NotPublished, on_variant_posted, producing, publisher
from streams.local.child import free_port
from streams.settings import Settings
from streams.topics import topic_name

POST = {"variant_id": "v", "persona_id": "p", "post_id": "o"}
SETTINGS = Settings.model_validate({"kafka_bootstrap_servers": f"127.0.0.1:{free_port()}"})
TOPIC = topic_name(SETTINGS, "variant_posted")


@pytest.fixture
def nobody_where_brokers_say_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bootstrap address names a broker, and at the broker's own address nobody answers; all else is aiokafka's own."""

    async def bootstrap(client: AIOKafkaClient) -> None:
        client.cluster._brokers = {1: BrokerMetadata(1, "127.0.0.1", free_port(), None)}
        client._sync_task = asyncio.create_task(client._md_synchronizer())

    monkeypatch.setattr(AIOKafkaClient, "bootstrap", bootstrap)
    monkeypatch.setattr(producing, "START_SECONDS", 0.3)


def others() -> set[asyncio.Task[Any]]:
    """Tasks beside that of the test."""
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


@pytest.mark.usefixtures("nobody_where_brokers_say_they_are")
async def test_a_start_that_gets_no_producer_id_is_given_up() -> None:
    """An idempotent producer would ask for ever; nothing is left running."""
    with pytest.raises(Retry, match="no Kafka broker answers"):
        async with asyncio.timeout(5):
            await EventPublisher(SETTINGS).start()
    assert others() == set()


@pytest.mark.usefixtures("nobody_where_brokers_say_they_are")
async def test_a_start_that_its_caller_gives_up_leaves_nothing_running() -> None:
    """The client's tasks end with it."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(EventPublisher(SETTINGS).start(), 0.1)
    assert others() == set()


@pytest.mark.usefixtures("nobody_where_brokers_say_they_are")
async def test_a_producer_that_cannot_be_closed_holds_no_start_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing has its time, too."""

    async def for_ever(_producer: object) -> None:
        await asyncio.Event().wait()

    real = producing.close_disarmed
    closed: list[Any] = []
    monkeypatch.setattr(producing, "close_disarmed", lambda producer: closed.append(producer) or for_ever(producer))
    monkeypatch.setattr(producing, "STOP_SECONDS", 0.1)
    with pytest.raises(Retry):
        async with asyncio.timeout(5):
            await EventPublisher(SETTINGS).start()
    await real(closed[0])
    assert others() == set()


async def test_a_producer_that_cannot_be_closed_holds_no_stop_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on its way has its time, and closing the connections has as much again."""

    async def for_ever(_producer: object) -> None:
        await asyncio.Event().wait()

    disarmed: list[object] = []
    monkeypatch.setattr(producing, "disarm", disarmed.append)
    monkeypatch.setattr(producing, "close_disarmed", for_ever)
    monkeypatch.setattr(producing, "STOP_SECONDS", 0.05)
    made, producer = EventPublisher(SETTINGS), SimpleNamespace(stop=lambda: for_ever(None))
    made._producer = producer  # type: ignore[assignment]
    async with asyncio.timeout(5):
        await made.stop()
    assert disarmed == [producer]


@pytest.mark.usefixtures("nobody_where_brokers_say_they_are")
def test_all_who_wait_for_one_connection_hear_that_there_is_none() -> None:
    """Callers of ``on_variant_posted`` share what the first one waits for."""
    told: list[BaseException] = []

    def call() -> None:
        try:
            on_variant_posted(POST, settings=SETTINGS)
        except Retry as error:
            told.append(error)

    callers = [threading.Thread(target=call, daemon=True) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(5)
    assert len(told) == 3


class Producer:
    """Stands in for aiokafka's: a topic that is not found, or a record that becomes what is told."""

    def __init__(self, *, all_topics: set[str] | BaseException | None = None, becomes: BaseException | Landed | None = None) -> None:
        self.all_topics, self.becomes = all_topics, becomes
        self.client = self

    async def partitions_for(self, _topic: str) -> None:
        if self.becomes is None:
            await asyncio.Event().wait()

    async def fetch_all_metadata(self) -> Any:
        if self.all_topics is None:
            await asyncio.Event().wait()
        if isinstance(self.all_topics, BaseException):
            raise self.all_topics
        return SimpleNamespace(topics=lambda: self.all_topics)

    async def send(self, _topic: str, **_: Any) -> asyncio.Future[Any]:
        sent: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(sent.set_exception, self.becomes)
        return sent


def publisher_of(producer: Producer, **more: Any) -> EventPublisher:
    made = EventPublisher(SETTINGS, **more)
    made._producer = producer
    return made


@pytest.mark.parametrize("all_topics", [KafkaConnectionError(), None, {TOPIC}])
async def test_a_topic_that_nobody_tells_of_is_not_said_to_be_missing(monkeypatch: pytest.MonkeyPatch, all_topics: Any) -> None:
    """Kafka is away, says nothing, or is just back and has it: the event can be sent again."""
    monkeypatch.setattr(publisher, "CONNECT_SECONDS", 0.05)
    with pytest.raises(NotPublished) as told:
        await publisher_of(Producer(all_topics=all_topics)).publish_variant_posted(POST)
    assert told.value.value == POST


async def test_a_topic_that_kafka_does_not_have_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers, and names the others."""
    monkeypatch.setattr(publisher, "CONNECT_SECONDS", 0.05)
    with pytest.raises(Stop, match="is not there"):
        await publisher_of(Producer(all_topics={"other"})).publish_variant_posted(POST)


async def test_an_event_that_kafka_does_not_let_be_written_is_not_to_be_sent_again() -> None:
    """A user who may read the topic, and no more, finds it, and is turned away at the record."""
    with pytest.raises(Stop, match=f"does not allow writing to {TOPIC}"):
        await publisher_of(Producer(becomes=TopicAuthorizationFailedError(TOPIC))).publish_variant_posted(POST)


async def test_an_event_that_fails_otherwise_can_be_sent_again() -> None:
    """As before."""
    with pytest.raises(NotPublished, match="did not acknowledge"):
        await publisher_of(Producer(becomes=KafkaTimeoutError())).publish_variant_posted(POST)


async def test_a_refusal_after_the_time_is_up_changes_nothing() -> None:
    """The caller has been told once."""
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, complaint: complaints.append(complaint))
    made = publisher_of(Producer(becomes=TopicAuthorizationFailedError(TOPIC)), timeout_seconds=0.0)
    sent: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    landed = made._acknowledgement(sent, "variant_posted", POST)
    with pytest.raises(NotPublished, match="no answer"):
        await landed
    sent.set_exception(TopicAuthorizationFailedError(TOPIC))
    await asyncio.sleep(0)
    assert isinstance(landed.exception(), NotPublished)
    assert complaints == []

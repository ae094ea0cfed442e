"""A worker that starts while Kafka goes away waits for it, and ends with one line if that cannot help."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import IllegalStateError, KafkaConnectionError, KafkaTimeoutError, NodeNotReadyError, TopicAuthorizationFailedError
from faust.tables.recovery import Recovery

from streams import patience
from streams.app import Worker
from streams.faust_app import create_app
from streams.logs import _without_trace
from streams.patience import WaitingInlineConsumer, WaitingProducer, WaitingRecovery, until_it_answers
from streams.settings import Settings


class Kafka:
    """Fails as told, then answers with the number of the question."""

    def __init__(self, *failures: Exception) -> None:
        self._failures = list(failures)
        self.asked = 0

    async def ask(self) -> int:
        self.asked += 1
        if self._failures:
            raise self._failures.pop(0)
        return self.asked


@pytest.fixture(autouse=True)
def paused(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long it has paused; which takes no time."""
    sleep, pauses = asyncio.sleep, list[float]()

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(patience, "asyncio", SimpleNamespace(sleep=pause))
    return pauses


async def test_kafka_is_asked_until_it_answers(caplog: pytest.LogCaptureFixture, paused: list[float]):
    """With one line however often it fails, whether nobody listens, the answer takes too long or the broker is not itself yet."""
    kafka = Kafka(KafkaConnectionError("nobody there"), KafkaTimeoutError(), *(NodeNotReadyError() for _ in range(4)))
    assert await until_it_answers(kafka.ask) == 7
    assert [record.getMessage() for record in caplog.records] == ["waiting for Kafka: KafkaConnectionError: nobody there"]
    assert paused == [0.5, 1, 2, 4, 4, 4]


@pytest.mark.parametrize("error", [TopicAuthorizationFailedError(), IllegalStateError("rebalanced"), ValueError()])
async def test_what_waiting_does_not_mend_is_raised(error: Exception):
    """At once."""
    with pytest.raises(type(error)):
        await until_it_answers(Kafka(error).ask)


async def test_nobody_waits_for_an_answer_that_is_not_wanted_any_more():
    """A worker that is told to leave leaves."""
    kafka = Kafka(KafkaConnectionError(), KafkaConnectionError())
    assert await until_it_answers(kafka.ask, lambda: kafka.asked == 2) is None


async def test_the_consumer_waits():
    """It connects after the others, so Kafka may be gone again by then."""
    inline, kafka = WaitingInlineConsumer.__new__(WaitingInlineConsumer), Kafka(KafkaConnectionError())
    inline.thread_loop = asyncio.get_running_loop()
    inline._create_consumer = lambda **_: SimpleNamespace(start=kafka.ask)
    inline._stopped = inline._crashed = asyncio.Event()
    await inline.on_start()
    assert kafka.asked == 2


async def test_a_topic_is_created_when_a_broker_is_known():
    """Faust takes a Kafka that has just started, and knows itself not yet, for one that cannot be used at all."""
    made, brokers, created = WaitingProducer.__new__(WaitingProducer), [], []

    async def look() -> bool:
        brokers.append("one more look")
        return len(brokers) == 2

    async def create(*arguments: Any, **_: Any) -> None:
        created.append(arguments[3])

    made._producer = SimpleNamespace(client=SimpleNamespace(cluster=SimpleNamespace(brokers=lambda: brokers[1:]), force_metadata_update=look))
    made.app = SimpleNamespace(conf=SimpleNamespace(topic_allow_declare=True))
    made.transport = SimpleNamespace(_create_topic=lambda *arguments, **options: create(None, *arguments, **options))
    await made.create_topic("changelog", 4, 1)
    assert created == ["changelog"]


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_each_caller_creates_a_topic_for_itself(monkeypatch: pytest.MonkeyPatch, *, is_cancelled: bool):
    """A table and Faust's conductor create one changelog at once. In Faust they share an attempt: if it fails the second waits for ever; it fails if the second is cancelled."""
    transport = create_app(Settings(), "patience").transport
    asked = 0

    async def create(*_: object, **__: object) -> None:
        nonlocal asked
        asked += 1
        is_first = asked == 1
        await asyncio.sleep(0.01)
        if is_first and not is_cancelled:
            raise NodeNotReadyError

    monkeypatch.setattr(transport, "_really_create_topic", create)
    async with asyncio.timeout(5):
        first, second = (asyncio.create_task(transport._create_topic(None, None, "changelog", 4, 1)) for _ in range(2))
        await asyncio.sleep(0.001)
        if is_cancelled:
            second.cancel()
        ends = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(end) for end in ends] == ([type(None), asyncio.CancelledError] if is_cancelled else [NodeNotReadyError, type(None)])


async def test_a_recovery_outlives_a_long_outage():
    """Faust's own takes the end of its patience for the end of the worker."""
    app = create_app(Settings(), "patience")
    assert app.transport is app.producer_transport
    recovery = app.tables.recovery
    await recovery._wait(asyncio.sleep(0.02), timeout=0.001)
    kafka = Kafka(KafkaTimeoutError())

    async def highwaters(*_: object) -> dict[object, int]:
        await kafka.ask()
        return {"tp": 7}

    recovery._highwater_logtable = lambda *_, **__: ""
    await recovery._build_highwaters(SimpleNamespace(highwaters=highwaters), {"tp"}, recovery.active_highwaters, "active")
    assert recovery.active_highwaters == {"tp": 6}


async def test_a_recovery_that_a_rebalance_has_overtaken_is_known(monkeypatch: pytest.MonkeyPatch):
    """What waits for its end runs on under the next assignment, of which nothing has been read yet. Also where it begins before Kafka was asked anything."""
    app = SimpleNamespace(rebalancing_count=1)
    recovery = WaitingRecovery.__new__(WaitingRecovery)
    recovery.app = app
    begun = []

    async def begin(_recovery: Recovery, *assignment: object) -> None:
        begun.append(assignment)

    monkeypatch.setattr(Recovery, "on_rebalance", begin)
    said = []
    for _ in range(2):
        await recovery.on_rebalance({"tp"}, set(), {"tp"}, 7)
        said.append(recovery.is_current)
        app.rebalancing_count += 1
        said.append(recovery.is_current)
    assert said == [True, False, True, False]
    assert begun == [({"tp"}, set(), {"tp"}, 7)] * 2


async def test_what_makes_faust_crash_ends_the_worker():
    """Whoever is handed it says so in one line; Faust would tell of it in a hundred."""
    told: list[BaseException] = []
    worker, error = Worker(create_app(Settings(), "crashes"), told.append), KafkaConnectionError()
    worker._crash(error)
    assert told == [error]


def test_an_error_of_kafka_is_logged_without_its_trace():
    """Any other keeps it."""

    def record(error: Exception) -> logging.LogRecord:
        return logging.LogRecord("faust", logging.ERROR, "", 0, "Crashed", (), (type(error), error, None))

    outage, other = record(KafkaConnectionError()), record(ValueError())
    assert _without_trace(outage)
    assert _without_trace(other)
    assert (outage.exc_info, other.exc_info is None) == (None, False)
    assert outage.getMessage() == "Crashed: KafkaConnectionError"

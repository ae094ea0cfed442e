"""How much the sink says that it has still to write; the consumer is scripted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from faust.types import TP

from models.errors import Retry
from streams.ledger import Ledger
from streams.sink_lag import ASK_SECONDS, SinkLag
from streams.transport import ChunkedConsumer

FIRST, SECOND = TP("monitoring_record", 0), TP("monitoring_record", 1)


class Consumer(ChunkedConsumer):
    """Has fetched up to 3 of what is on ``FIRST``, and nothing of ``SECOND``."""

    def __init__(self) -> None:
        self.ledgers: dict[TP, Ledger] = {}
        self.ends = {FIRST: 3, SECOND: 2}
        self.is_away = False

    def assignment(self) -> set[TP]:
        return {FIRST, SECOND}

    def highwater(self, tp: TP) -> int | None:
        return 3 if tp == FIRST else None

    def committed(self, tp: TP) -> int | None:
        return 1 if tp == FIRST else None

    async def highwaters(self, *tps: TP) -> dict[TP, int]:
        if self.is_away:
            raise KafkaConnectionError("nobody answers")
        return {tp: self.ends[tp] for tp in tps}


def lag_of(consumer: Any, *, is_assigned: bool = True) -> SinkLag:
    app: Any = SimpleNamespace(consumer=consumer, should_stop=False)
    return SinkLag(app, lambda: is_assigned)


async def test_the_lag_grows_though_nothing_is_fetched():
    """A sink that waits for PostgreSQL fetches nothing: only Kafka can say how much has come since."""
    consumer = Consumer()
    lag = lag_of(consumer)
    assert lag.now() == {FIRST: 2, SECOND: 0}
    consumer.ends = {FIRST: 5_001, SECOND: 7}
    assert await lag.look() == ASK_SECONDS
    assert lag.now() == {FIRST: 5_000, SECOND: 7}


async def test_what_is_written_shrinks_the_lag():
    """Before the next look, too; and what was fetched later than it counts."""
    consumer = Consumer()
    lag = lag_of(consumer)
    consumer.ends = {FIRST: 2, SECOND: 2}
    await lag.look()
    consumer.ledgers[FIRST] = Ledger(committable=2)
    assert lag.now() == {FIRST: 1, SECOND: 2}


async def test_without_kafka_the_last_answer_holds():
    """It is said that Kafka does not answer; the sink goes on."""
    consumer = Consumer()
    lag = lag_of(consumer)
    await lag.look()
    consumer.is_away = True
    with pytest.raises(Retry, match="nobody answers"):
        await lag.look()
    assert lag.now() == {FIRST: 2, SECOND: 2}


async def test_nothing_lags_where_nothing_is_assigned():
    """Nor is Kafka asked."""
    for lag in (lag_of(Consumer(), is_assigned=False), lag_of(None)):
        assert await lag.look() == ASK_SECONDS
        assert lag.now() == {}

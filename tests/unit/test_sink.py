"""Chunks that wait for PostgreSQL, and chunks that do not wait for those."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from faust.types import TP
from psycopg import errors

from models.monitoring_record import MonitoringRecord
from streams.metrics import Metrics
from streams.persistence import Persisted
from streams.persister import Persister
from streams.sink import AT_ONCE, Sink
from tests.records import start_of


@dataclass
class Record:
    value: bytes
    key: bytes
    offset: int = 0
    timestamp: int = 0


@dataclass
class Chunk:
    tp: TP
    records: list[Record]
    acks: list[str] = field(default_factory=list)

    def ack(self) -> None:
        self.acks.append("acknowledged")


class NoLog:
    async def append(self, *_: Any) -> None:
        pytest.fail("nothing is given up")


def chunk(*variants: str, partition: int = 0) -> Chunk:
    """The start of a session of each variant."""
    records = [Record(start_of(variant, started_at_us=1_700_000_000_000_000).to_bytes(), variant.encode()) for variant in variants]
    return Chunk(TP("monitoring_record", partition), records)


def give_up(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("error", [errors.LockNotAvailable("canceling statement due to lock timeout"), errors.QueryCanceled("canceling statement due to statement timeout")])
async def test_chunks_that_wait_for_a_variant_keep_none_from_being_written(error: Exception):
    """However many there are: others are taken, written and acknowledged; those that wait are, when nothing blocks their variants any more."""
    blocked = {"slow"}
    gate = asyncio.Event()

    async def write(records: Sequence[MonitoringRecord]) -> Persisted:
        if blocked & {record.variant_id for record in records}:
            raise error
        return Persisted(started=len(records))

    async def sleep(_: float) -> None:
        await (gate.wait() if persister.held_variants else asyncio.sleep(0))

    persister = Persister(write, clock_us=lambda: 0, sleep=sleep, jitter=lambda: 1.0)
    sink = Sink(persister, NoLog(), "dead_letter", Metrics(), lambda: 0, give_up)
    waiting = [chunk("slow", f"v{number}") for number in range(2 * AT_ONCE)]
    others = [chunk("w", partition=1) for _ in range(2 * AT_ONCE)]
    async with asyncio.timeout(5):
        for one in waiting + others:
            await sink.take(one)  # type: ignore[arg-type]
        while not all(one.acks for one in others):
            await asyncio.sleep(0)
        assert not any(one.acks for one in waiting)
        blocked.clear()
        gate.set()
        await sink.drain(5)
    assert [one.acks for one in waiting + others] == [["acknowledged"]] * 4 * AT_ONCE
    assert sink._slots._value == AT_ONCE


async def test_a_record_that_cannot_be_written_is_named_in_the_log(caplog: pytest.LogCaptureFixture):
    """Its kill, if it is one, was not cleaned up after: nothing else would tell the operator before the alert does."""
    buried: list[bytes] = []

    class Log:
        async def append(self, _topic: str, key: bytes, _value: bytes) -> None:
            buried.append(key)

    async def write(records: Sequence[MonitoringRecord]) -> Persisted:
        if any(record.variant_id == "bad" for record in records):
            raise errors.CheckViolation("violates a check of ours")
        return Persisted(started=len(records))

    async def sleep(_: float) -> None:
        await asyncio.sleep(0)

    metrics = Metrics()
    sink = Sink(Persister(write, clock_us=lambda: 0, sleep=sleep, jitter=lambda: 1.0), Log(), "dead_letter", metrics, lambda: 0, give_up)
    some = chunk("good", "bad", "fine")
    some.records += [Record(b"[]", b"good", offset=7)]
    async with asyncio.timeout(5):
        await sink.take(some)  # type: ignore[arg-type]
        await sink.drain(5)
    assert (len(buried), some.acks) == (2, ["acknowledged"])
    first, second = caplog.messages
    assert first.startswith("1 record(s) of monitoring_record[0] cannot be written and are dead letters now, at last offset 7: ")
    assert second == "1 record(s) of monitoring_record[0] cannot be written and are dead letters now, at last offset 0: PostgreSQL: violates a check of ours"
    assert metrics.registry.get_sample_value("performance_monitor_sink_records_total", {"result": "dead_letter"}) == 2


async def test_good_records_do_not_wait_behind_each_bad_one():
    """Hundreds of dead letters are on their way at once, so what is good among them is written as soon as Kafka has answered once."""
    on_its_way = asyncio.Semaphore(0)
    answer = asyncio.Event()

    class Log:
        async def append(self, *_: Any) -> None:
            on_its_way.release()
            await answer.wait()

    async def write(records: Sequence[MonitoringRecord]) -> Persisted:
        return Persisted(started=len(records))

    sink = Sink(Persister(write, clock_us=lambda: 0), Log(), "dead_letter", Metrics(), lambda: 0, give_up)
    some = chunk("good")
    some.records += [Record(b"[]", b"good", offset=number) for number in range(300)]
    async with asyncio.timeout(5):
        await sink.take(some)  # type: ignore[arg-type]
        for _ in range(300):
            await on_its_way.acquire()
        answer.set()
        await sink.drain(5)
    assert some.acks == ["acknowledged"]

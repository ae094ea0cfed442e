"""The sink: a Faust app that brings every monitoring record into PostgreSQL, and waits for it as long as it takes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Protocol

import faust
from faust.types import TP

from models.errors import Reject
from models.monitoring_record import MonitoringRecord, parse_keyed
from streams.codec import dead_letter, microseconds
from streams.crash_points import crash_point
from streams.delivery import KafkaLog
from streams.faust_app import create_app, source_topic
from streams.kafka_access import kafka_client_options
from streams.metrics import Metrics
from streams.persister import Written
from streams.ports import Appender, Incoming
from streams.settings import Settings
from streams.sink_lag import SinkLag
from streams.topics import topic_name
from streams.transport import Chunk, ChunkedConsumer

log = logging.getLogger(__name__)

AT_ONCE = 3
"""Chunks under way at once; one of which only variants are left that wait by themselves, as for a locked row, is not counted."""
CHUNKS_AHEAD = 8
"""Chunks of one partition that are fetched and not written before no more are fetched; those that wait are counted."""


class Persister(Protocol):
    """Who writes; ``streams.persister.Persister``."""

    async def persist(self, records: Sequence[MonitoringRecord], waits: Callable[[], None]) -> Written:
        """Return when each record is written, or refused for good; calls ``waits`` once only variants are left that wait by themselves. ``Stop``: the set-up is wrong."""


class Sink:
    """Writes chunks of monitoring records, a few at once, and acknowledges each when nothing of it can be lost."""

    def __init__(self, persister: Persister, log: Appender, dead_letter_topic: str, metrics: Metrics, clock: Callable[[], int], fail: Callable[[BaseException], None]) -> None:
        self._persister, self._log, self._dead_letter_topic = persister, log, dead_letter_topic
        self._metrics, self._clock, self._fail = metrics, clock, fail
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._advanced_at = 0.0
        self.unwritten: Counter[TP] = Counter()
        self.is_assigned = False

    async def take(self, chunk: Chunk) -> None:
        """Begin to write a chunk; returns once there is room for the next."""
        await self._slots.acquire()
        if not self._tasks:
            self._advanced_at = time.monotonic()
        task = asyncio.get_running_loop().create_task(self._write(chunk))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stalled_seconds(self) -> float:
        """Return since when chunks have been under way and none was finished; 0 with none under way."""
        return time.monotonic() - self._advanced_at if self._tasks else 0.0

    async def drain(self, seconds: float) -> None:
        """Wait for what is under way, at most so long; the rest is delivered again after the next start."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds)
            for task in late:
                task.cancel()

    async def _write(self, chunk: Chunk) -> None:
        slot = ExitStack()
        slot.callback(self._slots.release)
        try:
            crash_point("sink_after_read")
            records, chunk.records = chunk.records, []
            await self._write_batch(chunk.tp, records, slot.close)
            crash_point("sink_before_ack")
            chunk.ack()
            self._advanced_at = time.monotonic()
        except Exception as error:  # noqa: BLE001 - handed to whoever stops the worker
            self._fail(error)
        finally:
            self.unwritten[chunk.tp] -= 1
            slot.close()

    async def _write_batch(self, tp: TP, incoming: Sequence[Incoming], waits: Callable[[], None]) -> None:
        began = time.monotonic()
        parsed: list[MonitoringRecord] = []
        sources: dict[int, Incoming] = {}
        unusable: list[tuple[Incoming, str]] = []
        for record in incoming:
            try:
                message = parse_keyed(record.value, record.key)
            except Reject as error:
                unusable.append((record, str(error)))
            else:
                parsed.append(message)
                sources[id(message)] = record
        await self._bury(tp, unusable)
        written = await self._persister.persist(parsed, waits)
        refused = [(sources[id(rejected.record)], rejected.reason) for rejected in written.rejected]
        await self._bury(tp, refused)
        self._metrics.read(tp.topic, len(incoming))
        self._metrics.sank(len(incoming), time.monotonic() - began, {**asdict(written.persisted), "dead_letter": len(unusable) + len(refused)})

    async def _bury(self, tp: TP, refused: Sequence[tuple[Incoming, str]]) -> None:
        letters = [
            dead_letter(tp.topic, tp.partition, record.offset, microseconds(record.timestamp), record.key, record.value, reason, self._clock()) for record, reason in refused
        ]
        await asyncio.gather(*(self._log.append(self._dead_letter_topic, *letter) for letter in letters))  # not one after the other: good records wait behind them
        if refused:
            record, reason = refused[-1]
            log.error("%d record(s) of %s[%d] cannot be written and are dead letters now, at last offset %d: %.500s", len(refused), tp.topic, tp.partition, record.offset, reason)


@dataclass(frozen=True, slots=True)
class SinkWorker:
    """A sink that is set up and not started yet."""

    app: faust.App
    sink: Sink
    log: KafkaLog
    lag: SinkLag


def create_sink(
    settings: Settings, persister: Persister, metrics: Metrics, clock: Callable[[], int], fail: Callable[[BaseException], None], on_ready: Callable[[], None]
) -> SinkWorker:
    """Set up a sink.

    Args:
        settings: Everything it needs to know.
        persister: Who writes.
        metrics: Who counts.
        clock: Wall clock in microseconds since the epoch.
        fail: Called with what makes it impossible to go on; must not return to business.
        on_ready: Called when records have begun to flow.
    """
    app = create_app(settings, f"{settings.app_id}-sink")
    kafka_log = KafkaLog(kafka_client_options(settings), client_id=f"{settings.app_id}-sink")
    sink = Sink(persister, kafka_log, topic_name(settings, "dead_letter"), metrics, clock, fail)

    async def persist_records(stream: faust.StreamT) -> None:
        async for event in stream.noack().events():
            await sink.take(event.value)

    def may_fetch(tp: TP) -> bool:
        return sink.unwritten[tp] < CHUNKS_AHEAD

    def fetched(chunk: Chunk) -> None:
        sink.unwritten[chunk.tp] += 1

    async def begin(_app: faust.App, **_: object) -> None:
        await kafka_log.start()
        consumer = app.consumer
        sink.is_assigned = True
        if isinstance(consumer, ChunkedConsumer):
            consumer.may_fetch, consumer.on_fetched = may_fetch, fetched
        on_ready()

    async def start_over(_app: faust.App, revoked: object, **_: object) -> None:  # noqa: ARG001 - Faust's signature
        sink.unwritten.clear()
        sink.is_assigned = False

    async def drain(_app: faust.App, **_: object) -> None:
        await sink.drain(seconds=5)
        await kafka_log.stop()

    app.agent(source_topic(app, topic_name(settings, "monitoring_record"), settings.partitions), name="persist_records")(persist_records)
    app.on_partitions_revoked.connect(start_over)
    app.on_rebalance_complete.connect(begin)
    app.on_before_shutdown.connect(drain)
    return SinkWorker(app, sink, kafka_log, SinkLag(app, lambda: sink.is_assigned))

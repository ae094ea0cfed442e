"""A monitor: the Faust app whose agents feed the partitions this worker owns."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import faust
from faust.windows import TumblingWindow

from models.moments import MINUTE, SECOND
from models.monitor import Limits
from streams.bad_input import BadInputLimit
from streams.chores import keep_doing
from streams.clock import wall_clock
from streams.delivery import KafkaLog
from streams.faust_app import create_app, source_topic
from streams.garbage import Freezer
from streams.kafka_access import kafka_client_options
from streams.live import Live
from streams.metrics import Metrics
from streams.monitoring import Monitoring
from streams.observing import Observing
from streams.origins import Origins
from streams.pauses import Pauses
from streams.ports import Tables, Topics
from streams.settings import Settings
from streams.tables import StateTable, drop_unapplied
from streams.topic_ids import topic_identities
from streams.topics import topic_name
from streams.transport import Chunk, ChunkedConsumer
from streams.watchdog import Watchdog

logger = logging.getLogger(__name__)

WINDOW_SECONDS = 600.0
"""Size of the tumbling windows by ``posted_at`` that states are kept in."""
EXPIRES_SECONDS = 31 * 86_400.0
"""Windows outlive the longest session (30 days); ended sessions are deleted one by one, long before."""


@dataclass(frozen=True, slots=True)
class MonitorWorker:
    """A monitor that is set up and not started yet."""

    app: faust.App
    live: Live
    log: KafkaLog


def create_monitor(settings: Settings, metrics: Metrics, fail: Callable[[BaseException], None], on_ready: Callable[[], None], **faust_options: Any) -> MonitorWorker:
    """Set up a monitor.

    Args:
        settings: Everything it needs to know.
        metrics: Who counts.
        fail: Called with what makes it impossible to go on; must not return to business.
        on_ready: Called whenever the partitions assigned have been taken over, be they none.
        faust_options: Settings of ``faust.App`` for the web server.
    """
    app = create_app(settings, settings.app_id, **faust_options)
    topics = Topics(*(topic_name(settings, name) for name in Topics.__dataclass_fields__))
    window = TumblingWindow(WINDOW_SECONDS, expires=EXPIRES_SECONDS)
    tables = Tables(
        engagement=app.tables.add(StateTable(app, name="engagement", partitions=settings.partitions, window=window)),
        event_id=app.tables.add(StateTable(app, name="event_id", partitions=settings.partitions, window=window)),
        waiting=app.tables.add(StateTable(app, name="waiting", partitions=settings.partitions)),
    )
    watchdog = Watchdog(settings.session_timeout_seconds, fail)
    kafka = kafka_client_options(settings)
    log = KafkaLog(kafka, client_id=f"{settings.app_id}-monitor", may_send=watchdog.check)
    state_log = KafkaLog(kafka, client_id=f"{settings.app_id}-monitor-state", may_send=watchdog.check)  # a kill waits for no flush that is under way
    monitoring = Monitoring(
        app,
        log=log,
        state_log=state_log,
        tables=tables,
        topics=topics,
        defaults=settings.defaults,
        limits=Limits(grace=round(settings.grace_seconds * SECOND), wait=round(settings.waiting_minutes * MINUTE)),
        waiting_limit=settings.waiting_limit,
        flush_seconds=settings.flush_interval_seconds,
        observer=Observing(metrics, BadInputLimit() if settings.stop_on_bad_input else None),
        clock=wall_clock,
        fail=fail,
    )
    metrics.watch_lag(monitoring.lag)
    metrics.watch_event_ids(lambda: sum(monitor.event_ids for monitor in monitoring.monitors.values()))
    origins = Origins(
        app,
        topics.sources,
        [table for table in (tables.engagement, tables.event_id, tables.waiting) if isinstance(table, StateTable)],
        app.tables.add(StateTable(app, name="origin", partitions=settings.partitions)),
        log,
        identities=partial(topic_identities, settings),
        partitions=settings.partitions,
        lost=metrics.lost,
    )
    pauses, freezer = Pauses(), Freezer()
    metrics.watch_pauses(pauses)
    _connect(app, monitoring, origins, (log, state_log), watchdog, pauses, freezer, fail, on_ready)
    for name in topics.sources:
        _add_agent(app, name, settings.partitions, monitoring)
    live = Live(app, lambda: monitoring.monitors, topics.interaction, tables.engagement.changelog_topic_name)
    return MonitorWorker(app, live, log)


def _add_agent(app: faust.App, topic: str, partitions: int, monitoring: Monitoring) -> None:
    async def hand_over(stream: faust.StreamT) -> None:
        async for event in stream.noack().events():
            monitoring.take(event.value)

    app.agent(source_topic(app, topic, partitions), name=f"fold_{topic}")(hand_over)


def _connect(
    app: faust.App,
    monitoring: Monitoring,
    origins: Origins,
    logs: tuple[KafkaLog, ...],
    watchdog: Watchdog,
    pauses: Pauses,
    freezer: Freezer,
    fail: Callable[[BaseException], None],
    on_ready: Callable[[], None],
) -> None:
    """Tie what happens to the app to what the monitoring has to do."""
    looking: list[asyncio.Task[None]] = []

    async def let_go(_app: faust.App, revoked: object, **_: object) -> None:  # noqa: ARG001 - Faust's signature
        drop_unapplied(app.tables.recovery)
        monitoring.let_go()
        origins.forget()

    def fetched(chunk: Chunk) -> None:
        origins.fetched(chunk.tp, chunk.span.first, chunk.span.last)
        monitoring.fetched(chunk)

    async def take_over() -> None:
        rebalances, is_current = app.rebalancing_count, app.tables.recovery.is_current
        try:
            watchdog.start()
            pauses.start()
            freezer.start()
            await asyncio.gather(*(log.start() for log in logs))
            if not looking:
                looking.append(asyncio.create_task(keep_doing("the look at the topics", origins.look, fail)))
            if is_current and app.rebalancing_count == rebalances and await _take_over(app, monitoring, origins, fetched):
                on_ready()
        except Exception as error:  # noqa: BLE001 - Faust would swallow it
            _fail_unless_leaving(app, fail, error)

    async def drain(_app: faust.App, **_: object) -> None:
        for task in looking:
            task.cancel()
        await monitoring.stop()
        await asyncio.gather(*(log.stop() for log in logs))
        pauses.stop()
        freezer.stop()

    app.on_partitions_revoked.connect(let_go)
    app.on_before_shutdown.connect(drain)
    next(iter(app.tables.values())).on_recover(take_over)


async def _take_over(app: faust.App, monitoring: Monitoring, origins: Origins, fetched: Callable[[Chunk], None]) -> bool:
    """Take over what is assigned; False if the assignment has changed meanwhile."""
    _read_sources_only(app.consumer, monitoring, fetched)
    if not await origins.check():
        return False
    monitoring.start()
    return await monitoring.take_over()


def _read_sources_only(consumer: object, monitoring: Monitoring, fetched: Callable[[Chunk], None]) -> None:
    if isinstance(consumer, ChunkedConsumer):
        consumer.may_fetch, consumer.on_fetched, consumer.on_going_back = monitoring.may_fetch, fetched, monitoring.went_back
        consumer.leave_changelogs()


def _fail_unless_leaving(app: faust.App, fail: Callable[[BaseException], None], error: Exception) -> None:
    """Fail over an error of a takeover, unless the worker was told to stop meanwhile: then the consumer may be gone already, and nothing is lost."""
    if app.should_stop:
        logger.info("gives the takeover of its partitions up, and leaves: %r", error)
    else:
        fail(error)

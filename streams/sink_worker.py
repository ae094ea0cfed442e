"""A sink with all that it does beside its records: calls to another system, the sweep of posts, health and metrics over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import faust
import mode
from faust.app.base import BootStrategy
from sqlalchemy.ext.asyncio import AsyncEngine

from models.monitoring_record import MonitoringRecord
from streams.chores import keep_doing
from streams.clock import wall_clock
from streams.database import create_engine, ping
from streams.metrics import Metrics
from streams.outbound.pending import PendingCalls
from streams.outbound.relay import LEASE_MARGIN_SECONDS, Relay
from streams.outbound.sending import Sender
from streams.outbound.target import Target, target_of
from streams.persistence import Persisted, persist
from streams.persister import Persister
from streams.settings import Settings
from streams.sink import SinkWorker, create_sink
from streams.sweep import Sweeper
from streams.web.readiness import Probe
from streams.web.sink_server import SinkReadiness, SinkServer, SinkState, application

DRAIN_SECONDS = 2.0
"""How long calls under way get to come to their end when the sink stops."""
Fail = Callable[[BaseException], None]
Step = Callable[[], Awaitable[float]]


@dataclass(frozen=True, slots=True)
class Outbound:
    """The calls to another system, if there is one."""

    target: Target
    relay: Relay
    sender: Sender


class Errands(mode.Service):  # type: ignore[misc]
    """What a sink does beside its records, for as long as it runs. With connections of its own to PostgreSQL, so that it never takes those of records.

    Args:
        server: Health and metrics.
        engine: Of its own; closed at the end.
        outbound: Calls to another system, or None.
        swept: Told of posts that a sweep has cancelled.
        look: Asks how many records there are to write; returns the pause until the next time.
        fail: Called with what makes it impossible to go on.
    """

    def __init__(self, server: SinkServer, engine: AsyncEngine, outbound: Outbound | None, swept: Callable[[int], None], look: Step, fail: Fail) -> None:
        super().__init__()
        self._server, self._engine, self._outbound, self._fail = server, engine, outbound, fail
        self._chores: dict[str, Step] = {"the sweep of scheduled posts": Sweeper(engine, swept).step, "the look at the consumer lag": look}
        if outbound is not None:
            self._chores |= {"the relay of outbound calls": outbound.relay.step, "the count of outbound calls": outbound.relay.watch}
        self._tasks: list[asyncio.Task[None]] = []

    async def on_start(self) -> None:
        """Begin."""
        await self._server.start()
        self._tasks = [asyncio.create_task(keep_doing(what, step, self._fail)) for what, step in self._chores.items()]

    async def on_stop(self) -> None:
        """End; calls under way get a moment."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._outbound is not None:
            await self._outbound.relay.drain(DRAIN_SECONDS)
            await self._outbound.sender.close()
        await self._server.stop()
        await self._engine.dispose()


def sink_app(settings: Settings, fail: Fail, on_ready: Callable[[], None]) -> faust.App:
    """Put a sink together.

    Args:
        settings: Everything it needs to know.
        fail: Called with what makes it impossible to go on; must not return to business.
        on_ready: Called when records have begun to flow.

    Raises:
        Stop: The settings of outbound calls cannot be used, or the port would be open to other machines without tokens.
    """
    metrics, engine, own = Metrics(), create_engine(settings), create_engine(settings)
    outbound = _outbound(settings, own, metrics, fail)

    async def write(records: Sequence[MonitoringRecord]) -> Persisted:
        persisted = await persist(engine, records, outbound.target.name if outbound else None)
        if outbound is not None and persisted.killed:
            outbound.relay.wake()
        return persisted

    persister = Persister(write, clock_us=wall_clock)
    worker = create_sink(settings, persister, metrics, wall_clock, fail, on_ready)
    metrics.watch_lag(worker.lag.now)
    metrics.watch_stalled(worker.sink.stalled_seconds)
    readiness = SinkReadiness(Probe("Kafka", worker.log.ping), Probe("PostgreSQL", partial(ping, own)), partial(_state, worker, persister), metrics)
    server = SinkServer(application(settings, metrics, readiness.report), settings.web_host, settings.sink_web_port)
    worker.app.boot_strategy = _ErrandsFirst(worker.app, Errands(server, own, outbound, metrics.swept, worker.lag.look, fail))
    return worker.app


def _outbound(settings: Settings, engine: AsyncEngine, metrics: Metrics, fail: Fail) -> Outbound | None:
    target = target_of(settings)
    if target is None:
        return None
    seconds = settings.outbound_timeout_seconds
    sender = Sender(target, timeout_seconds=seconds, clock_us=wall_clock)
    calls = PendingCalls(engine, lease_seconds=seconds + LEASE_MARGIN_SECONDS, give_up_seconds=settings.outbound_give_up_hours * 3_600)
    return Outbound(target, Relay(calls, sender.send, send_seconds=seconds, metrics=metrics, fail=fail), sender)


def _state(worker: SinkWorker, persister: Persister) -> SinkState:
    return SinkState(
        is_assigned=worker.sink.is_assigned,
        is_stopping=bool(worker.app.should_stop),
        is_waiting=persister.away_since_us is not None,
        held_variants=persister.held_variants,
        stalled_seconds=worker.sink.stalled_seconds(),
    )


class _ErrandsFirst(BootStrategy):  # type: ignore[misc]
    """Starts the errands before Kafka's clients, and stops them after those."""

    def __init__(self, app: faust.App, errands: Errands) -> None:
        super().__init__(app)
        self._errands = errands

    def server(self) -> Iterable[Any]:
        """Return the services in the order in which they start."""
        return [self._errands, *super().server()]

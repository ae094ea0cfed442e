"""What a sink shows of itself over HTTP: health, readiness, metrics; on a port of its own.

Records matter more than these: where the port is taken, the sink works all the same, says so, and tries again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from streams.metrics import CONTENT_TYPE, Metrics
from streams.settings import Settings
from streams.web.auth import Gate, check_bind
from streams.web.gatekeeping import guard_origin, protect
from streams.web.problems import Answer, answer_problems, keep_to_problems
from streams.web.readiness import Probe
from streams.web.server import HANDLER_ARGUMENTS, SHUTDOWN_SECONDS, Runner
from streams.web.tokens import Scope

log = logging.getLogger(__name__)

LISTEN_AGAIN_SECONDS = 5.0
STALLED_SECONDS = 30.0
"""A sink with records in hand that has finished none for so long does not do its work."""
_SCOPES = {"/health": Scope.OPEN, "/ready": Scope.READ, "/metrics": Scope.READ}


@dataclass(frozen=True, slots=True)
class SinkState:
    """How a sink is right now.

    Attributes:
        is_assigned: It has its share of the partitions.
        is_stopping: It goes down.
        is_waiting: PostgreSQL takes no records.
        held_variants: How many variants wait by themselves, for rows that others have locked or because PostgreSQL is too slow with them.
        stalled_seconds: Since when it has records in hand and has finished none; 0 with none in hand.
    """

    is_assigned: bool
    is_stopping: bool
    is_waiting: bool
    held_variants: int
    stalled_seconds: float


class SinkReadiness:
    """Puts together what ``GET /ready`` of a sink says.

    Args:
        kafka: Is Kafka there?
        postgresql: Is PostgreSQL there?
        state: How the sink is.
        metrics: Told of PostgreSQL.
    """

    def __init__(self, kafka: Probe, postgresql: Probe, state: Callable[[], SinkState], metrics: Metrics) -> None:
        self._kafka, self._postgresql, self._state, self._metrics = kafka, postgresql, state, metrics

    async def report(self) -> tuple[bool, dict[str, Any]]:
        """Return whether this sink can do its work, and the state of each thing that it needs."""
        kafka, postgresql = await asyncio.gather(self._kafka.is_up(), self._postgresql.is_up())
        state = self._state()
        takes_records = postgresql and not state.is_waiting
        self._metrics.postgresql(is_up=takes_records)
        is_ready = kafka and takes_records and state.is_assigned and not state.is_stopping and state.stalled_seconds < STALLED_SECONDS
        return is_ready, {
            "status": "ready" if is_ready else "not ready",
            "kafka": "up" if kafka else "away",
            "postgresql": "up" if takes_records else "away",
            "rebalancing": not state.is_assigned,
            "stopping": state.is_stopping,
            "held_variants": state.held_variants,
            "stalled_seconds": round(state.stalled_seconds, 1),
        }


def application(settings: Settings, metrics: Metrics, report: Callable[[], Awaitable[tuple[bool, dict[str, Any]]]]) -> web.Application:
    """Return the application. With tokens, all but ``/health`` asks for one that may read, as the API does.

    Raises:
        Stop: It would listen beyond loopback without tokens.
    """
    check_bind(settings)
    gate = Gate(settings)

    async def show_health(_: web.Request) -> web.Response:
        return _json({"status": "ok"})

    async def show_readiness(_: web.Request) -> web.Response:
        is_ready, told = await report()
        return _json(told) if is_ready else _json(told, 503, {"Retry-After": "1"})

    async def show_metrics(_: web.Request) -> web.Response:
        await report()  # so that what is said of PostgreSQL is true now
        return web.Response(body=metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    @web.middleware
    async def count(request: web.Request, handler: Answer) -> web.StreamResponse:
        response = await handler(request)
        known = request.method if request.method in {"GET", "HEAD"} else "other"
        metrics.answered(request.path if request.path in _SCOPES else "unknown", known, response.status)
        return response

    @web.middleware
    async def authenticate(request: web.Request, handler: Answer) -> web.StreamResponse:
        gate.admit(request.headers.get("Authorization"), _SCOPES.get(request.path, Scope.READ))
        return await handler(request)

    app = web.Application(middlewares=[count, answer_problems, guard_origin(settings, gate), authenticate], handler_args=HANDLER_ARGUMENTS, client_max_size=1)
    for path, answer in zip(_SCOPES, (show_health, show_readiness, show_metrics), strict=True):
        app.router.add_get(path, answer)
    app.on_response_prepare.append(keep_to_problems)
    app.on_response_prepare.append(protect)
    return app


def _json(body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, body=json.dumps(body).encode(), content_type="application/json", headers=headers)


class SinkServer:
    """Serves an application; waits in the background for a port that is taken.

    Args:
        app: What to serve.
        host: Address to listen on.
        port: Port to listen on; 0 for any that is free.
    """

    def __init__(self, app: web.Application, host: str, port: int) -> None:
        self._runner = Runner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
        self._host, self._port = host, port
        self._listening: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to listen."""
        await self._runner.setup()
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        said = False
        while True:
            site = web.TCPSite(self._runner, self._host, self._port)
            try:
                await site.start()
            except OSError as error:
                await site.stop()  # or the runner keeps it, and one more with each try
                if not said:
                    log.warning("health and metrics are not served yet, %s:%d cannot be had: %s", self._host, self._port, error.strerror)
                said = True
                await asyncio.sleep(LISTEN_AGAIN_SECONDS)
            else:
                log.info("health and metrics are served on %s:%d", *self._runner.addresses[0][:2])
                return

    async def stop(self) -> None:
        """Let go of port and connections."""
        if self._listening is not None:
            self._listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listening
        await self._runner.cleanup()

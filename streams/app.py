"""The composition root: the one module that knows all the others, and puts a worker together."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NoReturn

import faust
from aiokafka.errors import KafkaError

from models.errors import EarlyKillError, Retry, Stop
from streams.addresses import is_every_address
from streams.audit import audit
from streams.cleanup import revive
from streams.cleartext import cleartext
from streams.clock import wall_clock
from streams.database import check_schema, create_engine, ping
from streams.logs import configure_logging
from streams.metrics import Metrics
from streams.monitor_worker import create_monitor
from streams.outbound.target import target_of
from streams.publishing import ApiPublisher
from streams.settings import Settings
from streams.sink_worker import sink_app
from streams.store import Store
from streams.topics import check_topics
from streams.web.auth import check_bind
from streams.web.database import Database
from streams.web.install import faust_web_options, install

log = logging.getLogger(__name__)

Role = Literal["monitor", "sink"]
CHECK_PAUSE_SECONDS = 2.0
LEAVE_SECONDS = 9.0
"""A worker that was told to stop is gone after so long, whatever still keeps it; supervisors kill after 10 s or later."""


class Worker(faust.Worker):  # type: ignore[misc]
    """Faust's worker, without its spinner, and under the name it was started with.

    Args:
        app: What it runs.
        fail: Called with what makes it impossible to go on, in Faust's own services; must not return to business.
        options: More of Faust's.
    """

    def __init__(self, app: faust.App, fail: Callable[[BaseException], None], **options: Any) -> None:
        super().__init__(app, loglevel="INFO", redirect_stdouts=False, override_logging=False, **options)
        self.spinner = None
        self._fail = fail

    async def start(self) -> None:
        """Start, and run until it is stopped."""
        try:
            await super().start()
        except Exception as error:  # noqa: BLE001 - Faust would end with a traceback
            self._crash(error)

    def _crash(self, reason: BaseException) -> None:
        if self._signal_stop_time is None:
            self._fail(reason)
        else:  # what it was told to stop in the middle of may be gone
            log.warning("leaving with work undone, which is done again after the next start: %r", reason)

    def _schedule_shutdown(self, signal: signal.Signals) -> None:
        last = threading.Timer(LEAVE_SECONDS, _leave)  # a thread: the event loop may be what stands still
        last.daemon = True
        last.start()
        super()._schedule_shutdown(signal)

    def _setproctitle(self, info: str, *, ident: str = "") -> None:
        """Keep the command line: a supervisor knows its processes by it."""


def run_worker(settings: Settings, role: Role) -> int:
    """Run one worker until SIGTERM or SIGINT.

    Returns:
        The exit code: 0 after a signal.

    Raises:
        Stop: The set-up is wrong: topics, partition counts, tokens, outbound calls.
    """
    configure_logging(settings)
    for line in cleartext(settings):
        log.warning("%s", line)
    web_options: dict[str, Any] = {}
    if role == "monitor":
        web_options = faust_web_options(settings)
        if is_every_address(settings.web_host) and settings.web_url is None:
            log.warning("other monitors are told to ask this one at %s, which is themselves: if there are others, set EARLY_KILL_WEB_URL", settings.advertised_url)
        _require_free_port(settings)
    else:
        target_of(settings)
        check_bind(settings)
        asyncio.run(_check_database(settings))
    asyncio.run(_wait_for_kafka(settings))
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    app = _monitor(settings, web_options) if role == "monitor" else sink_app(settings, _fail, partial(_ready, settings))
    log.info("%s starts, consumer group %s", role, app.conf.id)
    try:
        Worker(app, _fail, loop=loop).execute_from_commandline()
    except SystemExit as stopped:
        return stopped.code if isinstance(stopped.code, int) else 1
    return 0


def _require_free_port(settings: Settings) -> None:
    """Raise ``Stop`` if the API cannot listen where it should; Faust would only crash over it."""
    try:
        with socket.create_server((settings.web_host, settings.web_port), family=socket.AF_INET6 if ":" in settings.web_host else socket.AF_INET):
            pass
    except OSError as error:
        raise Stop(f"cannot listen on {settings.web_host}:{settings.web_port}: {error.strerror}") from None


async def _check_database(settings: Settings) -> None:
    """Raise ``Stop`` if PostgreSQL is there and will never take the sink's records; one that is away is waited for later."""
    engine = create_engine(settings)
    try:
        await check_schema(engine)
    except Retry as error:
        log.warning("records wait until PostgreSQL takes them: %s", error)
    finally:
        await engine.dispose()


async def _wait_for_kafka(settings: Settings) -> None:
    """Wait until Kafka is there and the topics are as they must be; raises ``Stop`` if they are not."""
    stopping = asyncio.current_task()
    if stopping is not None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.cancel)
    said = False
    while True:
        try:
            await check_topics(settings)
        except Retry as error:
            if not said:
                log.warning("waiting for Kafka: %s", error)
                said = True
            await asyncio.sleep(CHECK_PAUSE_SECONDS)
        except asyncio.CancelledError:
            raise SystemExit(0) from None
        else:
            return


def _fail(error: BaseException) -> NoReturn:
    """Leave at once, committing nothing: what is not durable is done again after the restart."""
    if isinstance(error, EarlyKillError):
        log.critical("stopped: %s", error)
    elif isinstance(error, KafkaError):
        log.critical("stopped: Kafka fails with %s: %s", type(error).__name__, error)
    elif isinstance(error, MemoryError):
        log.critical("stopped: out of memory")
    else:
        log.critical("stopped by an internal error", exc_info=error)
    logging.shutdown()
    os._exit(1)


def _leave() -> None:
    """Leave with work undone, as asked: a Kafka that says nothing keeps Faust waiting for each of its requests, 30 s long."""
    log.warning("leaving after %.0f s with work undone, which is done again after the next start", LEAVE_SECONDS)
    logging.shutdown()
    os._exit(0)


def _ready(settings: Settings) -> None:
    if settings.ready_file is not None:
        settings.ready_file.touch()
    log.info("ready")


def _monitor(settings: Settings, web_options: dict[str, Any]) -> faust.App:
    metrics = Metrics()
    worker = create_monitor(settings, metrics, _fail, partial(_ready, settings), **web_options)
    engine = create_engine(settings)
    store = Database(reads=Store(engine), ping=partial(ping, engine), revive=partial(revive, engine), audit=partial(audit, engine), now_us=wall_clock)
    publisher = ApiPublisher(settings, worker.log, wall_clock)
    install(worker.app, settings=settings, live=worker.live, store=store, publish=publisher, metrics=metrics, kafka_ping=worker.log.ping)
    return worker.app

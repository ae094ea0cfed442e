"""Faust's own web server, made fit: it comes up first, goes down in bounded time, and answers even garbage with a problem document."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest
from aiohttp.web_server import Server
from faust.app.base import BootStrategy
from faust.web.drivers.aiohttp import Web as FaustWeb

from streams.web.problems import Problem

SHUTDOWN_SECONDS = 2.0
"""How long requests may go on when the worker goes down; twice that at worst."""
HANDLER_ARGUMENTS = {"keepalive_timeout": 30.0, "lingering_time": 2.0, "max_line_size": 8190, "max_field_size": 8190, "auto_decompress": False}
"""Limits of a connection: an idle one, or one whose headers trickle in, is closed after 30 s. Packed bodies stay packed, and are refused."""


class _Protocol(RequestHandler):
    """One connection."""

    __slots__ = ()

    def handle_error(self, request: BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None) -> web.StreamResponse:  # noqa: ARG002 - aiohttp's signature
        """Answer what is no HTTP, or what failed outside every call; nothing of ``message`` or ``exc`` gets out."""
        if isinstance(exc, UnicodeEncodeError):  # aiohttp repeats what it does not expect in an `Expect`, and that is no text
            status = int(HTTPStatus.BAD_REQUEST)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR and exc is not None:
            self.log_exception("request failed outside its call", exc_info=exc)
        detail = "This is not a request that can be read." if status < HTTPStatus.INTERNAL_SERVER_ERROR else "Something went wrong here."
        response = Problem(status, detail, closes=True).response()
        response.headers.update({"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Server": "early-kill"})
        return response


class _Server(Server):
    def __call__(self) -> RequestHandler:
        return _Protocol(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs an application with this module's connections."""

    async def _make_server(self) -> Server:
        made = await super()._make_server()
        return _Server(made.request_handler, request_factory=made.request_factory, handler_cancellation=made.handler_cancellation, loop=made._loop, **made._kwargs)  # noqa: SLF001


class BoundedWeb(FaustWeb):  # type: ignore[misc]
    """Faust's web server without Faust's own pages."""

    default_blueprints = ()
    debug_blueprints = ()
    optional_blueprints = ()
    production_blueprints = ()

    def __init__(self, app: Any, **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        self._runner = Runner(self.web_app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)


class WebFirst(BootStrategy):  # type: ignore[misc]
    """Starts the web server before Kafka's clients: health and readiness are there to be asked while those still try."""

    def server(self) -> Iterable[Any]:
        """Return the services in the order in which they start; they stop in the reverse one."""
        app = (self.kafka_producer(), self.kafka_consumer(), self.agents(), self.kafka_conductor(), self.tables())
        services: Iterable[Any] = self._chain(self.sensors(), self.web_server(), *app)
        return services

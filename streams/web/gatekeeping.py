"""What happens to every request before its call, and to every answer after it: the middlewares, outermost first.

Tracing (request id, access log, count), errors as problems, the guard against other web sites, authentication, the body, repetitions.
"""

from __future__ import annotations

import ipaddress
import logging
import time
import uuid
from http import HTTPStatus
from typing import Any

from aiohttp import web
from yarl import URL

from streams.addresses import is_loopback
from streams.settings import Settings
from streams.web.auth import CALLER, Caller, Gate
from streams.web.inputs import BODY, read_body
from streams.web.problems import REQUEST_ID, Answer, Problem, answer_problems
from streams.web.repeats import Answers, answer_once
from streams.web.routes import Route, route_of
from streams.web.services import SERVICES
from streams.web.tokens import Scope

logger = logging.getLogger("streams.web.access")

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_QUIET = frozenset({"/health", "/ready", "/metrics"})
_LONGEST_LOGGED = 500
_KEYS = uuid.UUID("7d0c3f3a-6a55-4f0e-9a4e-1f5d1a7c2b90")


def middlewares(settings: Settings, gate: Gate) -> list[Any]:
    """Return the middlewares in the order in which a request meets them."""
    return [trace, answer_problems, guard_origin(settings, gate), authenticate, take_body, answer_once(Answers())]


@web.middleware
async def trace(request: web.Request, handler: Answer) -> web.StreamResponse:
    """Give the request an id (the caller's, if that is a UUID; else one that follows from its key, if it has one), and log and count what became of it."""
    request[REQUEST_ID] = _request_id(request)
    begun = time.perf_counter()
    status = int(HTTPStatus.INTERNAL_SERVER_ERROR)
    try:
        response = await handler(request)
        status = response.status
        response.headers["X-Request-Id"] = request[REQUEST_ID]
        return response
    finally:
        route = route_of(request)
        request.app[SERVICES].metrics.answered(route.path if route else "unknown", request.method if request.method in _METHODS else "other", status)
        _log(request, status, time.perf_counter() - begun)


def _request_id(request: web.Request) -> str:
    key = request.headers.get("Idempotency-Key")
    try:
        return str(uuid.UUID(key or request.headers["X-Request-Id"]))
    except (KeyError, ValueError):  # the id of a key that is no UUID is the same at each worker, and after its start: the database knows a revival by it
        return str(uuid.uuid5(_KEYS, f"{request.method} {request.rel_url.raw_path} {key}") if key else uuid.uuid4())


def _log(request: web.Request, status: int, seconds: float) -> None:
    path = _one_line(request.rel_url.raw_path)
    caller = request.get(CALLER)
    level = logging.DEBUG if path in _QUIET and status < HTTPStatus.INTERNAL_SERVER_ERROR else logging.INFO
    name = caller.name if caller else "unknown"
    logger.log(level, "%s %s %d %.1f ms from %s (%s) %s", _one_line(request.method), path, status, seconds * 1000, request.remote, name, request[REQUEST_ID])


def _one_line(text: str) -> str:
    """Return text that cannot forge a log line or colour a terminal; the query, which may hold anything, never gets here."""
    return text[:_LONGEST_LOGGED].encode("ascii", "backslashreplace").decode().translate(dict.fromkeys([*range(0x20), 0x7F], "?"))


def guard_origin(settings: Settings, gate: Gate) -> Any:
    """Make the middleware that keeps web sites in the user's browser from using an API that asks for no token.

    A page of another site can send requests to loopback, or point its own name there: so, while the API is open, the ``Host`` must be
    an address or a name of this machine, and a request that changes something must not come from another origin.
    """
    names = {"localhost", settings.web_host.lower(), (URL(settings.advertised_url).host or "").lower()}

    @web.middleware
    async def guard(request: web.Request, handler: Answer) -> web.StreamResponse:
        if gate.is_open:
            host = _hostname(request.host)
            if host not in names and not _is_address(host):
                raise Problem(421, "This API answers to the addresses of its machine only, as long as it has no tokens.", title="Misdirected Request")
            origin = request.headers.get("Origin")
            if origin is not None and request.method not in ("GET", "HEAD") and origin.partition("://")[2] != request.host:
                raise Problem(403, "Requests from other web sites are refused.")
        return await handler(request)

    return guard


def _hostname(host: str) -> str:
    name = host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]
    return name.lower().rstrip(".")


def _is_address(host: str) -> bool:
    if is_loopback(host):
        return True
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


@web.middleware
async def authenticate(request: web.Request, handler: Answer) -> web.StreamResponse:
    """Let through who may make this call; where there is none, who may make any. A refusal of a change is put on the trail."""
    services = request.app[SERVICES]
    route = route_of(request)
    authorization = request.headers.get("Authorization")
    try:
        request[CALLER] = services.gate.admit(authorization, route.scope if route else Scope.READ)
    except Problem as problem:
        caller = services.gate.caller(authorization)
        if route is not None and route.path == "/" and problem.status == HTTPStatus.UNAUTHORIZED and "text/html" in request.headers.get("Accept", ""):
            return services.page.response(401, problem.headers)  # the page holds nothing of the system; it asks for the token itself
        if caller is not None:
            request[CALLER] = caller
            _note_refusal(request, route, caller)
        raise
    return await handler(request)


def _note_refusal(request: web.Request, route: Route | None, caller: Caller) -> None:
    variant_id = None
    if route is not None and "{variant_id}" in route.path:
        variant_id = str(request.match_info["variant_id"])[:200].replace("\x00", "?").encode("utf-8", "replace").decode()
    facts = {"call": route.name if route else "unknown", "granted": caller.scope.name.lower()}
    request.app[SERVICES].trail.note(actor=caller.name, action="call_refused", variant_id=variant_id, request_id=request[REQUEST_ID], facts=facts)


@web.middleware
async def take_body(request: web.Request, handler: Answer) -> web.StreamResponse:
    """Read the body of a call that changes something, as far as it may go."""
    if request.method == "POST" and route_of(request) is not None:
        request[BODY] = await read_body(request)
    return await handler(request)


async def protect(_: web.Request, response: web.StreamResponse) -> None:
    """Add the headers that every answer carries. A signal on prepare."""
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("Referrer-Policy", "no-referrer")
    response.headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
    response.headers["Server"] = "early-kill"

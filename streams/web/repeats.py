"""Changes that a caller repeats with the same ``Idempotency-Key`` are made once, and answered alike.

What is kept is kept in memory, by the worker that gave it: after a restart, or by another worker, a repetition is done again, which
for these calls means 409 or 404 where the first was answered with 201 or 200.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from aiohttp import web

from streams.web.auth import CALLER
from streams.web.inputs import BODY
from streams.web.problems import Answer, invalid
from streams.web.routes import IDEMPOTENCY_KEY, LONGEST_KEY, route_of

KEPT_SECONDS = 24 * 60 * 60
"""How long an answer is kept, if there is room."""
KEPT_ANSWERS = 10_000
"""So many at most; the oldest go first."""
KEPT_BYTES = 4 * 1024
"""An answer with a larger body is not kept."""


@dataclass(frozen=True, slots=True)
class _Given:
    """An answer, given or on its way, to a request with this body."""

    digest: bytes
    at: float
    response: asyncio.Task[web.StreamResponse]


class Answers:
    """The answers that were given.

    Args:
        clock: Seconds, never going back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._given: OrderedDict[bytes, _Given] = OrderedDict()

    async def once(self, name: bytes, body: bytes, answer: Callable[[], Any]) -> web.StreamResponse:
        """Return what ``answer`` returned to the first request of this name; those that come meanwhile wait for it. Only a success is kept.

        Raises:
            Problem: 422 if the first had another body; or what ``answer`` raises.
        """
        digest, now = hashlib.sha256(body).digest(), self._clock()
        while self._given and (len(self._given) > KEPT_ANSWERS or next(iter(self._given.values())).at <= now - KEPT_SECONDS):
            self._given.popitem(last=False)
        given = self._given.get(name)
        if given is None:
            given = self._given[name] = _Given(digest, now, asyncio.create_task(answer()))
            given.response.add_done_callback(lambda task: self._forget_failure(name, task))
        elif given.digest != digest:
            raise invalid("Idempotency-Key", "was sent before with another body")
        return _copy(await asyncio.shield(given.response))

    def _forget_failure(self, name: bytes, task: asyncio.Task[web.StreamResponse]) -> None:
        if task.cancelled() or task.exception() is not None or not _is_kept(task.result()):
            self._given.pop(name, None)


def _is_kept(response: web.StreamResponse) -> bool:
    return isinstance(response, web.Response) and response.status < HTTPStatus.BAD_REQUEST and isinstance(response.body, bytes) and len(response.body) <= KEPT_BYTES


def _copy(response: web.StreamResponse) -> web.StreamResponse:
    """An answer can be sent once only."""
    if not isinstance(response, web.Response):
        return response
    return web.Response(status=response.status, body=response.body, headers={"Content-Type": response.headers["Content-Type"]})


def answer_once(answers: Answers) -> Any:
    """Make the middleware, the innermost: whoever gets here may make the call, and the body has been read."""

    @web.middleware
    async def repeat(request: web.Request, handler: Answer) -> web.StreamResponse:
        route, key = route_of(request), request.headers.get("Idempotency-Key")
        if key is None or route is None or IDEMPOTENCY_KEY not in route.parameters:
            return await handler(request)
        if not (1 <= len(key) <= LONGEST_KEY and key.isascii() and key.isprintable()):
            raise invalid("Idempotency-Key", f"must have 1 to {LONGEST_KEY} printable ASCII characters")
        name = hashlib.sha256(f"{request[CALLER].name}\n{request.rel_url.raw_path_qs}\n{key}".encode("utf-8", "backslashreplace")).digest()
        return await answers.once(name, request[BODY], lambda: handler(request))

    return repeat

"""Errors as ``application/problem+json``, whatever went wrong and wherever.

Source:
    RFC 9457; CONTRACT.md, section 6.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus

from aiohttp import web

from models.errors import Reject, Retry, Stop

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
REQUEST_ID = web.RequestKey("request_id", str)
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Problem(Exception):
    """A request that is answered with an error on purpose.

    Attributes:
        status: HTTP status, 400 to 599.
        detail: What is wrong with this request, for a person.
        title: What is wrong in general; the status's own phrase when unset.
        errors: (field, detail) of each thing wrong with the input; with 422.
        headers: Headers to add to the answer.
        closes: Whether to close the connection afterwards, for the rest of the request is not worth reading.
    """

    def __init__(
        self, status: int, detail: str, *, title: str | None = None, errors: Sequence[tuple[str, str]] = (), headers: Mapping[str, str] | None = None, closes: bool = False
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.title = title or HTTPStatus(status).phrase
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.closes = closes

    def response(self, request_id: str | None = None) -> web.Response:
        """Return the problem document as an answer."""
        body: dict[str, object] = {"type": "about:blank", "title": self.title, "status": self.status, "detail": self.detail}
        if self.status == HTTPStatus.UNPROCESSABLE_ENTITY:
            body["errors"] = [{"field": field, "detail": detail} for field, detail in self.errors]
        if request_id is not None:
            body["request_id"] = request_id
        response = web.Response(status=self.status, body=json.dumps(body, ensure_ascii=False).encode("utf-8", "backslashreplace"), content_type=CONTENT_TYPE, headers=self.headers)
        if self.closes:
            response.force_close()
        return response


def invalid(field: str, detail: str) -> Problem:
    """Return the 422 for one bad field."""
    return Problem(422, f"{field}: {detail}", title="Invalid input", errors=[(field, detail)])


def unavailable(detail: str, retry_after_seconds: int = 2) -> Problem:
    """Return the 503 that asks the caller to repeat the request."""
    return Problem(503, detail, headers={"Retry-After": str(retry_after_seconds)})


_DETAILS = {
    404: "There is nothing at this address.",
    405: "This address does not take that method.",
    408: "The request took too long to arrive.",
    413: "The request is too large.",
    417: "That expectation cannot be met.",
}


def from_http(error: web.HTTPException) -> Problem:
    """Return the problem that stands for one of aiohttp's own refusals."""
    headers = {name: error.headers[name] for name in ("Allow", "Retry-After", "WWW-Authenticate") if name in error.headers}
    return Problem(error.status, _DETAILS.get(error.status, error.reason), headers=headers)


@web.middleware
async def answer_problems(request: web.Request, handler: Answer) -> web.StreamResponse:  # noqa: PLR0911 - one return a kind of error
    """Answer every error with a problem document; unexpected ones are logged, and say nothing of the inside."""
    request_id = request.get(REQUEST_ID)
    try:
        return await handler(request)
    except Problem as problem:
        return problem.response(request_id)
    except web.HTTPException as error:
        if error.status < HTTPStatus.BAD_REQUEST:
            raise
        return from_http(error).response(request_id)
    except web.RequestPayloadError:
        return Problem(400, "The body could not be read.").response(request_id)
    except Reject as error:
        return invalid(error.field or "body", error.reason).response(request_id)
    except (Retry, Stop, TimeoutError) as error:
        logger.warning("request %s cannot be answered now: %s", request_id, str(error) or "timed out")
        return unavailable("A part of the service that this needs does not answer now; repeat the request.").response(request_id)
    except Exception:
        logger.exception("request %s failed", request_id)
        return Problem(500, "Something went wrong here; the log has it under this request_id.").response(request_id)


async def keep_to_problems(_: web.Request, response: web.StreamResponse) -> None:
    """Give an error that never reached the middlewares (a bad ``Expect``) the form of the others. A signal on prepare."""
    if isinstance(response, web.HTTPException) and response.status >= HTTPStatus.BAD_REQUEST:
        problem = Problem(response.status, _DETAILS.get(response.status, response.reason or "")).response()
        response.body = problem.body
        response.content_type = CONTENT_TYPE
        response.charset = None

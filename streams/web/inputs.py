"""What a caller sent: ids in the path, the query, the body, each checked, and refused by the name of its field."""

from __future__ import annotations

import asyncio
import base64
import binascii
import unicodedata
import uuid
from typing import Any
from urllib.parse import unquote_to_bytes

from aiohttp import web

from models.errors import Reject
from models.events import ID_LIMIT
from models.moments import YEAR_10000
from models.strict_json import parse_json
from models.views import Place
from streams.web.problems import Problem, invalid

BODY_LIMIT = 64 * 1024
"""Most bytes a body may have. Source: CONTRACT.md, section 8."""
BODY_SECONDS = 10.0
"""How long a body may take to arrive."""
BODY = web.RequestKey("body", bytes)
PAGE_LIMIT = 500
PAGE_DEFAULT = 100
_TOO_LARGE = f"The body is larger than {BODY_LIMIT} bytes."


def check_id(text: str, field: str) -> str:
    """Return ``text`` if it can be an id: 1 to 200 characters, none of them a control character or a lone surrogate.

    Raises:
        Problem: 422 that names ``field``.
    """
    if not 1 <= len(text) <= ID_LIMIT:
        raise invalid(field, f"must have 1 to {ID_LIMIT} characters")
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in text):
        raise invalid(field, "holds a control character")
    return text


def variant_id_in(request: web.Request) -> str:
    """Return the last segment of the path as it was sent, percent-decoded once: ``a%2Fb`` is the id ``a/b``."""
    raw = request.rel_url.raw_path.rpartition("/")[2]
    try:
        return check_id(unquote_to_bytes(raw).decode("utf-8"), "variant_id")
    except UnicodeDecodeError:
        raise invalid("variant_id", "is not valid UTF-8") from None


def optional_id(request: web.Request, field: str) -> str | None:
    """Return a query parameter that holds an id, or None if it is not given."""
    text = request.query.get(field)
    return None if text is None else check_id(text, field)


def has_key(request: web.Request) -> bool:
    """Say whether the caller may repeat this request, and then wants the first answer again."""
    return "Idempotency-Key" in request.headers


def limit_in(request: web.Request) -> int:
    """Return ``?limit=``, 1 to 500, by default 100."""
    text = request.query.get("limit")
    if text is None:
        return PAGE_DEFAULT
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(PAGE_LIMIT)) and 1 <= int(text) <= PAGE_LIMIT):
        raise invalid("limit", f"must be an integer from 1 to {PAGE_LIMIT}")
    return int(text)


def to_cursor(place: Place) -> str:
    """Return the place as an opaque cursor."""
    started_at_us, session_id = place
    return base64.urlsafe_b64encode(started_at_us.to_bytes(8, "big", signed=True) + uuid.UUID(session_id).bytes).decode()


def cursor_in(request: web.Request) -> Place | None:
    """Return the place that ``?cursor=`` stands for."""
    text = request.query.get("cursor")
    return None if text is None else from_cursor(text)


def from_cursor(text: str) -> Place:
    """Return the place a cursor stands for.

    Raises:
        Problem: 422; this API never gave out such a cursor.
    """
    try:
        raw = base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True)
        started_at_us, session_id = int.from_bytes(raw[:8], "big", signed=True), str(uuid.UUID(bytes=raw[8:]))
        if not 0 <= started_at_us < YEAR_10000:
            raise ValueError  # noqa: TRY301 - the same answer as for the others
    except (UnicodeEncodeError, binascii.Error, ValueError):
        raise invalid("cursor", "was not given out by this API") from None
    return started_at_us, session_id


async def read_body(request: web.Request) -> bytes:
    """Read the body, counting: it is refused as soon as it is too large, whatever ``Content-Length`` says.

    Raises:
        Problem: 413 over ``BODY_LIMIT``, 415 if it is packed or not JSON by its content type, 408 if it takes over ``BODY_SECONDS``,
            400 if the caller leaves before its end.
    """
    if request.content_length is not None and request.content_length > BODY_LIMIT:
        raise Problem(413, _TOO_LARGE, closes=True)
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Problem(415, "The body must not be packed (Content-Encoding).", headers={"Accept-Encoding": "identity"}, closes=True)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > BODY_LIMIT:
                    raise Problem(413, _TOO_LARGE, closes=True)
    except TimeoutError:
        raise Problem(408, "The body took too long to arrive.", closes=True) from None
    except ConnectionError:  # nobody hears the answer; the log and the metrics have it
        raise Problem(400, "The body did not come to its end.", closes=True) from None
    if body:
        _check_content_type(request)
    return bytes(body)


def _check_content_type(request: web.Request) -> None:
    if request.content_type != "application/json" or (request.charset or "utf-8").lower() not in ("utf-8", "utf8"):
        raise Problem(415, "The body must be application/json in UTF-8.", headers={"Accept": "application/json"})


def json_object(request: web.Request, body: bytes) -> dict[str, Any]:
    """Return the body as a JSON object, read as strictly as a value on a topic.

    Raises:
        Problem: 415 if it is not declared as JSON, 400 if it is none, 422 if a field holds what the contract refuses everywhere.
    """
    _check_content_type(request)
    try:
        return parse_json(body)
    except Reject as error:
        if error.field is not None:
            raise invalid(error.field, error.reason) from None
        raise Problem(400, f"The body {error.reason}.") from None

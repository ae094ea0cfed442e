"""The calls themselves: read what was sent, do it, say what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from models.errors import NotKilled, Reject, Retry, Stop
from models.events import VariantPosted, posting, validation_problems
from models.session import Outcome
from models.strict_json import VALUE_LIMIT
from streams.codec import encode_json
from streams.metrics import CONTENT_TYPE
from streams.web import inputs
from streams.web.auth import CALLER
from streams.web.cluster import PeerAnswer
from streams.web.commands import Asker
from streams.web.lookups import Listing
from streams.web.ports import SessionFilter
from streams.web.problems import REQUEST_ID, Problem, invalid, unavailable
from streams.web.services import SERVICES, Services

OUTCOMES = ("active", *(outcome.value for outcome in Outcome))
"""What sessions can be asked for by."""


def _json(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(status=status, body=json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(), content_type="application/json", headers=headers)


def _authorization(request: web.Request) -> str | None:
    return request.headers.get("Authorization")


def _asker(request: web.Request) -> Asker:
    return Asker(request[CALLER].name, _authorization(request), request[REQUEST_ID])


async def start_monitoring(request: web.Request) -> web.Response:
    """``POST /performance-monitor/start-monitoring``."""
    services = request.app[SERVICES]
    sent = inputs.json_object(request, request[inputs.BODY])
    message = _posted(sent, services)
    session_id = await services.commands.start(message, _asker(request))
    return _json({"status": "monitoring_started", "variant_id": message["variant_id"], "session_id": session_id}, 201)


def _posted(sent: dict[str, Any], services: Services) -> dict[str, Any]:
    """Return what to publish: exactly what the monitor would take, with the expected rate given."""
    problems: list[tuple[str, str]] = []
    try:
        message = VariantPosted.model_validate(sent)
    except ValidationError as error:
        problems = validation_problems(error)
    if sent.get("expected_engagement_rate") is None:
        problems.append(("expected_engagement_rate", "field required"))
    if problems:
        raise _invalid(problems)
    now_us = services.now_us()
    try:
        posted = posting(message, now_us, services.defaults)
    except Reject as error:
        raise invalid(error.field or "body", error.reason) from None
    if now_us > posted.too_late_after:
        raise invalid("posted_at", "its monitoring window closed more than a day ago")
    published = message.model_dump(mode="json", exclude_none=True)
    if len(encode_json(published)) > VALUE_LIMIT:  # 5 becomes 5.0: a body on the limit may grow
        raise Problem(413, f"What would be published is larger than {VALUE_LIMIT} bytes.")
    return published


def _invalid(problems: list[tuple[str, str]]) -> Problem:
    return Problem(422, "; ".join(f"{field}: {detail}" for field, detail in problems), title="Invalid input", errors=problems)


async def show_status(request: web.Request) -> web.Response:
    """``GET /performance-monitor/status/{variant_id}``."""
    variant_id, post_id = inputs.variant_id_in(request), inputs.optional_id(request, "post_id")
    shown = await request.app[SERVICES].lookups.status(variant_id, post_id, _authorization(request))
    if shown is None:
        raise _unknown(variant_id, post_id)
    return _json(shown)


def _unknown(variant_id: str, post_id: str | None = None) -> Problem:
    return Problem(404, f"Variant {variant_id!r} is not known." if post_id is None else f"Post {post_id!r} of variant {variant_id!r} is not known.")


def _listing(listing: Listing, **more: object) -> web.Response:
    return _json({"items": listing.items, "next_cursor": listing.next_cursor, **more})


async def list_active(request: web.Request) -> web.Response:
    """``GET /performance-monitor/active``."""
    limit, after = inputs.limit_in(request), inputs.cursor_in(request)
    listing = await request.app[SERVICES].lookups.active(limit, after, _authorization(request))
    return _listing(listing, complete=listing.is_complete)


async def list_sessions(request: web.Request) -> web.Response:
    """``GET /performance-monitor/sessions``."""
    outcome = request.query.get("outcome")
    if outcome is not None and outcome not in OUTCOMES:
        raise invalid("outcome", f"must be one of {', '.join(OUTCOMES)}")
    wanted = SessionFilter(variant_id=inputs.optional_id(request, "variant_id"), persona_id=inputs.optional_id(request, "persona_id"), outcome=outcome)
    limit, after = inputs.limit_in(request), inputs.cursor_in(request)
    return _listing(await request.app[SERVICES].lookups.sessions(wanted, limit, after, _authorization(request)))


async def stop_monitoring(request: web.Request) -> web.Response:
    """``POST /performance-monitor/stop/{variant_id}``."""
    variant_id = inputs.variant_id_in(request)
    await request.app[SERVICES].commands.stop(variant_id, inputs.optional_id(request, "post_id"), _asker(request))
    return _json({"status": "monitoring_stopped", "variant_id": variant_id})


async def revive_variant(request: web.Request) -> web.Response:
    """``POST /performance-monitor/revive/{variant_id}``."""
    variant_id, asker = inputs.variant_id_in(request), _asker(request)
    try:
        restored = await request.app[SERVICES].commands.revive(variant_id, asker, is_key=inputs.has_key(request))
    except LookupError:
        raise _unknown(variant_id) from None
    except NotKilled as error:
        raise Problem(409, f"Variant {variant_id!r} cannot be revived: {error.reason}.", title="Variant is not killed") from None
    except Reject as error:
        raise Problem(409, f"Variant {variant_id!r} is killed still: PostgreSQL refuses to undo it ({error.reason}).", title="Revival refused") from None
    except (Retry, Stop):
        raise unavailable("PostgreSQL does not answer, so nobody knows whether anything was revived; repeat the request, under its Idempotency-Key if it has one.") from None
    return _json({"status": "variant_revived", "variant_id": variant_id, **restored})


async def show_health(_: web.Request) -> web.Response:
    """``GET /health``: this process is alive and its event loop turns."""
    return _json({"status": "ok"})


async def show_readiness(request: web.Request) -> web.Response:
    """``GET /ready``."""
    is_ready, report = await request.app[SERVICES].readiness.report()
    return _json(report, 200 if is_ready else 503, None if is_ready else {"Retry-After": "1"})


async def show_metrics(request: web.Request) -> web.Response:
    """``GET /metrics``."""
    services = request.app[SERVICES]
    await services.readiness.report()  # so that what is said of PostgreSQL is true now, also where nobody asks for readiness
    return web.Response(body=services.metrics.render(), headers={"Content-Type": CONTENT_TYPE})


async def show_page(request: web.Request) -> web.Response:
    """``GET /``: the page for people."""
    return request.app[SERVICES].page.response()


async def answer_lookup(request: web.Request) -> web.Response:
    """``POST /performance-monitor/peer/lookup``: another worker asks for all sessions held here of some variants. Never asks on."""
    variant_ids = inputs.json_object(request, request[inputs.BODY]).get("variant_ids")
    if not isinstance(variant_ids, list) or not all(isinstance(variant_id, str) for variant_id in variant_ids):
        raise invalid("variant_ids", "must be a list of strings")
    return _peer_answer(request.app[SERVICES].cluster.own_lookup(dict.fromkeys(variant_ids)))


async def answer_active(request: web.Request) -> web.Response:
    """``POST /performance-monitor/peer/active``: another worker asks for a page of the active sessions held here. Never asks on."""
    sent = inputs.json_object(request, request[inputs.BODY])
    limit, after = sent.get("limit"), sent.get("after")
    if type(limit) is not int or not 1 <= limit <= inputs.PAGE_LIMIT + 1:
        raise invalid("limit", f"must be an integer from 1 to {inputs.PAGE_LIMIT + 1}")
    match after:
        case None:
            place = None
        case [int(started_at_us), str(session_id)]:
            place = (started_at_us, session_id)
        case _:
            raise invalid("after", "must be null or [started_at, session_id]")
    return _peer_answer(request.app[SERVICES].cluster.own_active(limit, place))


def _peer_answer(answer: PeerAnswer) -> web.Response:
    return _json({"partitions": sorted(answer.partitions), "sessions": [asdict(view) for view in answer.sessions]})

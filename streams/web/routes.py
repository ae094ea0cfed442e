"""The one table of calls: what serves them, who may make them, and what the API's description says of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aiohttp import web

from streams.web import calls
from streams.web.openapi import document
from streams.web.problems import Answer
from streams.web.tokens import Scope

VARIANT = {"name": "variant_id", "in": "path", "required": True, "description": "Percent-encoded: `a/b` is `a%2Fb`.", "schema": {"$ref": "#/components/schemas/Id"}}
LIMIT = {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 500, "default": 100}}
CURSOR = {"name": "cursor", "in": "query", "description": "`next_cursor` of the page before.", "schema": {"type": "string"}}


def _query(name: str, description: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema or {"$ref": "#/components/schemas/Id"}}


LONGEST_KEY = 200
IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "A request that is repeated with it, within a day and to the same worker, is done once and gets the same answer.",
    "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY, "pattern": "^[ -~]*$"},
}
POST_ID = _query("post_id", "Only the session of this posting.")


@dataclass(frozen=True, slots=True)
class Route:
    """One call.

    Attributes:
        method: GET (answers HEAD too) or POST.
        path: Pattern; ``{variant_id}`` is the last segment.
        answer: What serves it.
        scope: What a caller needs, where tokens are configured.
        summary: One line for the description.
        answers: Status to name of the schema, or media type where it is not JSON.
        parameters: OpenAPI parameter objects.
        body: Name of the body's schema; None for none.
        problems: Statuses of the errors of its own.
        is_internal: For other workers; left out of the description.
    """

    method: str
    path: str
    answer: Answer
    scope: Scope
    summary: str
    answers: dict[int, str]
    parameters: tuple[dict[str, Any], ...] = ()
    body: str | None = None
    problems: tuple[int, ...] = ()
    is_internal: bool = False

    @property
    def name(self) -> str:
        """The operation's id: the name of the function that serves it."""
        return self.answer.__name__


async def describe(_: web.Request) -> web.Response:
    """``GET /openapi.json``."""
    return web.json_response(document(ROUTES))


_P = "/performance-monitor"
ROUTES: tuple[Route, ...] = (
    Route("GET", "/", calls.show_page, Scope.READ, "The page for people", {200: "text/html"}),
    Route("GET", "/health", calls.show_health, Scope.OPEN, "Is this process alive?", {200: "Health"}),
    Route("GET", "/ready", calls.show_readiness, Scope.READ, "Can this worker do its work now?", {200: "Readiness", 503: "Readiness"}),
    Route("GET", "/metrics", calls.show_metrics, Scope.READ, "Metrics for Prometheus", {200: "text/plain"}),
    Route("GET", "/openapi.json", describe, Scope.READ, "This description", {200: "Any"}),
    Route(
        "POST",
        f"{_P}/start-monitoring",
        calls.start_monitoring,
        Scope.OPERATE,
        "Start monitoring a posting; answers once every worker's status call finds it",
        {201: "Started"},
        (IDEMPOTENCY_KEY,),
        body="VariantPosted",
        problems=(400, 409, 413, 415, 422, 503),
    ),
    Route(
        "GET",
        f"{_P}/status/{{variant_id}}",
        calls.show_status,
        Scope.READ,
        "The variant's session that was posted last",
        {200: "Session"},
        (VARIANT, POST_ID),
        problems=(404, 422, 503),
    ),
    Route("GET", f"{_P}/active", calls.list_active, Scope.READ, "Active sessions of all workers, newest first", {200: "ActiveSessions"}, (LIMIT, CURSOR), problems=(422,)),
    Route(
        "GET",
        f"{_P}/sessions",
        calls.list_sessions,
        Scope.READ,
        "Recorded sessions, ended and active, newest first",
        {200: "Sessions"},
        (
            _query("variant_id", "Only this variant's."),
            _query("persona_id", "Only this persona's."),
            _query("outcome", "Only those with this outcome.", {"type": "string", "enum": list(calls.OUTCOMES)}),
            LIMIT,
            CURSOR,
        ),
        problems=(422, 503),
    ),
    Route(
        "POST",
        f"{_P}/stop/{{variant_id}}",
        calls.stop_monitoring,
        Scope.OPERATE,
        "Stop monitoring a variant; answers once it has taken effect",
        {200: "Stopped"},
        (VARIANT, POST_ID, IDEMPOTENCY_KEY),
        problems=(404, 413, 415, 422, 503),
    ),
    Route(
        "POST",
        f"{_P}/revive/{{variant_id}}",
        calls.revive_variant,
        Scope.OPERATE,
        "Undo a wrong kill",
        {200: "Revived"},
        (VARIANT, IDEMPOTENCY_KEY),
        problems=(404, 409, 413, 415, 422, 503),
    ),
    Route("POST", f"{_P}/peer/lookup", calls.answer_lookup, Scope.READ, "Sessions held by this worker", {200: "Any"}, is_internal=True),
    Route("POST", f"{_P}/peer/active", calls.answer_active, Scope.READ, "Active sessions held by this worker", {200: "Any"}, is_internal=True),
)

_BY_ANSWER = {route.answer: route for route in ROUTES}


def route_of(request: web.Request) -> Route | None:
    """Return the call that this request makes, or None if there is no such call."""
    return _BY_ANSWER.get(request.match_info.handler)


def add_routes(app: web.Application) -> None:
    """Serve every call of the table."""
    for route in ROUTES:
        path = route.path.replace("{variant_id}", "{variant_id:[^/]+}")  # aiohttp's own pattern takes no braces
        if route.method == "GET":
            app.router.add_get(path, route.answer)
        else:
            app.router.add_post(path, route.answer)

"""The API's description (OpenAPI 3.1), built from the table of calls and the wire model."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from models.engagement import KINDS
from models.events import ID_LIMIT, VariantPosted
from streams.web.tokens import Scope

if TYPE_CHECKING:
    from streams.web.routes import Route

_REF = "#/components/schemas/"


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _optional(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


_ID: dict[str, Any] = {"$ref": f"{_REF}Id"}
_UUID: dict[str, Any] = {"type": "string", "format": "uuid"}
_MOMENT: dict[str, Any] = {"type": "string", "format": "date-time"}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
_RATE: dict[str, Any] = {"type": "number", "minimum": 0}
_TEXT: dict[str, Any] = {"type": "string"}
_FLAG: dict[str, Any] = {"type": "boolean"}
_STATE: dict[str, Any] = {"enum": ["up", "away"]}

SESSION = _object(
    {
        "variant_id": _ID,
        "persona_id": _ID,
        "post_id": _ID,
        "session_id": _UUID,
        "is_active": _FLAG,
        "outcome": {"enum": [None, "killed", "timed_out", "stopped"]},
        "started_at": _MOMENT,
        "ended_at": _optional(_MOMENT),
        "deadline": _MOMENT,
        "was_killed": _FLAG,
        "kill_reason": _optional(_TEXT),
        "policy": _TEXT,
        "expected_engagement_rate": _RATE,
        "kill_threshold": _RATE,
        "min_interactions": _COUNT,
        "timeout_minutes": {"type": "number", "exclusiveMinimum": 0},
        "view_count": {**_optional(_COUNT), "description": "Null where only the record of an active session could be reached."},
        "interaction_count": _optional(_COUNT),
        "engagement_rate": {**_optional(_RATE), "description": "Interactions per view; null without views."},
        "kill_rate": {**_RATE, "description": "A rate strictly below it is too low: kill_threshold * expected_engagement_rate."},
        "counts": _optional({"type": "object", "properties": dict.fromkeys(KINDS, _COUNT)}),
        "final_engagement_rate": _optional(_RATE),
        "final_interaction_count": _optional(_COUNT),
        "final_view_count": _optional(_COUNT),
        "live": {**_FLAG, "description": "Whether this comes from the worker that monitors it, rather than from the record."},
        "as_of": {**_MOMENT, "description": "When this was true."},
    }
)
_SESSIONS: dict[str, Any] = {"type": "array", "items": {"$ref": f"{_REF}Session"}}


def _variant_posted() -> dict[str, Any]:
    schema = VariantPosted.model_json_schema()
    schema.pop("title", None)
    schema["required"] = [*schema["required"], "expected_engagement_rate"]
    schema["properties"]["expected_engagement_rate"] = {"type": "number", "exclusiveMinimum": 0, "maximum": 1}
    schema["properties"]["policy"] = _optional({"enum": ["ratio"]})
    schema["properties"]["posted_at"] = _optional({"anyOf": [_MOMENT, {"type": "number"}], "description": "RFC 3339 with an offset, or a Unix time in seconds or milliseconds."})
    return schema


def _schemas() -> dict[str, Any]:
    return {
        "Id": {"type": "string", "minLength": 1, "maxLength": ID_LIMIT, "description": "No control characters."},
        "VariantPosted": _variant_posted(),
        "Started": _object({"status": {"const": "monitoring_started"}, "variant_id": _ID, "session_id": _UUID}),
        "Stopped": _object({"status": {"const": "monitoring_stopped"}, "variant_id": _ID}),
        "Revived": _object(
            {
                "status": {"const": "variant_revived"},
                "variant_id": _ID,
                "kill_id": _optional(_UUID),
                "in_pool": {**_FLAG, "description": "Whether the pool knows the variant; it is active there again."},
                "posts_restored": {"type": "array", "items": {"type": ["integer", "string"]}, "description": "Ids of the posts that are scheduled again."},
                "posts_passed": {**_COUNT, "description": "Posts that stay cancelled, for their time has passed."},
            }
        ),
        "Session": SESSION,
        "Sessions": _object({"items": _SESSIONS, "next_cursor": _optional(_TEXT)}),
        "ActiveSessions": _object(
            {"items": _SESSIONS, "next_cursor": _optional(_TEXT), "complete": {**_FLAG, "description": "False if neither some worker nor the database could be reached."}}
        ),
        "Health": _object({"status": {"const": "ok"}}),
        "Readiness": _object(
            {
                "status": {"enum": ["ready", "not ready"]},
                "kafka": _STATE,
                "postgresql": {**_STATE, "description": "Reported only: a monitor goes on deciding without it."},
                "recovering": _FLAG,
                "rebalancing": _FLAG,
                "stopping": _FLAG,
                "assigned": {"type": "array", "items": _COUNT},
                "active_sessions": _COUNT,
            }
        ),
        "Problem": {
            **_object({"title": _TEXT, "status": {"type": "integer"}, "detail": _TEXT}),
            "description": "RFC 9457; 422 adds the fields that are wrong.",
        },
        "Any": {"type": "object"},
    }


def _problem(status: int) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": HTTPStatus(status).phrase, "content": {"application/problem+json": {"schema": {"$ref": f"{_REF}Problem"}}}}
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        errors = {"type": "array", "items": _object({"field": _TEXT, "detail": _TEXT})}
        answer["content"]["application/problem+json"]["schema"] = {"allOf": [{"$ref": f"{_REF}Problem"}, _object({"errors": errors})]}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        answer["headers"] = {"Retry-After": {"description": "Seconds after which to repeat the request.", "schema": {"type": "integer"}}}
    return answer


def _answer(status: int, kind: str) -> dict[str, Any]:
    content = {kind: {"schema": _TEXT}} if "/" in kind else {"application/json": {"schema": {"$ref": _REF + kind}}}
    return {"description": HTTPStatus(status).phrase, "content": content}


def _operation(route: Route) -> dict[str, Any]:
    statuses = set(route.problems) | ({401, 403} if route.scope > Scope.OPEN else set()) - set(route.answers)
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "responses": {
            str(status): answer for status, answer in sorted({**{s: _problem(s) for s in statuses}, **{s: _answer(s, kind) for s, kind in route.answers.items()}}.items())
        },
        "security": [] if route.scope == Scope.OPEN else [{"bearer": [route.scope.name.lower()]}],
    }
    if route.parameters:
        operation["parameters"] = list(route.parameters)
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": {"$ref": _REF + route.body}}}}
    return operation


def _version() -> str:
    try:
        return version("early-kill")
    except PackageNotFoundError:
        return "0"


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """Return the description of all calls that are not internal."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if not route.is_internal:
            paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Early kill",
            "version": _version(),
            "description": "Watches how posted variants perform and takes down the bad ones early. With tokens configured every call but `/health` needs one.",
        },
        "paths": paths,
        "components": {"schemas": _schemas(), "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}},
    }

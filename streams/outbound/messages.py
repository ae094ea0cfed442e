"""What another system is told: the body of a call, its idempotency key, its signature."""

from __future__ import annotations

import hashlib
import hmac
import uuid
from typing import Any, Literal
from uuid import UUID

import msgspec

from models.ids import NAMESPACE
from models.moments import format_moment
from models.monitoring_record import MonitoringRecord

Event = Literal["variant_killed", "variant_revived"]
SCHEMA_VERSION = 1


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call that is to be made; a row of ``outbound_call``. ``body`` is sent as it is, byte by byte, at each attempt."""

    idempotency_key: UUID
    event: Event
    kill_id: UUID
    session_id: UUID
    variant_id: str
    target: str
    body: str


def idempotency_key(event: Event, kill_id: UUID, target: str) -> UUID:
    """Name what a call is to bring about: the same however often, and wherever, the kill is decided."""
    return uuid.uuid5(NAMESPACE, f"{event} {kill_id} {target}")


def killed_call(record: MonitoringRecord, target: str) -> Call:
    """Return the call that tells ``target`` of a session's kill; ``record`` is that of its end."""
    if record.kill_id is None or record.decided_at_us is None:
        raise ValueError(f"record {record.record_id} is not a kill's")
    told: dict[str, Any] = {name: getattr(record, name) for name in _TOLD}
    told |= {"reason": record.kill_reason, "posted_at": format_moment(record.started_at_us), "decided_at": format_moment(record.decided_at_us)}
    return _call("variant_killed", record.kill_id, record.session_id, record.variant_id, target, told | record.decided_on)


_TOLD = (
    "persona_id",
    "post_id",
    "policy",
    "expected_engagement_rate",
    "kill_threshold",
    "min_interactions",
    "final_engagement_rate",
    "final_interaction_count",
    "final_view_count",
)


def revived_call(kill_id: UUID, session_id: UUID, variant_id: str, target: str, now_us: int) -> Call:
    """Return the call that tells ``target`` that a kill it may have heard of is undone."""
    return _call("variant_revived", kill_id, session_id, variant_id, target, {"revived_at": format_moment(now_us)})


def _call(event: Event, kill_id: UUID, session_id: UUID, variant_id: str, target: str, told: dict[str, Any]) -> Call:
    key = idempotency_key(event, kill_id, target)
    head = {"schema_version": SCHEMA_VERSION, "event": event, "idempotency_key": key, "kill_id": kill_id, "session_id": session_id, "variant_id": variant_id}
    body = msgspec.json.encode(head | told).decode()
    return Call(idempotency_key=key, event=event, kill_id=kill_id, session_id=session_id, variant_id=variant_id, target=target, body=body)


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """Sign a call: ``v1=`` and, in hex, the HMAC-SHA256 of the timestamp in decimal digits, a full stop, and the body."""
    return "v1=" + hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()

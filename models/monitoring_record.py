"""The record of a session's start or end, as the monitor writes it to Kafka and the sink reads it.

Source:
    CONTRACT.md, section 2 (``monitoring_record``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from models.errors import Reject
from models.moments import EARLIEST, YEAR_10000, format_moment, from_datetime
from models.stop_request import StopRequest
from models.strict_json import DEPTH_LIMIT, VALUE_LIMIT, is_deeper, parse_json

Kind = Literal["started", "killed", "timed_out", "stopped"]
METADATA_DEPTH = 200
"""Most levels of objects and lists in ``monitoring_metadata``; what a post brings along has at most half as many."""
_FIELD = re.compile(r" - at `\$\.?(.*)`$")

_Id = Annotated[str, Meta(pattern=r"\A[^\x00-\x1f\x7f-\x9f]{1,200}\Z")]
_Reason = Annotated[str, Meta(min_length=1, max_length=1_000)]
_Share = Annotated[float, Meta(gt=0, le=1)]
_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]  # a bigint
_Moment = Annotated[datetime, Meta(tz=True)]


class MonitoringRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A session started, or ended: with all that is known of it, for the end may be read before its start.

    Attributes:
        record_id: The same for each repetition of this record.
        kind: ``started``, or which end it was.
        expected_engagement_rate: In (0, 1].
        kill_threshold: In (0, 1].
        min_interactions: 1 to 1,000,000.
        timeout_minutes: In (0, 43,200].
        started_at_us: When it was posted, in microseconds since the epoch; so are ``ended_at_us`` and ``decided_at_us``.
        ended_at_us: None in a start, as are all that follow except ``monitoring_metadata``.
        final_engagement_rate: None too at an end without views.
        kill_id: At a kill only.
        decided_at_us: Wall clock of the decision, at every end.
        monitoring_metadata: JSON object: policy, counts per kind, deciding event, source.
    """

    record_id: UUID
    session_id: UUID
    kind: Kind
    variant_id: str
    persona_id: str
    post_id: str
    expected_engagement_rate: float
    kill_threshold: float
    min_interactions: int
    timeout_minutes: float
    policy: str
    started_at_us: int
    ended_at_us: int | None = None
    kill_reason: str | None = None
    final_engagement_rate: float | None = None
    final_interaction_count: int | None = None
    final_view_count: int | None = None
    kill_id: UUID | None = None
    decided_at_us: int | None = None
    monitoring_metadata: Mapping[str, Any]

    @property
    def outcome(self) -> str | None:
        """How the session ended; None for its start."""
        return None if self.kind == "started" else self.kind

    @property
    def was_killed(self) -> bool:
        """Whether this is a kill."""
        return self.kind == "killed"

    @property
    def decided_on(self) -> dict[str, Any]:
        """What an end followed from, as far as its metadata say: counts per kind, and the deciding event."""
        return {name: self.monitoring_metadata[name] for name in ("counts", "deciding_event") if name in self.monitoring_metadata}

    @property
    def stop_request(self) -> StopRequest | None:
        """Who asked for a stop, at the end that it brought, as far as its metadata say."""
        told = self.monitoring_metadata.get("stop_request")
        return StopRequest.of(told.get("requested_by"), told.get("request_id")) if self.kind == "stopped" and isinstance(told, Mapping) else None

    def to_bytes(self) -> bytes:
        """The value of the Kafka record. Equal records give equal bytes."""
        return _ENCODER.encode(_to_wire(self))


class _Wire(msgspec.Struct, frozen=True, kw_only=True):
    """The fields in the order and the types they have as JSON."""

    schema_version: Literal[1]
    record_id: UUID
    session_id: UUID
    kind: Kind
    variant_id: _Id
    persona_id: _Id
    post_id: _Id
    expected_engagement_rate: _Share
    kill_threshold: _Share
    min_interactions: Annotated[int, Meta(ge=1, le=1_000_000)]
    timeout_minutes: Annotated[float, Meta(gt=0, le=43_200)]
    policy: _Id
    started_at: _Moment
    ended_at: _Moment | None
    is_active: bool
    was_killed: bool
    outcome: Literal["killed", "timed_out", "stopped"] | None
    kill_reason: _Reason | None
    final_engagement_rate: Annotated[float, Meta(ge=0)] | None
    final_interaction_count: _Count | None
    final_view_count: _Count | None
    kill_id: UUID | None
    decided_at: _Moment | None
    monitoring_metadata: dict[str, Any]


_DECODER = msgspec.json.Decoder(_Wire)
_ENCODER = msgspec.json.Encoder()
_read = msgspec.json.Decoder().decode


def parse(value: bytes) -> MonitoringRecord:
    """Read the value of a ``monitoring_record``; unknown fields are ignored.

    Raises:
        Reject: With the field at fault: over 64 KiB, not UTF-8 (all of it), not JSON, a wrong type or range, a moment outside of
            the years 2000 to 9999, metadata nested too deeply, columns that contradict the kind, or, anywhere in it, what
            ``parse_json`` refuses.
    """
    if len(value) > VALUE_LIMIT:
        raise Reject("longer than 64 KiB")
    try:
        value.decode()  # of what it skips msgspec sees only that it is JSON
        wire = _DECODER.decode(value)
    except UnicodeDecodeError:
        raise Reject("not UTF-8") from None
    except RecursionError:
        raise Reject("nested too deeply") from None
    except msgspec.ValidationError as error:
        text = str(error)
        field = _FIELD.search(text)
        raise Reject(_FIELD.sub("", text), field[1] or None if field else None) from None
    except msgspec.DecodeError as error:
        raise Reject(f"not JSON: {error}") from None
    if is_deeper(wire.monitoring_metadata, METADATA_DEPTH):
        raise Reject("nested too deeply", "monitoring_metadata")
    if _is_suspect(value):
        parse_json(value)
    _check_kind(wire)
    return _from_wire(wire)


def parse_keyed(value: bytes | None, key: bytes | None) -> MonitoringRecord:
    """Read a ``monitoring_record`` with its key, which has to be ``variant_id`` in UTF-8; errors as ``parse``."""
    if value is None:
        raise Reject("has no value")
    record = parse(value)
    if key != record.variant_id.encode():
        raise Reject("the record's key differs from variant_id")
    return record


def _check_kind(wire: _Wire) -> None:
    """Refuse columns that contradict the kind, so that no half-ended session is ever written."""
    ended = wire.kind != "started"
    killed = wire.kind == "killed"
    expected = {
        "is_active": wire.is_active is not ended,
        "was_killed": wire.was_killed is killed,
        "outcome": wire.outcome == (wire.kind if ended else None),
        "ended_at": (wire.ended_at is not None) is ended,
        "kill_reason": (wire.kill_reason is not None) is ended,
        "final_interaction_count": (wire.final_interaction_count is not None) is ended,
        "final_view_count": (wire.final_view_count is not None) is ended,
        "final_engagement_rate": wire.final_engagement_rate is None or (ended and bool(wire.final_view_count)),
        "kill_id": (wire.kill_id is not None) is killed,
        "decided_at": (wire.decided_at is not None) is ended,
    }
    for field, agrees in expected.items():
        if not agrees:
            raise Reject(f"contradicts kind {wire.kind}", field)


def _is_suspect(value: bytes) -> bool:
    """Tell whether ``parse_json`` has to judge a value, fields that nobody knows included: it takes several times as long as this."""
    try:
        _read(value)  # finds numbers that are not finite, or too long
    except (msgspec.DecodeError, RecursionError):
        return True
    return b"\\u0000" in value or value.count(b"[") + value.count(b"{") > DEPTH_LIMIT


_MOMENTS = ("started_at", "ended_at", "decided_at")
_SHARED = tuple(name for name in MonitoringRecord.__struct_fields__ if not name.endswith("_us"))


def _from_wire(wire: _Wire) -> MonitoringRecord:
    fields: dict[str, Any] = {name: getattr(wire, name) for name in _SHARED}
    for name in _MOMENTS:
        moment: datetime | None = getattr(wire, name)
        us = None if moment is None else from_datetime(moment)
        if us is not None and not EARLIEST <= us < YEAR_10000:
            raise Reject("lies outside the years 2000 to 9999", name)
        fields[f"{name}_us"] = us
    return MonitoringRecord(**fields)


def _to_wire(record: MonitoringRecord) -> dict[str, Any]:
    fields: dict[str, Any] = {name: getattr(record, name) for name in _SHARED}
    for name in _MOMENTS:
        us: int | None = getattr(record, f"{name}_us")
        fields[name] = None if us is None else format_moment(us)
    fields |= {"schema_version": 1, "is_active": record.outcome is None, "was_killed": record.was_killed, "outcome": record.outcome}
    return {name: fields[name] for name in _Wire.__struct_fields__}

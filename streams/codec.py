"""Records to events, fast; and dead letters.

The truth about what a value may hold is ``models.events``. The way here is for the common case only: printable text
without escapes, no unknown field. Whatever it does not accept goes the slow way, so it can only be faster,
never different; a property test holds it to that.
"""

from __future__ import annotations

import base64
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import astuple

from models.engagement import KIND_INDEX, SNAPSHOT
from models.errors import Reject
from models.events import COUNT_LIMIT, ID_LIMIT, TOTAL_LIMIT, Interaction, parse_interaction
from models.moments import EARLIEST, FUTURE_LIMIT, MILLISECOND, format_moment
from streams.usual_moments import read_moment

DEAD_LETTER_BYTES = 4 * 1024
"""So much of a key or value goes into a dead letter. Source: contract, section 2."""
REASON_CHARACTERS = 1_000
"""So much of a reason goes into a dead letter; it may repeat what it is about."""
_FAST_BYTES = 2_048

_Id = Annotated[str, Meta(min_length=1, max_length=ID_LIMIT)]


class _Increment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    variant_id: _Id
    kind: str
    count: Annotated[int, Meta(ge=1, le=COUNT_LIMIT)] | None = None
    post_id: _Id | None = None
    occurred_at: str | int | float | None = None
    event_id: _Id | None = None
    source: str | None = None
    schema_version: Annotated[int, Meta(ge=1, le=1)] | None = None


_Total = Annotated[int, Meta(ge=0, le=TOTAL_LIMIT)] | None


class _Totals(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    views: _Total = None
    likes: _Total = None
    replies: _Total = None
    reposts: _Total = None
    quotes: _Total = None
    shares: _Total = None
    clicks: _Total = None
    saves: _Total = None


_NO_TOTALS = astuple(_Totals())


class _Snapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    variant_id: _Id
    kind: Literal["snapshot"]
    totals: _Totals
    post_id: _Id | None = None
    occurred_at: str | int | float | None = None
    event_id: _Id | None = None
    source: str | None = None
    schema_version: Annotated[int, Meta(ge=1, le=1)] | None = None


_decode = msgspec.json.Decoder(_Increment).decode
_decode_snapshot = msgspec.json.Decoder(_Snapshot).decode
_encode = msgspec.json.Encoder().encode


def decode_interaction(value: bytes | None, key: bytes | None, append_us: int) -> Interaction:
    """Read an ``interaction`` record, as ``models.events.parse_interaction`` does, but faster where it can.

    Raises:
        Reject: The record cannot be used.
    """
    event = None
    if value is not None and len(value) <= _FAST_BYTES:
        try:
            event = _usual(value, key, append_us)
        except (UnicodeDecodeError, msgspec.DecodeError, Reject):
            event = None
    return parse_interaction(value, key, append_us) if event is None else event


def _usual(value: bytes, key: bytes | None, append_us: int) -> Interaction | None:
    """Read a value of the usual form; None, or an error, if it is none or may not be used."""
    text = str(value, "utf-8")
    if "\\" in text or not text.isprintable():
        return None
    message = _decode_snapshot(value) if b'"totals"' in value else _decode(value)
    if key != message.variant_id.encode():
        return None
    occurred_at = append_us if message.occurred_at is None else read_moment(message.occurred_at)
    if occurred_at < EARLIEST or occurred_at > append_us + FUTURE_LIMIT:
        return None
    if isinstance(message, _Increment):
        return Interaction(message.variant_id, message.kind, occurred_at, message.count or 1, message.post_id, message.event_id) if message.kind in KIND_INDEX else None
    totals = astuple(message.totals)
    return None if totals == _NO_TOTALS else Interaction(message.variant_id, SNAPSHOT, occurred_at, 1, message.post_id, message.event_id, totals)


def dead_letter(topic: str, partition: int, offset: int, append_us: int, key: bytes | None, value: bytes | None, reason: str, now: int) -> tuple[bytes | None, bytes]:
    """Return key and value of the ``dead_letter`` record for a record that could not be used.

    Args:
        topic: Where the record was.
        partition: Likewise.
        offset: Likewise.
        append_us: Its append time, microseconds since the epoch.
        key: Its key.
        value: Its value.
        reason: Why it could not be used, for people.
        now: Wall clock, microseconds since the epoch.
    """
    letter = {
        "topic": topic,
        "partition": partition,
        "offset": offset,
        "timestamp": append_us // MILLISECOND,
        "key_base64": _head(key),
        "value_base64": _head(value),
        "key_size": None if key is None else len(key),
        "value_size": None if value is None else len(value),
        "reason": reason[:REASON_CHARACTERS],
        "at": format_moment(now),
    }
    return (key if key is not None and len(key) <= DEAD_LETTER_BYTES else None), _encode(letter)


def _head(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data[:DEAD_LETTER_BYTES]).decode()


def encode_json(value: object) -> bytes:
    """Return ``value`` as compact JSON."""
    return _encode(value)


def microseconds(timestamp_ms: int) -> int:
    """Return a Kafka timestamp as microseconds since the epoch."""
    return timestamp_ms * MILLISECOND

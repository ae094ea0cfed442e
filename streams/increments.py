"""Values of many ``interaction`` records to increments, all at once.

The values are joined with newlines and decoded in one call. A newline cannot stand inside a JSON string, and after a value
that ends in ``}`` no JSON goes on with ``{``; so if every newline stands between ``}`` and ``{``, and as many documents come
out as records went in, each came from its own record.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from models.errors import Reject
from models.events import COUNT_LIMIT, ID_LIMIT
from models.moments import EARLIEST, FUTURE_LIMIT, MILLISECOND
from models.strict_json import DEPTH_LIMIT, VALUE_LIMIT
from streams.ports import Incoming
from streams.usual_moments import read_moments

ODD = "odd"
"""Kind of an event that has to go the general way."""

_Id = Annotated[str, Meta(min_length=1, max_length=ID_LIMIT)]
_NOTHING = msgspec.Raw()
_C1_CONTROL = re.compile(rb"\xc2[\x80-\x9f]")


class Increment(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The value of an ``interaction`` record; ``kind`` is ``ODD`` if it is not plain, or cannot be used."""

    variant_id: _Id
    kind: str
    count: Annotated[int, Meta(ge=1, le=COUNT_LIMIT)] = 1
    post_id: _Id | None = None
    occurred_at: str | int | float | None = None  # after ``decode_increments`` always microseconds since the epoch
    event_id: _Id | None = None
    source: str | None = None
    schema_version: Annotated[int, Meta(ge=1, le=1)] | None = None
    totals: msgspec.Raw = _NOTHING


class _Wider(Increment, forbid_unknown_fields=False, gc=False):
    """Passes over unknown fields, of which it sees only that they are JSON."""


_decode_lines = msgspec.json.Decoder(Increment).decode_lines
_decode_wider_lines = msgspec.json.Decoder(_Wider).decode_lines
_read_lines = msgspec.json.Decoder(Any).decode_lines


def decode_increments(records: Sequence[Incoming]) -> list[Increment] | None:
    """Read the records' values.

    Returns:
        An increment for each record, or None if one of the values is out of the ordinary: escapes, deep nesting,
        anything that ``models.events`` would refuse, …
    """
    events = _decode([record.value for record in records])
    if events is None:
        return None
    _check_keys(events, [record.key for record in records])
    try:
        _read_moments(events, records)
    except Reject:
        return None
    return events


def _decode(values: list[bytes | None]) -> list[Increment] | None:
    lines = _joined(values)
    if lines is None:
        return None
    try:
        events = _decode_known(lines)
        if events is None:
            events = _decode_wider(lines, values)
    except (msgspec.DecodeError, RecursionError):
        return None
    if len(events) != len(values):
        return None
    if b'"totals"' in lines:  # which an increment has no use for, so nobody has looked at them
        for event in events:
            if event.totals is not _NOTHING:
                event.kind = ODD
    return events


def _joined(values: list[bytes | None]) -> bytes | None:
    """Return the values as lines; None if one is missing, too large or no text that can be printed, or may not stand for itself."""
    try:
        if max(map(len, values), default=0) > VALUE_LIMIT:  # type: ignore[arg-type] # a value that is missing is found out here
            return None
    except TypeError:
        return None
    lines = b"\n".join(values)  # type: ignore[arg-type]
    boundaries = len(values) - 1
    stand_alone = lines.count(b"}\n{") == boundaries and lines.count(b"\n") == boundaries and lines[:1] == b"{" and lines[-1:] == b"}"
    if not stand_alone or b"\\" in lines or b"\x7f" in lines:
        return None
    if not lines.isascii():
        try:
            str(lines, "utf-8")
        except UnicodeDecodeError:
            return None
        if _C1_CONTROL.search(lines):
            return None
    return lines


def _decode_known(lines: bytes) -> list[Increment] | None:
    """Return what the lines hold; None if there are unknown fields."""
    try:
        return _decode_lines(lines)
    except msgspec.ValidationError as error:
        if str(error).startswith("Object contains unknown field"):
            return None
        raise


def _decode_wider(lines: bytes, values: list[bytes | None]) -> list[Increment]:
    """Return what the lines hold besides unknown fields, once it is known that nothing in those is refused.

    That leaves numbers that are too large or too long, which reading all of it finds, and nesting: ``DEPTH_LIMIT`` levels begin with as many brackets.

    Raises:
        msgspec.DecodeError, RecursionError: There is something that is refused, or may be.
    """
    if len(lines) > DEPTH_LIMIT and any(value.count(b"[") + value.count(b"{") > DEPTH_LIMIT for value in values):  # type: ignore[union-attr] # none is missing
        raise RecursionError
    _read_lines(lines)
    return _decode_wider_lines(lines)  # type: ignore[return-value] # a list that nobody adds to


def _check_keys(events: list[Increment], keys: list[bytes | None]) -> None:
    """Mark events whose record's key is not their ``variant_id``."""
    ids = "\n".join([event.variant_id for event in events])
    if None not in keys and b"\n".join(keys) == ids.encode():  # type: ignore[arg-type] # an id holds no newline, so neither does a key that fits
        return
    for event, key in zip(events, keys, strict=True):
        if key != event.variant_id.encode():
            event.kind = ODD


def _read_moments(events: list[Increment], records: Sequence[Incoming]) -> None:
    """Turn each ``occurred_at`` into microseconds, and mark events whose moment may be out of bounds; raises ``Reject`` for one that is none."""
    append_ms = [record.timestamp for record in records]
    horizon = min(append_ms) * MILLISECOND + FUTURE_LIMIT  # append times may go back, when another broker leads
    for event, moment in zip(events, read_moments([event.occurred_at for event in events], append_ms), strict=True):
        event.occurred_at = moment
        if not EARLIEST <= moment <= horizon:
            event.kind = ODD

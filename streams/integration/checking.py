"""What a worker would say to an event, said before it is sent."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from models.errors import Reject
from models.events import parse_interaction, parse_variant_posted
from models.moments import format_moment, from_datetime
from models.policy import Defaults
from streams.clock import wall_clock
from streams.event_log import to_bytes


def checked(topic: str, value: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Return key and value of the record for an event, as a worker will accept it now; but a post may be too old for that, as those of a recorded log are.

    Raises:
        Reject: A worker would send it to ``dead_letter``, whenever it comes.
    """
    content = to_bytes(dict(value))
    variant_id = value.get("variant_id")
    key = variant_id.encode(errors="surrogatepass") if isinstance(variant_id, str) else b""
    now = wall_clock()
    if topic == "variant_posted":
        parse_variant_posted(content, key, now, Defaults())
    else:
        parse_interaction(content, key, now)
    return key, content


def without_datetimes(value: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    """Return ``value`` with an aware ``datetime`` in ``field`` written as on the wire.

    Raises:
        Reject: It is a naive one.
    """
    moment = value.get(field)
    if not isinstance(moment, datetime):
        return value
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise Reject("is a datetime without a time zone", field)
    return {**value, field: format_moment(from_datetime(moment))}

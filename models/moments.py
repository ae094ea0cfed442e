"""Moments: integer microseconds since the Unix epoch inside, RFC 3339 outside."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal

from models.errors import Reject

MILLISECOND = 1_000
"""Microseconds in a millisecond."""
SECOND = 1_000_000
"""Microseconds in a second."""
MINUTE = 60 * SECOND
DAY = 86_400 * SECOND

EARLIEST = 946_684_800 * SECOND
"""2000-01-01T00:00:00Z: moments before it are refused. Source: contract, section 2."""
FUTURE_LIMIT = 5 * MINUTE
"""How far after a record's append time a moment may lie, inclusive. Source: contract, section 2."""
FIRST_MILLISECONDS = 2e10
"""Numbers from here on are milliseconds, smaller ones seconds. Source: contract, section 2."""
YEAR_10000 = 253_402_300_800 * SECOND
"""No date from here on can be written."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = _EPOCH.replace(tzinfo=None)
_MICROSECOND = timedelta(microseconds=1)
_LATEST_NUMBER = 1e15  # milliseconds beyond any date that can be written
_LEAP_SECOND, _LAST_HOUR, _LAST_MINUTE = 60, 23, 59
_RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(\.\d+)?(?:([Zz])|([+-])(\d\d):(\d\d))", re.ASCII)
_USUAL = re.compile(r"\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:[0-5]\d)", re.ASCII)


def from_datetime(moment: datetime) -> int:
    """Return an aware ``moment`` as microseconds since the epoch, exactly."""
    return (moment - _EPOCH) // _MICROSECOND


def to_datetime(us: int) -> datetime:
    """Return microseconds since the epoch as an aware ``datetime`` in UTC, exactly."""
    return _EPOCH + timedelta(microseconds=us)


def format_moment(us: int) -> str:
    """Write microseconds since the epoch as RFC 3339 in UTC, always with six digits: ``2019-11-29T12:45:13.822505Z``."""
    return (_NAIVE_EPOCH + timedelta(microseconds=us)).isoformat(timespec="microseconds") + "Z"


def minutes(value: float) -> int:
    """Return ``value`` minutes in whole microseconds, rounded half to even, as ``timedelta(minutes=value)`` does."""
    return timedelta(minutes=value) // _MICROSECOND


def parse_moment(raw: str | float) -> int:
    """Read a moment from the wire.

    Args:
        raw: An RFC 3339 string with an offset, or a Unix time: below 2e10 in seconds, from 2e10 on in milliseconds.

    Returns:
        Microseconds since the epoch; finer digits are rounded, half to even.

    Raises:
        Reject: It is neither, has no offset, names a day that does not exist, or is not finite.
    """
    if isinstance(raw, str):
        return _parse_rfc3339(raw)
    if isinstance(raw, bool) or not isinstance(raw, (int, float)) or (isinstance(raw, float) and not math.isfinite(raw)):
        raise Reject("is not a moment (RFC 3339 with an offset, or a Unix time)")
    if abs(raw) > _LATEST_NUMBER:
        raise Reject("lies outside the years 2000 to 9999")
    return round(raw * SECOND) if raw < FIRST_MILLISECONDS else round(raw * 1_000)


def _parse_rfc3339(text: str) -> int:
    if _USUAL.fullmatch(text):
        try:
            return from_datetime(datetime.fromisoformat(text))
        except ValueError:
            pass  # named below
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise Reject("is not a moment (RFC 3339 with an offset, or a Unix time)")
    year, month, day, hour, minute, second = (int(part) for part in match.group(1, 2, 3, 4, 5, 6))
    leap = second == _LEAP_SECOND  # RFC 3339, section 5.7; counted as the second after it
    try:
        whole = from_datetime(datetime(year, month, day, hour, minute, second - leap, tzinfo=UTC))
    except ValueError as error:
        raise Reject("names a day or time that does not exist") from error
    fraction = int((Decimal("0" + match[7]) * SECOND).quantize(Decimal(1), ROUND_HALF_EVEN)) if match[7] else 0
    offset = 0
    if match[9]:
        hours, rest = int(match[10]), int(match[11])
        if hours > _LAST_HOUR or rest > _LAST_MINUTE:
            raise Reject("has an offset that does not exist")
        offset = (hours * 60 + rest) * MINUTE * (1 if match[9] == "+" else -1)
    return whole + leap * SECOND + fraction - offset


def check_moment(us: int, append_us: int) -> int:
    """Return ``us`` if the contract takes it for a record appended at ``append_us`` (both microseconds).

    Raises:
        Reject: It lies before 2000-01-01, or more than 5 minutes after the append time.
    """
    if us < EARLIEST:
        raise Reject("lies before 2000-01-01")
    if us > append_us + FUTURE_LIMIT:
        raise Reject("lies more than 5 minutes after the record was appended")
    return us

"""Moments: both forms of the wire, to the microsecond, and their bounds."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from models.errors import Reject
from models.moments import EARLIEST, FUTURE_LIMIT, MINUTE, SECOND, check_moment, format_moment, from_datetime, minutes, parse_moment, to_datetime

NOON = from_datetime(datetime(2019, 11, 29, 12, 0, 0, tzinfo=UTC))


@pytest.mark.parametrize(
    ("text", "after_noon"),
    [
        ("2019-11-29T12:00:00Z", 0),
        ("2019-11-29t12:00:00z", 0),
        ("2019-11-29 12:00:00+00:00", 0),
        ("2019-11-29T12:00:00-00:00", 0),
        ("2019-11-29T17:30:00+05:30", 0),
        ("2019-11-28T12:01:00-23:59", 0),
        ("2019-11-29T12:00:00.822505Z", 822_505),
        ("2019-11-29T12:00:00.5Z", 500_000),
        ("2019-11-29T12:00:00.0000005Z", 0),
        ("2019-11-29T12:00:00.0000015Z", 2),
        ("2019-11-29T12:00:00.00000050001Z", 1),
        ("2019-11-29T12:00:00.9999999Z", SECOND),
        ("2019-11-29T12:00:60Z", MINUTE),
    ],
)
def test_a_written_moment_is_read_to_the_microsecond(text: str, after_noon: int) -> None:
    """RFC 3339 with any offset; finer digits are rounded, half to even."""
    assert parse_moment(text) == NOON + after_noon


@pytest.mark.parametrize(
    "text",
    [
        "", "yesterday", "2019-11-29", "2019-11-29T12:00:00", "2019-11-29T12:00Z", "2019-11-29T12:00:00+0100", "2019-11-29T12:00:00+1:00", "2019-11-29T12:00:00.Z",
        " 2019-11-29T12:00:00Z", "2019-11-29T12:00:00Z\n", "20191129T120000Z", "1574553600", "٢٠١٩-11-29T12:00:00Z", "2019-11-29T12:00:00,5Z",
    ],
)  # fmt: skip
def test_a_moment_without_offset_or_of_another_form_is_refused(text: str) -> None:
    """Naive strings too: nobody knows which moment they mean."""
    with pytest.raises(Reject, match="is not a moment"):
        parse_moment(text)


@pytest.mark.parametrize("text", ["2019-02-29T12:00:00Z", "2019-13-01T12:00:00Z", "2019-11-29T24:00:00Z", "2019-11-29T12:60:00Z", "2019-11-29T12:00:61Z", "0000-01-01T00:00:00Z"])
def test_a_day_or_time_that_does_not_exist_is_refused(text: str) -> None:
    """The calendar is Gregorian, days have 24 hours, minutes at most a leap second."""
    with pytest.raises(Reject, match="does not exist"):
        parse_moment(text)


@pytest.mark.parametrize("text", ["2019-11-29T12:00:00+24:00", "2019-11-29T12:00:00+12:60"])
def test_an_offset_that_does_not_exist_is_refused(text: str) -> None:
    """Offsets go up to 23:59."""
    with pytest.raises(Reject, match="offset that does not exist"):
        parse_moment(text)


@pytest.mark.parametrize(
    ("number", "us"),
    [
        (1_574_553_600, 1_574_553_600 * SECOND),
        (1_574_553_600.25, 1_574_553_600 * SECOND + 250_000),
        (1_574_553_600.123457, 1_574_553_600 * SECOND + 123_457),
        (1_574_553_600_123, 1_574_553_600 * SECOND + 123_000),
        (1_574_553_600_123.5, 1_574_553_600 * SECOND + 123_500),
        (0, 0),
        (-1, -SECOND),
    ],
)
def test_a_unix_time_is_seconds_or_milliseconds(number: float, us: int) -> None:
    """Fractions are kept to the microsecond."""
    assert parse_moment(number) == us


def test_numbers_are_milliseconds_from_twenty_billion_on() -> None:
    """One below is seconds, the bound itself milliseconds."""
    assert parse_moment(19_999_999_999) == 19_999_999_999 * SECOND
    assert parse_moment(20_000_000_000) == 20_000_000 * SECOND
    assert parse_moment(2e10) == 20_000_000 * SECOND


@pytest.mark.parametrize("raw", [True, False, float("nan"), float("inf"), -float("inf"), None, [], {}, b"2019-11-29T12:00:00Z"])
def test_what_is_neither_text_nor_finite_number_is_no_moment(raw: object) -> None:
    """A boolean is never a number."""
    with pytest.raises(Reject, match="is not a moment"):
        parse_moment(raw)  # type: ignore[arg-type]


@pytest.mark.parametrize("raw", [1e300, -1e300, 10**400, 1e15 + 1], ids=lambda raw: f"{str(raw)[:8]}")
def test_a_number_beyond_any_date_is_refused(raw: float) -> None:
    """It may not make arithmetic overflow."""
    with pytest.raises(Reject, match="lies outside"):
        parse_moment(raw)


def test_the_first_moment_taken_is_the_start_of_2000() -> None:
    """A microsecond before is refused."""
    assert datetime(2000, 1, 1, tzinfo=UTC) == to_datetime(EARLIEST)
    assert check_moment(EARLIEST, NOON) == EARLIEST
    with pytest.raises(Reject, match="before 2000-01-01"):
        check_moment(EARLIEST - 1, NOON)


def test_a_moment_may_lie_five_minutes_after_its_append_time() -> None:
    """Inclusive; a microsecond more is refused."""
    assert FUTURE_LIMIT == 5 * MINUTE
    assert check_moment(NOON + 5 * MINUTE, NOON) == NOON + 5 * MINUTE
    with pytest.raises(Reject, match="more than 5 minutes after"):
        check_moment(NOON + 5 * MINUTE + 1, NOON)


def test_a_moment_is_written_with_six_digits_and_z() -> None:
    """Also on a whole second."""
    assert format_moment(NOON) == "2019-11-29T12:00:00.000000Z"
    assert format_moment(NOON + 1) == "2019-11-29T12:00:00.000001Z"
    assert parse_moment(format_moment(NOON + 822_505)) == NOON + 822_505


def test_minutes_are_rounded_to_the_microsecond() -> None:
    """Half to even, as ``timedelta`` does."""
    assert minutes(10) == 600 * SECOND
    assert minutes(43_200) == 30 * 86_400 * SECOND
    assert minutes(1 / 3) == 20 * SECOND
    assert minutes(1e-9) == 0

"""Moments of the usual forms: read fast, and never read differently."""

from __future__ import annotations

from contextlib import suppress

import pytest

from models.errors import Reject
from models.moments import MILLISECOND, format_moment, parse_moment
from streams import usual_moments
from streams.usual_moments import FORMS, WholeSeconds, read_moment, read_moments

T_MS = 1_700_000_000_000
USUAL = [
    "2023-11-14T22:13:20.000001Z",
    "2023-11-14T22:13:20.999Z",
    "2023-11-14T22:13:20.000001+00:00",
    "2023-11-14T22:13:59.120+00:00",
    "2016-12-31T23:59:60.500000Z",
]
UNUSUAL = ["2023-11-14T22:13:20Z", "2023-11-14t22:13:20.000001z", "2023-11-14T22:13:20.000001-00:00", "2023-11-14T22:13:20.123456789Z", 1_700_000_000.25, 1_700_000_000_123, -5]
NO_MOMENTS = [
    "2023-11-14T22:13:20.00000xZ",
    "2023-11-14T22:13:20.+00001Z",
    "2023-11-14T22:13:20.12_456Z",
    "2023-11-14T22:13:20.00000\u0661Z",
    "2023-11-14T22:13:20.00000\u00b2Z",
    "2023-11-14T22:13:20.000001z ",
    "2023-11-14T22:13:20.000+01:0",
    "2023-11-14T22:13:20,000001Z",
    "2023-02-30T22:13:20.000001Z",
    "2023-11-14T22:13:20.000001X",
    "",
]


@pytest.mark.parametrize("raw", USUAL)
def test_usual_forms_are_told_by_their_length(raw: str) -> None:
    """Each has one of its own."""
    assert FORMS[len(raw)].length == len(raw)


@pytest.mark.parametrize("raw", [*USUAL, *UNUSUAL, *NO_MOMENTS])
@pytest.mark.parametrize("beside", [*USUAL[:4], None, "itself"])
def test_a_moment_is_read_as_ever(raw: str | float, beside: str | None) -> None:
    """Alone, a second time, and together with others, of its own form and of another."""
    raws = [raw, raw] if beside == "itself" else [beside, raw]
    try:
        moment = parse_moment(raw)
    except Reject:
        for read in (lambda: read_moment(raw), lambda: read_moments(raws, [T_MS, T_MS])):
            with pytest.raises(Reject):
                read()
        return
    assert read_moment(raw) == read_moment(raw) == moment
    assert read_moments(raws, [T_MS, T_MS]) == [T_MS * MILLISECOND if one is None else parse_moment(one) for one in raws]


def test_the_seconds_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are forgotten all at once; what is no moment is not remembered."""
    monkeypatch.setattr(usual_moments, "KEPT", 2)
    monkeypatch.setattr(usual_moments, "whole_seconds", known := WholeSeconds())
    for second in range(5):
        assert read_moment(format_moment(second * 1_000_000)) == second * 1_000_000
    assert len(known) == 1
    with suppress(Reject):
        read_moment("2023-02-30T22:13:20.000001Z")
    assert len(known) == 1

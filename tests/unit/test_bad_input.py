"""The brake for a bad deploy upstream."""

from __future__ import annotations

from collections import Counter

import pytest

from models.errors import Stop
from models.session import Result
from streams.bad_input import BadInputLimit
from streams.metrics import Metrics
from streams.observing import Observing


@pytest.mark.parametrize(("records", "bad", "stops"), [(10_000, 9_900, True), (10_000, 9_899, False), (9_999, 9_999, False), (20_000, 19_800, True)])
def test_it_stops_from_ten_thousand_records_with_99_percent_bad(records: int, bad: int, stops: bool):
    """Both bounds count."""
    limit = BadInputLimit(clock=lambda: 5.0)
    if stops:
        with pytest.raises(Stop, match="cannot be used"):
            limit.note(records, bad)
    else:
        limit.note(records, bad)


def test_records_of_a_minute_ago_no_longer_count():
    """The window is 60 s long."""
    now = [0.0]
    limit = BadInputLimit(clock=lambda: now[0])
    limit.note(9_000, 9_000)
    now[0] = 60.0
    limit.note(9_000, 9_000)
    now[0] = 119.0
    with pytest.raises(Stop):
        limit.note(1_000, 1_000)


def test_without_the_option_nothing_stops():
    """It is off unless it is asked for."""
    results = Counter({Result.DEAD_LETTER: 20_000})
    Observing(Metrics()).folded("interaction", 20_000, results)
    with pytest.raises(Stop):
        Observing(Metrics(), BadInputLimit()).folded("interaction", 20_000, results)

"""Counts per kind."""

from __future__ import annotations

from models.engagement import KINDS, Engagement

UNKNOWN = (None,) * 8


def test_a_view_is_not_an_interaction() -> None:
    """All the other kinds are."""
    counts = Engagement()
    for kind in KINDS:
        counts.add(kind, 2)
    assert (counts.views, counts.interactions) == (2, 14)
    assert counts.by_kind() == dict.fromkeys(KINDS, 2)


def test_a_total_is_the_larger_of_sum_and_snapshot() -> None:
    """Per kind; unknown is not zero and changes nothing."""
    counts = Engagement()
    counts.add("view", 5)
    counts.add("like", 5)
    counts.raise_to((3, 9, *UNKNOWN[2:]))
    assert (counts.views, counts.interactions) == (5, 9)
    counts.add("view", 1)
    counts.add("like", 1)
    assert (counts.views, counts.interactions) == (6, 9)
    counts.raise_to((None, 4, 1, *UNKNOWN[3:]))
    assert (counts.views, counts.interactions) == (6, 10)


def test_nobody_has_viewed_no_rate() -> None:
    """Null, not zero."""
    counts = Engagement()
    assert counts.rate is None
    counts.add("like", 1)
    assert counts.rate is None
    counts.add("view", 4)
    assert counts.rate == 0.25

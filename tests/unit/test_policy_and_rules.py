"""The rule, its line and its words."""

from __future__ import annotations

import pytest

from models.engagement import Engagement
from models.policy import STOP_REASON, Policy
from models.rules import KEEP, RULES, Kill, ratio


def counts(interactions: int, views: int) -> Engagement:
    return Engagement([views, interactions, 0, 0, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("interactions", "views", "is_killed"),
    [(10, 500, True), (9, 450, False), (18, 500, False), (18, 600, False), (10, 334, True), (10, 333, False), (10, 0, False)],
)
def test_the_examples_of_the_contract(interactions: int, views: int, is_killed: bool) -> None:
    """Section 3.4, at 0.06, 0.5 and 10."""
    verdict = ratio(counts(interactions, views), Policy(0.06, 0.5, 10))
    assert verdict == (Kill("Below 50% of expected engagement rate", "below_threshold") if is_killed else KEEP)


def test_the_comparison_is_strict_and_in_doubles() -> None:
    """The line itself is good enough, as the machine works it out: 0.1 * 0.7 lies a hair above 7 of 100."""
    assert ratio(counts(7, 100), Policy(0.1, 0.7, 1)) == (KEEP if 7 / 100 >= 0.7 * 0.1 else Kill("Below 70% of expected engagement rate", "below_threshold"))
    assert ratio(counts(1, 4), Policy(0.5, 0.5, 1)) == KEEP
    assert ratio(counts(1, 5), Policy(0.5, 0.5, 1)) != KEEP


def test_min_interactions_is_inclusive() -> None:
    """At the minimum the rule judges; one below it waits."""
    policy = Policy(1.0, 1.0, 3)
    assert ratio(counts(2, 1_000), policy) == KEEP
    assert ratio(counts(3, 1_000), policy) != KEEP


def test_more_interactions_than_views_are_kept() -> None:
    """A rate may exceed one."""
    assert ratio(counts(30, 10), Policy(1.0, 1.0, 1)) == KEEP


@pytest.mark.parametrize(("threshold", "words"), [(0.5, "50"), (1, "100"), (0.333, "33.3"), (1 / 3, "33.3333"), (0.07, "7"), (1e-7, "1e-05"), (0.123456789, "12.3457")])
def test_the_reason_of_a_kill_word_for_word(threshold: float, words: str) -> None:
    """The number is ``kill_threshold * 100`` with six significant digits."""
    assert Policy(kill_threshold=threshold).kill_reason == f"Below {words}% of expected engagement rate"


@pytest.mark.parametrize(("minutes", "words"), [(10, "10"), (10.0, "10"), (0.5, "0.5"), (43_200, "43200"), (1 / 3, "0.333333"), (1234567 / 100, "12345.7")])
def test_the_reason_of_a_time_out_word_for_word(minutes: float, words: str) -> None:
    """The number is ``timeout_minutes`` with six significant digits."""
    assert Policy(timeout_minutes=minutes).timeout_reason == f"{words}-minute monitoring window expired"


def test_the_reason_of_a_stop_word_for_word() -> None:
    """As the contract has it."""
    assert STOP_REASON == "Manually stopped"


def test_the_plain_rule_is_offered_as_ratio() -> None:
    """It is the default of ``variant_posted``."""
    assert RULES["ratio"] is ratio
    assert Policy().rule == "ratio"


def test_the_timeout_is_in_microseconds() -> None:
    """10 minutes by default."""
    assert Policy().timeout == 600_000_000
    assert Policy(timeout_minutes=0.5).timeout == 30_000_000

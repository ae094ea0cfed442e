"""When a variant is bad enough: the numbers a rule works with, and their units."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from models.moments import minutes


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for a variant whose ``variant_posted`` does not say. Source: contract, section 2."""

    expected_engagement_rate: float = 0.06
    kill_threshold: float = 0.5
    min_interactions: int = 10
    timeout_minutes: float = 10


@dataclass(frozen=True, slots=True)
class Policy:
    """The thresholds of one session; they never change once it has started.

    Attributes:
        expected_engagement_rate: Interactions per view to expect, 0 < x <= 1.
        kill_threshold: Share of the expected rate below which a variant is killed, 0 < x <= 1.
        min_interactions: Interactions before the first kill, inclusive.
        timeout_minutes: Length of the monitoring window.
        rule: Name of the rule that judges, a key of ``models.rules.RULES``.
        kill_rate: The line: a rate strictly below it is too low.
        timeout: The window's length in microseconds; one at the least.
    """

    expected_engagement_rate: float = 0.06
    kill_threshold: float = 0.5
    min_interactions: int = 10
    timeout_minutes: float = 10
    rule: str = "ratio"
    kill_rate: float = field(init=False, compare=False, repr=False)
    timeout: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kill_rate", self.kill_threshold * self.expected_engagement_rate)
        object.__setattr__(self, "timeout", max(1, minutes(self.timeout_minutes)))

    @staticmethod
    @lru_cache(maxsize=1_024, typed=True)
    def of(expected_engagement_rate: float, kill_threshold: float, min_interactions: int, timeout_minutes: float, rule: str) -> Policy:
        """Return a policy; sessions with equal ones share it."""
        return Policy(expected_engagement_rate, kill_threshold, min_interactions, timeout_minutes, rule)

    @property
    def kill_reason(self) -> str:
        """Why a variant below the line is killed, word for word as the contract has it."""
        return f"Below {format(self.kill_threshold * 100, '.6g')}% of expected engagement rate"

    @property
    def timeout_reason(self) -> str:
        """Why monitoring ended by itself, word for word as the contract has it."""
        return f"{format(self.timeout_minutes, '.6g')}-minute monitoring window expired"


STOP_REASON = "Manually stopped"
"""Why monitoring ended by hand, word for word as the contract has it."""

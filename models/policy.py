"""When a variant is bad enough: the numbers a rule works with, and their units."""

from __future__ import annotations

from dataclasses import dataclass

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
    """

    expected_engagement_rate: float = 0.06
    kill_threshold: float = 0.5
    min_interactions: int = 10
    timeout_minutes: float = 10
    rule: str = "ratio"

    @property
    def kill_rate(self) -> float:
        """The line: a rate strictly below it is too low."""
        return self.kill_threshold * self.expected_engagement_rate

    @property
    def timeout(self) -> int:
        """The window's length in microseconds."""
        return minutes(self.timeout_minutes)

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

"""Rules: counts in, verdict out. A rule sees no clock and performs nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from models.policy import Policy


class Counts(Protocol):
    """What a rule may look at."""

    @property
    def views(self) -> int:
        """Times the post was seen."""

    @property
    def interactions(self) -> int:
        """Times somebody acted on it."""


@dataclass(frozen=True, slots=True)
class Keep:
    """Leave the variant up; ask again at the next event."""


@dataclass(frozen=True, slots=True)
class Kill:
    """Take the variant down, for ``reason``; ``label`` names the reason in metrics."""

    reason: str
    label: str


Verdict = Keep | Kill
Rule = Callable[[Counts, Policy], Verdict]

KEEP = Keep()


def ratio(counts: Counts, policy: Policy) -> Verdict:
    """Judge by the plain rule: enough interactions, and a rate below the line.

    Args:
        counts: What has counted since the variant was posted.
        policy: ``min_interactions`` (inclusive) and the two factors of the line.

    Returns:
        ``Kill`` if there are at least ``min_interactions`` interactions and the engagement rate lies
        strictly below ``kill_threshold * expected_engagement_rate``, in IEEE doubles; else ``Keep``. A
        variant nobody has viewed has no rate, and is kept.

    Source:
        Contract, section 3.4.
    """
    if counts.interactions < policy.min_interactions or counts.views == 0:
        return KEEP
    if counts.interactions / counts.views < policy.kill_rate:
        return Kill(policy.kill_reason, "below_threshold")
    return KEEP


RULES: dict[str, Rule] = {"ratio": ratio}
"""Every rule a ``variant_posted`` may name in ``policy``."""

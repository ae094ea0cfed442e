"""Engagement: what has counted for one posting, per kind."""

from __future__ import annotations

KINDS = ("view", "like", "reply", "repost", "quote", "share", "click", "save")
"""Every kind of event, in the order of all sequences of counts. All but ``view`` are interactions."""
KIND_INDEX = {kind: index for index, kind in enumerate(KINDS)}
VIEW = KIND_INDEX["view"]
SNAPSHOT = "snapshot"
TOTAL_NAMES = ("views", "likes", "replies", "reposts", "quotes", "shares", "clicks", "saves")
"""Names of the kinds' lifetime totals in a snapshot, in the order of ``KINDS``."""


class Engagement:
    """Counts per kind of one session.

    Per kind the total is the larger of the sum of the increments and the largest snapshot, so the order of
    events does not matter, and totals never go down. Source: contract, section 3.2.

    Attributes:
        views: Total of kind ``view``.
        interactions: Sum of the totals of all other kinds.
    """

    __slots__ = ("increments", "interactions", "snapshots", "views")

    def __init__(self, increments: list[int] | None = None, snapshots: list[int] | None = None) -> None:
        self.increments: list[int] = increments or [0] * len(KINDS)
        self.snapshots: list[int] | None = snapshots
        self.views = 0
        self.interactions = 0
        self._sum()

    def _sum(self) -> None:
        totals = self.totals()
        self.views = totals[VIEW]
        self.interactions = sum(totals) - totals[VIEW]

    def add(self, kind: str, count: int) -> None:
        """Count ``count`` more events of one kind."""
        index = KIND_INDEX[kind]
        old = self.increments[index]
        new = self.increments[index] = old + count
        grown = count
        if self.snapshots is not None:
            known = self.snapshots[index]
            grown = max(new, known) - max(old, known)
        if index == VIEW:
            self.views += grown
        else:
            self.interactions += grown

    def raise_to(self, totals: tuple[int | None, ...]) -> None:
        """Take in a snapshot of lifetime totals, one for each of ``KINDS``; None is unknown and changes nothing."""
        known = self.snapshots or [0] * len(KINDS)
        self.snapshots = [max(old, new or 0) for old, new in zip(known, totals, strict=True)]
        self._sum()

    def totals(self) -> list[int]:
        """Return the total of each of ``KINDS``."""
        if self.snapshots is None:
            return list(self.increments)
        return [max(pair) for pair in zip(self.increments, self.snapshots, strict=True)]

    def by_kind(self) -> dict[str, int]:
        """Return the total of each kind by its name."""
        return dict(zip(KINDS, self.totals(), strict=True))

    @property
    def rate(self) -> float | None:
        """Interactions per view; None while nobody has viewed."""
        return self.interactions / self.views if self.views else None

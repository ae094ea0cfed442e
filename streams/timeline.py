"""When the events of a recorded log happen again: shifted to start now, and so many times faster."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from fractions import Fraction

MINUTE = 60_000_000
"""Microseconds."""


class Timeline:
    """Maps each moment of a log to the one at which it happens again. All moments are integer microseconds since the epoch.

    Time is compressed, so moments that differed may fall together. What must not change is on which side of a window's edge
    an event lies (``posted_at <= occurred_at < deadline``, for every session of its variant): so within a variant the edges
    keep their order, strictly, and an event is kept between the two edges that it lay between.
    """

    def __init__(self, *, log_start: int, starts_at: int, speed: Fraction, windows: Mapping[str, Iterable[tuple[int, int]]]) -> None:
        """Prepare the mapping.

        Args:
            log_start: Moment in the log that happens at ``starts_at``.
            starts_at: When the replay starts.
            speed: How many times faster, > 0; below 1 is slower.
            windows: For each variant, (posted_at, deadline) of its sessions in the log.
        """
        self._log_start = log_start
        self._starts_at = starts_at
        self._numerator, self._denominator = speed.denominator, speed.numerator
        self._edges: dict[str, list[int]] = {}
        self._scaled_edges: dict[str, list[int]] = {}
        for variant_id, pairs in windows.items():
            edges = sorted({edge for pair in pairs for edge in pair})
            scaled: list[int] = []
            for edge in edges:
                scaled.append(max(self.scale(edge), scaled[-1] + 1) if scaled else self.scale(edge))
            self._edges[variant_id], self._scaled_edges[variant_id] = edges, scaled

    def scale(self, moment: int) -> int:
        """Return when ``moment`` comes by the clock alone, to the nearest microsecond; never decreasing."""
        return self._starts_at + (2 * (moment - self._log_start) * self._numerator + self._denominator) // (2 * self._denominator)

    def moment(self, variant_id: str, moment: int) -> int:
        """Return when an event of this variant happens again, on the same side of each window edge as in the log."""
        scaled, edges = self.scale(moment), self._edges.get(variant_id)
        if not edges:
            return scaled
        passed = bisect_right(edges, moment)
        new_edges = self._scaled_edges[variant_id]
        if passed:
            scaled = max(scaled, new_edges[passed - 1])
        return min(scaled, new_edges[passed] - 1) if passed < len(edges) else scaled

    def timeout_minutes(self, variant_id: str, posted_at: int, deadline: int) -> float:
        """Return the length of a session's window in the replay; its deadline is then exactly that of ``moment``."""
        return (self.moment(variant_id, deadline) - self.moment(variant_id, posted_at)) / MINUTE


def windows_by_variant(sessions: Iterable[tuple[str, int, int]]) -> dict[str, list[tuple[int, int]]]:
    """Gather (variant_id, posted_at, deadline) into what ``Timeline`` takes."""
    windows: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for variant_id, posted_at, deadline in sessions:
        windows[variant_id].append((posted_at, deadline))
    return dict(windows)

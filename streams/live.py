"""What this worker holds, and who holds the rest; implements ``streams.web.ports.LiveSessions``."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping

import faust

from models.monitor import PartitionMonitor
from models.views import Place, SessionView, place_of


class Live:
    """Read-only views of the partitions a monitor owns.

    Args:
        app: Knows the consumer group.
        monitors: Returns the owned partitions.
        source_topic: A topic the group reads.
        state_topic: A changelog, by whose owner a partition's owner is known.
    """

    def __init__(self, app: faust.App, monitors: Callable[[], Mapping[int, PartitionMonitor]], source_topic: str, state_topic: str) -> None:
        self._app, self._monitors, self._source_topic, self._state_topic = app, monitors, source_topic, state_topic

    def sessions_of(self, variant_id: str) -> list[SessionView]:
        """Return all sessions of the variant that this worker holds, ended ones too, the one posted last first."""
        found = [session.view(partition) for partition, monitor in self._monitors().items() for session in monitor.sessions.of(variant_id)]
        return sorted(found, key=place_of, reverse=True)

    def active(self, limit: int, after: Place | None) -> list[SessionView]:
        """Return active sessions, newest first by (start, session id), strictly after that pair; at most ``limit``."""
        candidates = [
            (session.posted_at, partition, session)
            for partition, monitor in self._monitors().items()
            for session in monitor.untold
            if after is None or session.posted_at <= after[0]
        ]
        tied = 0 if after is None else sum(posted_at == after[0] for posted_at, _, _ in candidates)
        newest = heapq.nlargest(limit + tied, (posted_at for posted_at, _, _ in candidates))
        oldest_shown = newest[-1] if newest else 0
        views = [session.view(partition) for posted_at, partition, session in candidates if posted_at >= oldest_shown]
        rest = [view for view in views if after is None or place_of(view) < after]
        return sorted(rest, key=place_of, reverse=True)[:limit]

    def active_count(self) -> int:
        """Return how many sessions are active here."""
        return sum(monitor.active_count for monitor in self._monitors().values())

    def assigned(self) -> list[int]:
        """Return the partitions that this worker can answer for."""
        return sorted(self._monitors())

    def is_recovering(self) -> bool:
        """Tell whether this worker still waits for its assignment, or restores what it was assigned."""
        if self._app.rebalancing or self._app.in_recovery or not self._app.tables.recovery.completed.is_set():
            return True
        wanted = {tp.partition for tp in self._app.consumer.assignment() if tp.topic == self._source_topic}
        return wanted != set(self._monitors())

    def owners(self) -> dict[int, str]:
        """Return the base URL of the worker that owns each partition, as the group's leader has told all."""
        return {partition: url.rstrip("/") for url, topics in self._distribution.items() for partition in topics.get(self._state_topic, ())}

    def peers(self) -> list[str]:
        """Return the base URLs of all workers, this one too."""
        return sorted({url.rstrip("/") for url in self._distribution} | {str(self._app.conf.canonical_url).rstrip("/")})

    @property
    def _distribution(self) -> Mapping[str, Mapping[str, list[int]]]:
        return self._app.assignor.changelog_distribution  # type: ignore[no-any-return]

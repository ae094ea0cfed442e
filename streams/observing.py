"""Between the partitions at work and the metrics: every record read gets exactly one result."""

from __future__ import annotations

from collections.abc import Mapping

from models.session import Result
from streams.bad_input import BadInputLimit
from streams.metrics import Metrics


class Observing:
    """Counts for one worker process.

    Args:
        metrics: Where the counts go.
        limit: Stops the worker when nearly everything is bad; None lets it go on.

    Attributes:
        waiting: Records this process has read that have no final result yet; one that left with its partition stays among them.
    """

    def __init__(self, metrics: Metrics, limit: BadInputLimit | None = None) -> None:
        self._metrics, self._limit = metrics, limit
        self.waiting = 0
        metrics.watch_waiting(lambda: self.waiting)
        self.started = metrics.started
        self.ended = metrics.ended
        self.evaluated = metrics.evaluated
        self.flushed = metrics.flushed

    def folded(self, topic: str, read: int, results: Mapping[Result, int]) -> None:
        """Count the ``read`` records of a slice of ``topic``, and what became of them.

        Raises:
            Stop: Nearly everything is bad, and the limit for that is on.
        """
        self._metrics.read(topic, read)
        for result, count in results.items():
            if result is Result.WAITING:
                self.waiting += count
            else:
                self._metrics.count(result, count)
        if self._limit is not None:
            self._limit.note(read, results.get(Result.DEAD_LETTER, 0))

    def resolved(self, result: Result, n: int, *, restored: bool) -> None:
        """Count ``n`` waiting records that have got their final result; ``restored`` if an earlier process had read them."""
        if restored:
            self._metrics.restored_waiting(result, n)
        else:
            self.waiting -= n
            self._metrics.count(result, n)

"""How far the source topics of an owned partition are read, and which of them may be read now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from faust.types import TP

from streams.ticks import Progress


@dataclass(slots=True)
class Reading:
    """How far one source topic of an owned partition is read.

    Attributes:
        catch_up: End offset at the assignment; topics that come after this one wait until it is folded.
        next: Offset after the last record folded.
        unfolded: Chunks that were fetched and not folded yet.
        idle_at: The consumer's position at the last look, if it was idle. Later ones may be ahead of chunks on their way here.
    """

    tp: TP
    catch_up: int
    next: int
    unfolded: int = 0
    idle_at: int = 0
    is_caught_up: bool = False

    def folded(self, last: int) -> None:
        """Note that a chunk up to the offset ``last`` has been folded."""
        self.next = max(self.next, last + 1)
        self.unfolded -= 1

    def look(self, position: int) -> None:
        """Pass over offsets that hold no record (transaction markers, compaction), up to where the idle consumer stands; 0 if it was not asked."""
        if self.unfolded == 0:
            self.next = max(self.next, min(position, self.idle_at))
        self.idle_at = position
        if self.next >= self.catch_up:
            self.is_caught_up = True


class Readings:
    """The source topics of one partition, in the order in which they are opened after an assignment.

    ``interaction`` waits until ``variant_posted`` has been folded up to its end at the assignment, and
    ``monitoring_control`` likewise for ``interaction``: a kill that was told before a crash comes out again before a
    stop that was read after it.
    """

    def __init__(self, readings: Mapping[str, Reading]) -> None:
        self._readings = dict(readings)
        self._read, self._committed = Progress(), Progress()

    def __iter__(self) -> Iterator[Reading]:
        return iter(self._readings.values())

    def __getitem__(self, topic: str) -> Reading:
        return self._readings[topic]

    def open(self, topic: str) -> Reading | None:
        """Return how far ``topic`` is read; None if one that comes before it has not caught up yet, or it is no source topic."""
        for name, reading in self._readings.items():
            if name == topic:
                return reading
            if not reading.is_caught_up:
                return None
        return None

    def look(self, asked_at: int, ends: Mapping[TP, int], positions: Mapping[TP, int | None], is_committed: Callable[[Reading, int], bool]) -> tuple[int, int]:
        """Note where the topics end and where the consumer stands.

        Args:
            asked_at: When ends were asked for (microseconds), or earlier.
            ends: End offsets.
            positions: Of topics that the consumer had nothing of on its way here.
            is_committed: Whether a topic is done, and committed, up to an end offset.

        Returns:
            The moments (microseconds) before which everything that was appended has been read, and has been read and committed.
        """
        for reading in self:
            reading.look(positions.get(reading.tp) or 0)
        own_ends = {topic: ends[reading.tp] for topic, reading in self._readings.items()}
        self._read.ask(asked_at, own_ends)
        self._committed.ask(asked_at, own_ends)
        read = self._read.check(lambda topic, end: self[topic].next >= end)
        return read, min(read, self._committed.check(lambda topic, end: is_committed(self[topic], end)))

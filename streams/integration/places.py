"""From which offset on the records of each partition are told: they are read from some way before it, to know the kills that were told already."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from aiokafka import TopicPartition

if TYPE_CHECKING:
    from aiokafka.structs import ConsumerRecord

log = logging.getLogger(__name__)

LOOK_BACK = 1_000
"""Records of a partition that are read again when it is assigned, only to remember their ids."""


class Places:
    """Where a reader of a topic stands in each of its partitions."""

    def __init__(self, group_id: str | None, *, from_beginning: bool) -> None:
        """Prepare; no partition is assigned.

        Args:
            group_id: The consumer group, whose position goes before all else; None for a reader without one.
            from_beginning: Where to start without a position: with the oldest record, or with those that come from now on.
        """
        self._group_id = group_id
        self._from_beginning = from_beginning
        self._assigned: frozenset[TopicPartition] = frozenset()
        self._told_from: dict[TopicPartition, int] = {}
        self._read_to: dict[TopicPartition, int] = {}
        self._kept: set[TopicPartition] = set()  # where the group is known to have a position

    def assign(self, places: Collection[TopicPartition]) -> None:
        """Note which partitions are this reader's from now on."""
        self._assigned = frozenset(places)

    def take(self, first: Mapping[TopicPartition, int], end: Mapping[TopicPartition, int], committed: Mapping[TopicPartition, int | None]) -> dict[TopicPartition, int]:
        """Decide from where each partition is told.

        Args:
            first: Offset of the oldest record.
            end: Offset behind the youngest.
            committed: The group's position, if it has one.

        Returns:
            Positions that the group has not got yet, and needs: without one it would begin elsewhere after a crash.
        """
        new: dict[TopicPartition, int] = {}
        for place, position in committed.items():
            if position is None:
                position = new[place] = self._begin(place, first[place], end[place])  # noqa: PLW2901 - none was known
            elif position > end[place]:
                log.warning("%s partition %d is shorter than the position of group %s: starting at its beginning", place.topic, place.partition, self._group_id)
                position = first[place]  # noqa: PLW2901 - the one that is known means nothing
            self._told_from[place] = position
            self._read_to[place] = max(first[place], position - LOOK_BACK)
        return {} if self._group_id is None else new

    def _begin(self, place: TopicPartition, first: int, end: int) -> int:
        if place in self._kept:
            log.warning("%s partition %d has lost the position of group %s, so it was made anew: starting at its beginning", place.topic, place.partition, self._group_id)
            return first
        return first if self._from_beginning else end

    def keep(self, places: Iterable[TopicPartition]) -> None:
        """Note that the group has a position in these."""
        self._kept.update(places)

    def next(self, place: TopicPartition) -> int:
        """Return the offset to read from."""
        return self._read_to[place]

    def is_told(self, place: TopicPartition, offset: int) -> bool:
        """Say whether a record is to be told, or only to be remembered."""
        return offset >= self._told_from.get(place, 0)

    def read(self, batches: Mapping[TopicPartition, Sequence[ConsumerRecord]], assigned: frozenset[TopicPartition]) -> None:
        """Note what was read. All of a partition that has gone back by itself is told: aiokafka begins anew where the log ends before its position."""
        if self._group_id is None and assigned > self._assigned:  # partitions were added: without a group aiokafka reads all from their beginning
            for place in self._assigned & self._read_to.keys():
                self._told_from[place] = max(self._told_from.get(place, 0), self._read_to.pop(place))
        self._assigned = assigned
        for place, batch in batches.items():
            expected = self._read_to.get(place, 0)
            if batch[0].offset < expected:
                log.warning("%s partition %d was cut or made anew: from offset %d back to %d, all there is is told", place.topic, place.partition, expected, batch[0].offset)
                self._told_from[place] = 0
            self._read_to[place] = batch[-1].offset + 1

    def forget(self, places: Iterable[TopicPartition]) -> None:
        """Forget partitions that go to another reader."""
        for place in places:
            self._told_from.pop(place, None)
            self._read_to.pop(place, None)

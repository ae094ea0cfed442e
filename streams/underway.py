"""Chunks on their way from the consumer to the agent of their topic: one that gets lost there must not go unnoticed.

The partition of a lost chunk would stand still, and nobody be told. An agent gets the chunks of its topic one after the other, in
the order in which they were fetched, and has nothing to do but to hand them over; so one that comes before an earlier one proves that
the earlier one is lost, and one after which none of its topic has come for ``LOST_LOOKS`` counts as lost, too.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque

from faust.types import TP

from streams.transport import Chunk

LOST_LOOKS = 60
"""Looks in a row at which a chunk is on its way, and none of its topic has come, until it counts as lost."""


class Underway:
    """What has been fetched and has not come to its agent, by topic."""

    def __init__(self) -> None:
        self._chunks: defaultdict[str, deque[Chunk]] = defaultdict(deque)
        self._idle_looks: Counter[str] = Counter()

    def fetched(self, chunk: Chunk) -> None:
        """Note a chunk that is handed to Faust."""
        self._chunks[chunk.tp.topic].append(chunk)

    def arrived(self, chunk: Chunk) -> TP | None:
        """Note that an agent has got a chunk; return the partition of one that should have come before it, if there is one."""
        topic = chunk.tp.topic
        chunks, lost = self._chunks[topic], None
        if chunk in chunks:  # else it is of an assignment that is over
            if chunks[0] is not chunk:
                lost = chunks[0].tp
            while chunks.popleft() is not chunk:
                pass
        self._idle_looks[topic] = 0
        return lost

    def look(self) -> TP | None:
        """Return the partition of a chunk that has not come for too long, if there is one; to be called at regular times."""
        for topic, chunks in self._chunks.items():
            self._idle_looks[topic] = self._idle_looks[topic] + 1 if chunks else 0
            if self._idle_looks[topic] >= LOST_LOOKS:
                return chunks[0].tp
        return None

    def forget(self) -> None:
        """Forget all: the partitions are somebody else's now."""
        self._chunks.clear()
        self._idle_looks.clear()

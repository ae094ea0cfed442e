"""Faust tables whose recovered content is handed over to a partition's monitor; ``streams.changelog`` writes it.

The live state of a partition is its ``PartitionMonitor``; a table is its durable form: a changelog that Faust declares,
assigns with the source partitions and reads back. So a table keeps in memory only what recovery has just read, by
partition, until ``take`` hands it over. See docs/adr for the reasons.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import faust
import msgspec
from faust.stores import memory
from faust.types import TP, EventT

from streams.pieces import Piece

_encode = msgspec.json.Encoder().encode

GENERATION = "g"
"""Header of each record of a changelog: the generation of the owner that wrote it, in decimal. Without it, it is 0."""
CLAIM = b"[[],null]"
"""Key of the tombstone that a new owner begins with; no value has it."""
COMPACTION_LAG_MS = 300_000
"""Until a record is so old, none that it stands in front of goes. The next owner needs both to tell which one counts."""

COMPACTED = {
    "cleanup.policy": "compact",
    "min.compaction.lag.ms": str(COMPACTION_LAG_MS),
    "segment.ms": "3600000",
    "min.cleanable.dirty.ratio": "0.2",
    "delete.retention.ms": "86400000",
}
"""Topic settings of every changelog: only the last value of a key is kept, whatever its age."""


def generation_of(headers: Iterable[tuple[str, bytes]]) -> int:
    """Return the generation of the owner that wrote a record."""
    return next((int(value) for name, value in headers if name == GENERATION), 0)


class ChangelogRecord(Protocol):
    """A record as it is in a changelog."""

    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def timestamp(self) -> int: ...  # noqa: D102
    @property
    def key(self) -> Any: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def headers(self) -> list[tuple[str, bytes]]: ...  # noqa: D102


@dataclass(slots=True)
class Recovered:
    """What a partition of a changelog says.

    Attributes:
        content: The value of each key.
        furthest: The latest generation of an owner.
        start: Offset from which on all has been read; None if nothing has.
        end: Offset up to which it has.
        hidden: Keys whose last record counts for nothing, with that record: a worker sent it that had lost the partition. Compaction
            keeps just that one, so the next owner has to write ``content`` again, or a tombstone.
    """

    content: dict[bytes, bytes]
    furthest: int = 0
    end: int = 0
    hidden: dict[bytes, ChangelogRecord] = field(default_factory=dict)
    start: int | None = None
    _header: list[tuple[str, bytes]] | None = None

    def read(self, piece: Piece[Any]) -> None:
        """Add a piece of the changelog. If it does not touch what there is, all begins anew with it: what was there, or is left out, may be of an earlier assignment."""
        if self.start is None or not self.start <= piece.start <= self.end:
            self.content, self.hidden, self.furthest, self._header = {}, {}, 0, None
            self.start = self.end = piece.start
        self.apply(piece.records)
        self.end = max(self.end, piece.end)

    def has_all_since(self, beginning: int) -> bool:
        """Tell whether no piece is missing, if the changelog begins at ``beginning``."""
        return (self.end if self.start is None else self.start) <= beginning

    def apply(self, records: Iterable[ChangelogRecord]) -> None:
        """Apply records in order; those that were applied before change nothing."""
        content, hidden = self.content, self.hidden
        for record in records:
            if record.offset < self.end:
                continue
            self.end = record.offset + 1
            if record.headers != self._header and not self._is_next(record.headers):
                if record.key != CLAIM:
                    hidden[record.key] = record
                continue
            if hidden:
                hidden.pop(record.key, None)
            if record.value is None:
                content.pop(record.key, None)
            else:
                content[record.key] = record.value

    def settle(self, compacted_before_ms: int) -> None:
        """Let records count that should not, where compaction may have taken away the ones that should.

        Args:
            compacted_before_ms: What is older may be gone if a later record of its key is older, too.
        """
        for key, record in self.hidden.items():
            if key not in self.content and record.value is not None and record.timestamp < compacted_before_ms:
                self.content[key] = record.value

    def _is_next(self, headers: list[tuple[str, bytes]]) -> bool:
        generation = generation_of(headers)
        if generation < self.furthest:
            return False
        self.furthest, self._header = generation, headers
        return True


class RecoveredStore(memory.Store):  # type: ignore[misc]
    """Holds what recovery reads, by partition, until it is taken."""

    def __post_init__(self) -> None:
        self.data: dict[Any, Any] = {}
        self.partitions: dict[int, Recovered] = {}

    def apply_changelog_batch(self, batch: Iterable[EventT], to_key: Callable[[Any], Any], to_value: Callable[[Any], Any]) -> None:  # noqa: ARG002 - Faust's signature
        """Apply the records that ``ChangelogMessage``s carry, in order."""
        for event in batch:
            message = event.message
            recovered = self.partitions.get(message.partition)
            if recovered is None:
                recovered = self.partitions[message.partition] = Recovered({})
            recovered.read(message.piece)

    async def on_recovery_completed(self, active_tps: set[Any], standby_tps: set[Any]) -> None:
        """Do nothing: ``take`` empties the store."""


def drop_unapplied(recovery: Any) -> None:
    """Drop what Faust's recovery has taken out of its queue and not applied yet; to be called when partitions are revoked.

    It would apply that in the next recovery, to a store that is empty by then: a changelog's tail, after which its beginning counts as read.
    """
    for buffer in recovery.buffers.values():
        buffer.clear()


class StateTable(faust.Table):  # type: ignore[misc]
    """A Faust table of raw keys and values: it names the keys and the changelog, and hands over with ``take`` what was read back."""

    def __init__(self, app: faust.App, *, name: str, partitions: int, **options: Any) -> None:
        # What was fetched is applied at once: Faust would gather a thousand such pieces, and the event loop stand still over them for seconds.
        options = {"extra_topic_configs": COMPACTED, "key_type": bytes, "value_type": bytes, "recovery_buffer_size": 1, **options}
        super().__init__(app, name=name, partitions=partitions, **options)

    def _new_store(self) -> RecoveredStore:
        return RecoveredStore("memory://", self.app, self, table_name=self.name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", loop=self.loop)

    def persisted_offset(self, tp: TP) -> int:  # noqa: ARG002 - Faust's signature
        """Have every assignment read the changelog from its beginning: nothing is kept from an earlier one.

        Faust goes on from where it was with a partition that stays with its worker; what it had read then is gone.
        """
        return -1

    def take(self, partition: int) -> Recovered:
        """Hand over what recovery has read of ``partition``. The table forgets it."""
        recovered: Recovered = self.data.partitions.pop(partition, None) or Recovered({})
        # The last records may be gone, by compaction: recovery has asked for the end before it read.
        recovered.end = max(recovered.end, self.app.tables.recovery.active_highwaters.get(TP(self.changelog_topic_name, partition), -1) + 1)
        return recovered

    def forget(self) -> None:
        """Drop everything recovered: the assignment has changed."""
        self.data.partitions.clear()

    def key(self, *parts: str | int, at: float | None = None) -> bytes:
        """Return the key of a value: ``[[parts], [window start, window end]]`` in a windowed table, ``[[parts], null]`` in another.

        Args:
            parts: What identifies the value within its window.
            at: Unix time in seconds that the window has to hold; for windowed tables only.
        """
        window = None if self.window is None or at is None else list(self.window.current(at))
        return _encode([parts, window])


def parse_key(key: bytes) -> list[Any]:
    """Return the parts of a key that ``StateTable.key`` has made."""
    parts, _window = json.loads(key)
    return parts  # type: ignore[no-any-return]

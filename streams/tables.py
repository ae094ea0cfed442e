"""Faust tables whose recovered content is handed over to a partition's monitor, and whose writes can be awaited.

The live state of a partition is its ``PartitionMonitor``; a table is its durable form: a changelog that Faust declares,
assigns with the source partitions and reads back. So a table keeps in memory only what recovery has just read, by
partition, until ``take`` hands it over. See docs/adr for the reasons.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import faust
import msgspec
from faust.stores import memory
from faust.types import TP, EventT

_encode = msgspec.json.Encoder().encode

COMPACTED = {
    "cleanup.policy": "compact",
    "segment.ms": "3600000",
    "min.cleanable.dirty.ratio": "0.2",
    "delete.retention.ms": "86400000",
}
"""Topic settings of every changelog: only the last value of a key is kept, whatever its age."""


class RecoveredStore(memory.Store):  # type: ignore[misc]
    """Holds what recovery reads, by partition, until it is taken."""

    def __post_init__(self) -> None:
        self.data: dict[Any, Any] = {}
        self.partitions: dict[int, dict[bytes, bytes]] = {}

    def apply_changelog_batch(self, batch: Iterable[EventT], to_key: Callable[[Any], Any], to_value: Callable[[Any], Any]) -> None:  # noqa: ARG002 - Faust's signature
        """Apply the records that ``ChangelogMessage``s carry, in order."""
        for event in batch:
            content = self.partitions.setdefault(event.message.partition, {})
            for record in event.message.records:
                if record.value is None:
                    content.pop(record.key, None)
                else:
                    content[record.key] = record.value

    async def on_recovery_completed(self, active_tps: set[Any], standby_tps: set[Any]) -> None:
        """Do nothing: ``take`` empties the store."""


class StateTable(faust.Table):  # type: ignore[misc]
    """A Faust table of raw keys and values, written with ``write`` and read back with ``take``."""

    def __init__(self, app: faust.App, *, name: str, partitions: int, **options: Any) -> None:
        options = {"extra_topic_configs": COMPACTED, "key_type": bytes, "value_type": bytes, **options}
        super().__init__(app, name=name, partitions=partitions, **options)

    def _new_store(self) -> RecoveredStore:
        return RecoveredStore("memory://", self.app, self, table_name=self.name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", loop=self.loop)

    def persisted_offset(self, tp: TP) -> int:  # noqa: ARG002 - Faust's signature
        """Have every assignment read the changelog from its beginning: nothing is kept from an earlier one.

        Faust goes on from where it was with a partition that stays with its worker; what it had read then is gone.
        """
        return -1

    def take(self, partition: int) -> dict[bytes, bytes]:
        """Hand over what recovery has read of ``partition``: key to value. The table forgets it."""
        return self.data.partitions.pop(partition, {})  # type: ignore[no-any-return]

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

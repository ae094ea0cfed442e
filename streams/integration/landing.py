"""What becomes of an event that was sent: where it landed, or that nobody knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.errors import Retry


@dataclass(frozen=True, slots=True)
class Landed:
    """Where Kafka put an event.

    Attributes:
        topic: The topic's full name, prefix included.
        partition: The partition, which follows from ``variant_id``.
        offset: The record's offset there.
        timestamp: Its append time as Kafka has it, in milliseconds since the epoch.
        event_id: The event's id, given or added; None for an event without.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    event_id: str | None = None


class NotPublished(Retry):
    """Kafka did not acknowledge an event; it may have arrived all the same.

    Publishing ``value`` again is safe: it carries the event's id, so that it counts once either way.

    Attributes:
        topic: Topic, without the prefix.
        value: The event as it was sent, with the ``event_id`` that was added.
    """

    def __init__(self, reason: str, topic: str, value: Mapping[str, Any]) -> None:
        super().__init__(reason)
        self.topic = topic
        self.value = value

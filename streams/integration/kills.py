"""The kill event as a subscriber gets it."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from models.errors import Reject


class DecidingEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The interaction that a kill followed from: where it is on Kafka, and when it happened."""

    topic: str
    partition: int
    offset: int
    occurred_at: datetime


class VariantKilled(msgspec.Struct, frozen=True, kw_only=True):
    """A variant was killed: the value of a ``variant_killed`` record. Rates are interactions per view. Source: contract, section 2."""

    kill_id: UUID
    session_id: UUID
    variant_id: str
    persona_id: str
    post_id: str
    reason: str
    policy: str
    expected_engagement_rate: float
    kill_threshold: float
    min_interactions: int
    final_engagement_rate: float
    final_interaction_count: int
    final_view_count: int
    counts: dict[str, int]
    posted_at: datetime
    decided_at: datetime
    deciding_event: DecidingEvent
    time_to_kill_seconds: float
    schema_version: int = 1

    @property
    def kill_rate(self) -> float:
        """The line that the rate fell below."""
        return self.kill_threshold * self.expected_engagement_rate

    def as_json(self) -> bytes:
        """Return the event as compact JSON, as on the topic."""
        return msgspec.json.encode(self)


_decode = msgspec.json.Decoder(VariantKilled).decode


def parse_kill(value: bytes | None) -> VariantKilled:
    """Read a ``variant_killed`` record's value; fields this version does not know are ignored.

    Raises:
        Reject: It is not one.
    """
    try:
        return _decode(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Reject(f"is not a kill event: {error}") from error

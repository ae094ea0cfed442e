"""What the API writes to Kafka; implements ``streams.web.ports.PublishPort``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from models.errors import Retry
from models.moments import format_moment
from streams.codec import encode_json
from streams.ports import Appender
from streams.settings import Settings
from streams.topics import partition_for, topic_name

PATIENCE_SECONDS = 5.0
"""How long a caller of the API waits for Kafka's acknowledgement."""


class ApiPublisher:
    """Publishes starts and stops on behalf of the API's callers."""

    def __init__(self, settings: Settings, log: Appender, clock: Callable[[], int]) -> None:
        self._settings, self._log, self._clock = settings, log, clock

    async def publish_posted(self, message: dict[str, Any]) -> int | None:
        """Publish a ``variant_posted``; returns its offset, if it is there under that one only.

        Raises:
            Retry: Kafka does not acknowledge it in 5 s.
        """
        variant_id = str(message["variant_id"])
        return await self._append("variant_posted", variant_id, message, partition_for(variant_id, self._settings.partitions))

    async def publish_stop(self, variant_id: str, post_id: str | None, partition: int, request_id: str, requested_by: str) -> None:
        """Publish a stop on the partition of the session; errors as ``publish_posted``."""
        message = {
            "schema_version": 1,
            "action": "stop",
            "variant_id": variant_id,
            "post_id": post_id,
            "request_id": request_id,
            "requested_by": requested_by,
            "requested_at": format_moment(self._clock()),
        }
        await self._append("monitoring_control", variant_id, message, partition)

    async def _append(self, topic: str, variant_id: str, message: dict[str, Any], partition: int) -> int | None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await self._log.append(topic_name(self._settings, topic), variant_id.encode(), encode_json(message), partition)
        except TimeoutError:
            raise Retry("Kafka did not acknowledge in time") from None

"""A sign of life from Kafka: the metadata of the cluster, asked over a connection of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from models.errors import Retry


class KafkaProbe:
    """Asks any broker for the cluster's metadata.

    Args:
        options: What ``streams.topics.kafka_client_options`` returns.
        client_id: How the brokers' logs name this client.
        timeout_seconds: Longest wait for an answer.
    """

    def __init__(self, options: Mapping[str, Any], client_id: str = "early-kill-ready", timeout_seconds: float = 1.5) -> None:
        self._options = dict(options)
        self._client_id = client_id
        self._timeout_ms = int(timeout_seconds * 1000)
        self._client: AIOKafkaClient | None = None

    async def ping(self) -> None:
        """Return if a broker answers.

        Raises:
            Retry: None does.
        """
        try:
            if self._client is None:
                client = AIOKafkaClient(**self._options, client_id=self._client_id, request_timeout_ms=self._timeout_ms, metadata_max_age_ms=3_600_000)
                self._client = client
                await client.bootstrap()
            await self._client.fetch_all_metadata()
        except (KafkaError, OSError) as error:
            await self.close()
            raise Retry(f"Kafka does not answer: {error}") from None
        except BaseException:  # cancelled by impatience: what is half open must not be used again
            await self.close()
            raise

    async def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(KafkaError, OSError):
                await client.close()

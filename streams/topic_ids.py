"""The ids of topics: Kafka gives a topic a new one when it is made, so they tell it from a later one of the same name.

aiokafka's own metadata requests are of versions that know no ids.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

from models.errors import Retry
from streams.kafka_access import kafka_client_options

if TYPE_CHECKING:
    from streams.settings import Settings

_KEY, _VERSION = 3, 10  # Metadata
_NO_ID = b"\0" * 16
_NO_SUCH_TOPIC = 3


class _Id(Int32):  # type: ignore[misc] # aiokafka asks for one of its own types
    """16 bytes as they are."""

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(16)


_TEXT = CompactString("utf-8")
_TAGS = ("tags", TaggedFields)


class _Answer(Response):  # type: ignore[misc]
    API_KEY = _KEY
    API_VERSION = _VERSION
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", CompactArray(("node_id", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT), _TAGS)),
        ("cluster_id", _TEXT),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", _TEXT),
                ("id", _Id),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        _TAGS,
                    ),
                ),
                ("authorized_operations", Int32),
                _TAGS,
            ),
        ),
        ("authorized_operations", Int32),
        _TAGS,
    )


class _Question(RequestStruct):  # type: ignore[misc]
    FLEXIBLE_VERSION = True
    API_KEY = _KEY
    API_VERSION = _VERSION
    RESPONSE_TYPE = _Answer
    SCHEMA = Schema(
        ("topics", CompactArray(("id", _Id), ("name", _TEXT), _TAGS)),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        _TAGS,
    )


class _TopicIds(Request[_Question]):  # type: ignore[misc]
    API_KEY = _KEY

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def build(self, request_struct_class: type[_Question]) -> _Question:
        return request_struct_class([(_NO_ID, name, {}) for name in self._names], False, False, False, {})  # noqa: FBT003 - in the order of the schema


@dataclass(frozen=True, slots=True)
class TopicIdentity:
    """A topic as it is now."""

    id: str
    partitions: int


async def topic_identities(settings: Settings, names: Iterable[str]) -> dict[str, TopicIdentity]:
    """Return id and number of partitions of each topic; those that do not exist are missing.

    Raises:
        Retry: No broker answers, or one does not know for now.
    """
    admin = AIOKafkaAdminClient(**kafka_client_options(settings), request_timeout_ms=10_000)
    try:
        await admin.start()
        answer = await admin._send_request(_TopicIds(sorted(names)))  # noqa: SLF001 - it has no method for a request of ours
    except (KafkaError, OSError) as error:
        raise Retry(f"Kafka did not say which topics there are: {error!r}") from None
    finally:
        await admin.close()
    found = {}
    for row in answer.to_object()["topics"]:
        if row["error_code"] == 0:
            found[row["name"]] = TopicIdentity(str(uuid.UUID(bytes=row["id"])), len(row["partitions"]))
        elif row["error_code"] != _NO_SUCH_TOPIC:
            raise Retry(f"Kafka does not tell about topic {row['name']} now (error {row['error_code']})")
    return found

"""What workers need of the world, and above all a partition at work: ports, with the real thing in other modules and stand-ins in tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from models.session import Result


class Incoming(Protocol):
    """A record as the consumer delivers it; ``timestamp`` is its append time in milliseconds."""

    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def timestamp(self) -> int: ...  # noqa: D102
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102


class Done(Protocol):
    """What was handed out together, and can be said to be done."""

    def ack(self) -> None:
        """Say so."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where records have arrived: the offset of the first one, and the one after the last. In between there may be others."""

    first: int
    end: int


class Log(Protocol):
    """Where records go; ``streams.delivery.KafkaLog``, or an in-process one in tests."""

    async def send(self, topic: str, key: bytes | None, value: bytes | None, partition: int | None = None) -> Any:
        """Append a record; returns what ``delivered`` wants."""

    async def send_all(self, topic: str, partition: int, records: Iterable[tuple[bytes, bytes | None]], headers: Sequence[tuple[str, bytes]] = (), on: object | None = None) -> Any:
        """Append records (key, value) of one partition, in order, with the same headers; returns what ``delivered`` wants, for all of them.

        If ``on`` is given, append them on this course only; returns None where it is over.
        """

    def course(self, sent: Any) -> object:
        """Tell on which course records were sent: those of one course follow one another, and none gets lost in between."""

    def place(self, sent: Any) -> Place | None:
        """Tell where records that ``send_all`` has sent have arrived; None if that is not known."""

    async def read(self, topic: str, partition: int, first: int, end: int) -> Sequence[Any]:
        """Read the records of a partition from the offset ``first`` up to ``end``, all of which have been appended."""

    async def delivered(self, sent: Any) -> bool:
        """Wait for the acknowledgement; False asks to send again."""


class Appender(Protocol):
    """Where single records go, for whoever waits for each; ``streams.delivery.KafkaLog``."""

    async def append(self, topic: str, key: bytes | None, value: bytes | None, partition: int | None = None) -> int | None:
        """Append a record and wait until it is acknowledged; returns its offset, or None if it may be there under another one, too."""


class Table(Protocol):
    """Names the keys and the changelog of a table; ``streams.tables.StateTable``."""

    def key(self, *parts: str | int, at: float | None = None) -> bytes:
        """Return the key of a value."""

    @property
    def changelog_topic_name(self) -> str:
        """Where its values go."""


class Observer(Protocol):
    """Who counts; ``streams.observing.Observing`` over ``streams.metrics.Metrics``."""

    def folded(self, topic: str, read: int, results: Mapping[Result, int]) -> None:
        """Count ``read`` records, and what became of them: counted apart, so that one without a result shows."""

    def resolved(self, result: Result, n: int, *, restored: bool) -> None:
        """Count ``n`` waiting records that have got their final result; ``restored`` if an earlier process had read them."""

    def started(self) -> None:
        """Count a session."""

    def ended(self, outcome: str, reason_label: str, duration_seconds: float, rate: float | None) -> None:
        """Count an end."""

    def evaluated(self, latency_seconds: float) -> None:
        """Note the time from a deciding event's append to the acknowledgement of its kill."""

    def flushed(self, duration_seconds: float, table_writes: Mapping[str, int]) -> None:
        """Note a flush, and how many values it wrote to each table."""


@dataclass(frozen=True, slots=True)
class Tables:
    """The durable form of a partition: sessions and event ids by the window they were posted in, and what waits."""

    engagement: Table
    event_id: Table
    waiting: Table


@dataclass(frozen=True, slots=True)
class Topics:
    """Names of the topics, with the configured prefix."""

    variant_posted: str
    interaction: str
    monitoring_control: str
    variant_killed: str
    monitoring_record: str
    dead_letter: str

    @property
    def sources(self) -> tuple[str, str, str]:
        """What a monitor reads, in the order in which it catches up."""
        return (self.variant_posted, self.interaction, self.monitoring_control)

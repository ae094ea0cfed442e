"""Recorded events: files of ``{"topic", "value"}`` lines, plain or gzipped, as ``publish``, ``replay`` and ``backtest`` read them."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import msgspec

from models.errors import Reject, Stop
from models.moments import parse_moment
from models.strict_json import parse_json

TOPICS = ("variant_posted", "interaction")
"""Topics that a file may name; without the configured prefix."""
MOMENT_FIELD = {"variant_posted": "posted_at", "interaction": "occurred_at"}
"""The field that says when, by topic."""
LINE_LIMIT = 1 << 20
"""Longest line, in bytes, that is read at all; a value may have 64 KiB."""


@dataclass(frozen=True, slots=True)
class Event:
    """One readable line: what to publish, and where. Whether its fields are right is not checked yet."""

    line: int
    topic: str
    value: dict[str, Any]

    @property
    def variant_id(self) -> str:
        """The variant, as text even if the line has something else there."""
        return str(self.value.get("variant_id", ""))

    @property
    def moment(self) -> int | None:
        """Microseconds since the epoch, or None if the line says nothing.

        Raises:
            Reject: There is something, but it is no moment.
        """
        field = MOMENT_FIELD[self.topic]
        raw = self.value.get(field)
        try:
            return None if raw is None else parse_moment(raw)
        except Reject as error:
            raise Reject(error.reason, field) from error


@dataclass(frozen=True, slots=True)
class TimedEvent:
    """An event with the moment it happened at (microseconds): its own, or that of the line before."""

    event: Event
    moment_us: int


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that cannot be used, and why; ``line`` counts from 1."""

    line: int
    reason: str


def read_events(path: Path) -> Iterator[Event | BadLine]:
    """Read a file line by line, in constant memory; empty lines are skipped.

    Raises:
        Stop: The file cannot be opened or read, or is a broken gzip file.
    """
    try:
        with _open(path) as file:
            number = 0
            while line := file.readline(LINE_LIMIT + 1):
                number += 1
                if len(line) > LINE_LIMIT:
                    while line and not line.endswith(b"\n"):
                        line = file.readline(LINE_LIMIT)
                    yield BadLine(number, f"is longer than {LINE_LIMIT:,} bytes")
                elif content := line.strip().removeprefix(b"\xef\xbb\xbf" if number == 1 else b""):
                    yield _parse_line(number, content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Stop(f"{path}: not a whole gzip file ({error})") from error
    except OSError as error:
        raise Stop(f"{path}: {error.strerror or error}") from error


def read_timed(path: Path, *, without_any: int) -> Iterator[TimedEvent | BadLine]:
    """Read a file with each line's moment: its own, else that of the line before, else the first in the file.

    Args:
        path: The file.
        without_any: Microseconds to give to every event of a file in which no line has a moment.

    Raises:
        Stop: As ``read_events``.
    """
    latest: int | None = None
    undated: list[Event | BadLine] = []
    for read in read_events(path):
        item, moment = _with_moment(read)
        if moment is not None:
            yield from _dated(undated, moment)
            undated.clear()
            latest = moment
        if latest is None:
            undated.append(item)
        else:
            yield from _dated([item], latest)
    yield from _dated(undated, without_any)


def _with_moment(item: Event | BadLine) -> tuple[Event | BadLine, int | None]:
    if isinstance(item, BadLine):
        return item, None
    try:
        return item, item.moment
    except Reject as error:
        return BadLine(item.line, str(error)), None


def _dated(items: Iterable[Event | BadLine], moment_us: int) -> Iterator[TimedEvent | BadLine]:
    for item in items:
        yield TimedEvent(item, moment_us) if isinstance(item, Event) else item


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as probe:
        zipped = probe.read(2) == b"\x1f\x8b"
    return cast("IO[bytes]", gzip.open(path, "rb")) if zipped else path.open("rb")


class _Line(msgspec.Struct):
    topic: str
    value: msgspec.Raw


_decode_line = msgspec.json.Decoder(_Line).decode


def _parse_line(number: int, content: bytes) -> Event | BadLine:
    try:
        content.decode()
        line = _decode_line(content)
        if line.topic not in TOPICS:
            return BadLine(number, f"topic: is not one of {', '.join(TOPICS)}")
        return Event(number, line.topic, parse_json(bytes(line.value)))
    except UnicodeDecodeError:
        return BadLine(number, "is not valid UTF-8")
    except msgspec.ValidationError as error:
        return BadLine(number, f'is not {{"topic": …, "value": …}}: {error}')
    except (msgspec.DecodeError, RecursionError) as error:
        return BadLine(number, f"is not JSON: {error}")
    except Reject as error:
        return BadLine(number, f"value: {error}")


def to_bytes(value: dict[str, Any]) -> bytes:
    """Write a value as it goes onto a topic: compact JSON in UTF-8.

    Raises:
        Reject: It holds something that JSON in UTF-8 cannot say (NaN, a lone surrogate, a Python object).
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise Reject("holds a lone surrogate") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise Reject(f"is not JSON: {error}") from error

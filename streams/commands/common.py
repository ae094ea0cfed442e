"""What several commands share: lines on stdout, progress on stderr."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

PLAIN_PROGRESS_SECONDS = 5.0
"""Pause between two lines of progress where stderr is no terminal."""
_ASTRAL = 0x10000
"""The first character that JSON needs two escapes for."""


def quiet_libraries() -> None:
    """Let warnings reach stderr, in one line each, but not the clients' talk about a broker that is away: errors say that."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


def shown(line: str) -> str:
    """Return a line that a terminal shows as it is: what would steer it, or begin another line, as JSON escapes it. JSON stays the same value."""
    return line if line.isprintable() else "".join(char if char.isprintable() else _escaped(char) for char in line)


def _escaped(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < _ASTRAL else json.dumps(char)[1:-1]


def put(line: str) -> None:
    """Write a result to stdout, at once, so that a reader at the other end of a pipe sees it."""
    sys.stdout.write(shown(line) + "\n")
    sys.stdout.flush()


def put_json(value: Mapping[str, Any]) -> None:
    """Write a result to stdout as one line of JSON."""
    put(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def tell(line: str) -> None:
    """Write lines for people to stderr."""
    sys.stderr.write("\n".join(map(shown, line.split("\n"))) + "\n")
    sys.stderr.flush()


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Callable[[int, str], None]]:
    """Show how far a long command is: a bar on a terminal, a line every five seconds elsewhere.

    Args:
        what: In a few words.
        total: How many there are, or None if nobody knows yet.

    Yields:
        A function to call with how many are done, and a remark.
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.fields[remark]}"))
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=total, remark="")
            yield lambda done, remark="": bar.update(task, completed=done, remark=remark)  # type: ignore[misc]
        return
    said = time.monotonic()

    def line(done: int, remark: str = "") -> None:
        nonlocal said
        if time.monotonic() - said >= PLAIN_PROGRESS_SECONDS:
            said = time.monotonic()
            tell(f"{what}: {done:,}{f' of {total:,}' if total else ''}{f', {remark}' if remark else ''}")

    yield line

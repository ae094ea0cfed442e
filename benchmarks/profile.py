"""CPU time of one interaction by stage in a whole monitor, from a profile of it: fetch, decode, fold, write, commit, and what is between them.

    .venv/bin/python -m benchmarks.profile --events 3000000

A monitor works off a backlog, as in ``throughput``, and is asked 200 times in each second of its CPU time what it is doing (``benchmarks/sampling``). The shares are
multiplied by the CPU time that the operating system says it took for one event. ``cpu_by_stage`` measures some of the same stages alone, to a hundredth of a microsecond.

Samples hold for the interpreter's thread, and so for all of the process but the sockets' threads of the kernel. All counts have to be right before a time counts.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from pathlib import Path

from benchmarks.backlog import Backlog, preload
from benchmarks.report import Found, alone, row
from benchmarks.stage import say, stage
from benchmarks.working_off import work_off
from models.errors import Stop

SAMPLING = Path(__file__).with_name("sampling")
FEWEST_SAMPLES = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--events", type=int, default=3_000_000, help="interactions of the backlog (default 3,000,000)")
    parser.add_argument("--variants", type=int, default=1_000, help="variants they are spread over (default 1,000)")


def samples(path: Path, began: float, ended: float) -> list[tuple[str, str]]:
    """Return the stage and the place of each sample that was taken between two moments of the monotonic clock."""
    lines = (line.rstrip("\n").split("\t") for line in path.read_text().splitlines())
    return [(stage, place) for at, stage, place in lines if began <= float(at) <= ended]


async def run(arguments: argparse.Namespace) -> Found:
    """Work off a backlog, and return CPU time by stage."""
    backlog = Backlog(arguments.events, arguments.variants)
    async with stage() as servers:
        await servers.create_topics(backlog.prefix)
        say(f"preloading {backlog.events:,} interactions")
        await preload(servers.kafka, backlog)
        path = servers.home / "samples"
        places = [str(SAMPLING), *filter(None, [os.environ.get("PYTHONPATH")])]
        async with servers.monitor("bench-profile", {"EARLY_KILL_TOPIC_PREFIX": backlog.prefix, "PYTHONPATH": os.pathsep.join(places), "SAMPLES_TO": str(path)}) as monitor:
            say("working them off")
            worked = await work_off(servers, [monitor], backlog)
        taken = samples(path, *worked.timed)
    if len(taken) < FEWEST_SAMPLES:
        raise Stop(f"{len(taken)} samples say nothing: give it more --events")
    [microseconds] = worked.cpu_per_million
    by_stage = Counter(name for name, _ in taken)
    rows = [row(f"{name} an event", microseconds * count / len(taken), "us", note=f"{count / len(taken):.0%}") for name, count in by_stage.most_common()]
    rows.append(row("all of these", microseconds, "us", note=f"{len(taken):,} samples, {worked.per_second:,.0f} events/s"))
    return {"rows": rows, "worked": worked.found(), "samples": by_stage, "places": Counter(f"{name}: {place}" for name, place in taken).most_common(60)}


def main() -> None:
    """Run this benchmark alone."""
    alone(__doc__, add_arguments, run)


if __name__ == "__main__":
    main()

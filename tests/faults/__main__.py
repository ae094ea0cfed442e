"""``make faults``: all tests with named faults, then random schedules of faults on real Kafka and PostgreSQL, with a report of what bit. With arguments: only schedules."""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.bites import FAULTS, unbitten
from tests.faults.sabotage.sitecustomize import SAFEGUARDS
from tests.faults.schedule import Report, Size, lanes, run_schedule
from tests.faults.servers import Servers, serving


def main() -> int:
    """Run them; exit code 1 if there was a violation. SIGTERM ends them as Ctrl-C does: with all servers and workers stopped."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job has it ignored
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    given = argparse.ArgumentParser(prog="make faults ARGS=…", description=__doc__)
    given.add_argument("--runs", type=int, default=200, help="number of schedules [default: 200, about four hours]")
    given.add_argument("--seed", type=int, default=1, help="seed of the first; the next ones follow")
    given.add_argument("--minutes", type=float, default=math.inf, help="begin none after so many minutes")
    given.add_argument("--events", type=int, default=20_000, help="events of each")
    given.add_argument("--variants", type=int, default=500, help="variants of each")
    given.add_argument("--seconds", type=float, default=30.0, help="length of the traffic of each")
    given.add_argument("--monitors", type=int, default=2, help="monitors of each")
    given.add_argument("--at-once", type=int, default=1, help="schedules that are played beside each other, each on servers of its own")
    given.add_argument("--only", default="", help="choose from the faults whose names this regular expression is in")
    given.add_argument("--without", choices=SAFEGUARDS, help="take a safeguard out of the workers: there have to be violations then")
    given.add_argument("--bites", action="store_true", help="take out each safeguard in turn, under faults that hit it: exit code 0 if that is found each time, and nothing else")
    if len(sys.argv) == 1 and pytest.main(["-q", "-m", "faults", "tests/faults", "tests/integration"]) != 0:
        return 1
    chosen = given.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what the tests' own clients meet
    home = Path(tempfile.mkdtemp(prefix="early-kill-faults-"))
    home.chmod(0o755)
    if chosen.bites:
        if chosen.without and chosen.without not in FAULTS:
            given.error(f"--bites knows no fault for {chosen.without}: choose from {', '.join(FAULTS)}")
        safeguards = [chosen.without] if chosen.without else list(FAULTS)
        wrong = asyncio.run(_bites(home, safeguards))
        print("\n".join(wrong) or f"the harness bites: without {', '.join(safeguards)}")
    else:
        reports = asyncio.run(_run(home, chosen))
        print("\n".join(_summary(reports)))
        wrong = [line for report in reports for line in report.wrong]
    if not wrong:
        shutil.rmtree(home, ignore_errors=True)
    return int(bool(wrong))


async def _bites(home: Path, safeguards: list[str]) -> list[str]:
    with serving(home) as servers:
        return await unbitten(servers, home, safeguards)


async def _run(home: Path, chosen: argparse.Namespace) -> list[Report]:
    size = Size(chosen.variants, chosen.events, chosen.seconds)
    reports: list[Report] = []
    until = time.monotonic() + 60 * chosen.minutes
    seeds = iter(range(chosen.seed, chosen.seed + chosen.runs))

    async def play(servers: Servers) -> None:
        for seed in seeds:
            if time.monotonic() > until:
                break
            try:
                report = await run_schedule(servers, home / f"seed-{seed}", seed, size, monitors=chosen.monitors, without=chosen.without, faults=lanes(chosen.only))
            except Exception as error:  # noqa: BLE001 - the others are played all the same
                traceback.print_exc()
                report = Report(seed, wrong=[f"the schedule itself failed: {error!r}"])
            print("\n".join(report.lines()), flush=True)
            if report.wrong:
                print(f"  logs and records are in {home}; again, with the other arguments as they are: --runs 1 --seed {seed}", file=sys.stderr)
            reports.append(report)

    with ExitStack() as stack:
        places = [stack.enter_context(serving(home / f"servers-{number}")) for number in range(chosen.at_once)]
        await asyncio.gather(*map(play, places))
    return reports


def _summary(reports: list[Report]) -> list[str]:
    injected = Counter(name for report in reports for name, _ in report.faults)
    bit = Counter(name for report in reports for name, bite in report.faults if bite)
    said = [f"{len(reports)} schedules, {sum(bool(report.wrong) for report in reports)} with violations, {sum(report.copies for report in reports)} repetitions that had no effect"]
    return said + [f"  {name}: {bit[name]} of {count} bit" for name, count in sorted(injected.items())]


if __name__ == "__main__":
    sys.exit(main())

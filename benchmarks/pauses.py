"""How long a monitor stands still while sessions start and end all the time: the longest pauses of a long run, from inside and from outside.

    .venv/bin/python -m benchmarks.pauses --minutes 10 --rate 20000

A load generator of its own process sends interactions with 1,000 living variants, each replaced after ten seconds, and with bad ones, 40 a second: about 140
sessions start a second, 100 time out and 40 are killed. Every interaction has to be counted, or late where the generator itself was (which is told), and every kill
has to be there before a pause counts.

From inside, the monitor's own metrics: how late its event loop came to a timer, and how long each garbage collection took. From outside: the longest answer of
``/health``, asked twenty times a second, and the longest time from a deciding interaction to its kill (append times). The first minute is not looked at: it holds the
start, and the metrics' look back.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp

from benchmarks import feed
from benchmarks.kill_latency import collect
from benchmarks.report import Found, alone, row
from benchmarks.stage import Monitor, say, stage
from benchmarks.watching import ACTIVE, COUNTED, LATE, STARTED, Usage, counted, until
from streams.pauses import BUCKETS, TURN_SECONDS

LONGEST = 'performance_monitor_longest_pause_seconds{where="%s"}'
LOOP_BUCKET = 'performance_monitor_event_loop_pause_seconds_bucket{le="%s"}'
TIMED_OUT = 'performance_monitor_session_duration_seconds_count{outcome="timed_out"}'
GOAL_MS = 200
GOAL_BUCKET = next(bound for bound in BUCKETS if bound * 1_000 >= GOAL_MS)
HEALTH_SECONDS = 0.05
LOOK_SECONDS = TURN_SECONDS / 2
"""Metrics look back at least twice as far, so no pause is missed."""
LIVING, TURN_OVER_SECONDS = 1_000, 10.0


@dataclass(slots=True)
class Seen:
    """What was seen after the warm-up, in seconds."""

    inside: dict[str, float] = field(default_factory=lambda: {"event_loop": 0.0, "gc": 0.0})
    health: list[float] = field(default_factory=list)
    first: Mapping[str, float] = field(default_factory=dict)
    last: Mapping[str, float] = field(default_factory=dict)
    resident: list[int] = field(default_factory=list)

    def note(self, metrics: Mapping[str, float]) -> None:
        """Note what the monitor tells of itself."""
        self.first, self.last = self.first or metrics, metrics
        for where in self.inside:
            self.inside[where] = max(self.inside[where], metrics[LONGEST % where])

    def over_goal(self) -> float:
        """Return how many looks at the event loop found it later than the goal."""
        between = {bound: self.last[LOOP_BUCKET % bound] - self.first[LOOP_BUCKET % bound] for bound in (GOAL_BUCKET, "+Inf")}
        return between["+Inf"] - between[GOAL_BUCKET]


async def watch_inside(monitor: Monitor, seen: Seen, after: float) -> None:
    """Read the monitor's metrics every fifteen seconds, once ``after`` (monotonic seconds) has passed."""
    await asyncio.sleep(max(0.0, after - time.monotonic()))
    while True:
        seen.note(await monitor.metrics())
        seen.resident.append(Usage.of(monitor.pid).resident)
        await asyncio.sleep(LOOK_SECONDS)


async def watch_health(monitor: Monitor, seen: Seen, after: float) -> None:
    """Ask for ``/health`` twenty times a second, once ``after`` has passed."""
    await asyncio.sleep(max(0.0, after - time.monotonic()))
    async with aiohttp.ClientSession(monitor.process.url) as client:
        while True:
            began = time.monotonic()
            async with client.get("/health") as answer:
                await answer.read()
            seen.health.append(time.monotonic() - began)
            await asyncio.sleep(HEALTH_SECONDS)


async def run(arguments: argparse.Namespace) -> Found:
    """Send the load and watch."""
    seconds = arguments.warm_up + 60 * arguments.minutes
    seen = Seen()
    async with stage() as servers:
        await servers.create_topics()
        load = feed.Load(kafka=servers.kafka, rate=arguments.rate, seconds=seconds, living=LIVING, turn_over_seconds=TURN_OVER_SECONDS)
        async with servers.monitor("bench-pauses") as monitor, collect(servers.kafka, "variant_killed") as (answers, collecting):
            await monitor.ready()
            before = await counted(monitor)
            say(f"{seconds / 60:.1f} minutes at {arguments.rate:,.0f} events/s")
            sending = await feed.start(load)
            began = time.time()
            after = time.monotonic() + feed.LEAD_SECONDS + arguments.warm_up
            watching = [asyncio.create_task(watch(monitor, seen, after)) for watch in (watch_inside, watch_health)]
            sent = await feed.result(sending)
            for task in watching:
                if task.done():
                    task.result()
                task.cancel()
            seen.note(await monitor.metrics())
            deciding = sent.pop("deciding")
            await answers.delays(deciding, collecting)
            total = before + sent["interactions"] + sent["posted"]
            final = await until(monitor, lambda metrics: metrics.get(COUNTED, 0) + metrics.get(LATE, 0) >= total, f"{total:,.0f} counted or late records")
            sent["late"] = final.get(LATE, 0)
    warm = 1_000 * (began + feed.LEAD_SECONDS + arguments.warm_up)
    kills = [answers.appended[variant] - appended for variant, (appended, _, _) in deciding.items() if appended >= warm]
    return {
        "rows": _rows(seen, kills, sent, arguments),
        "load": sent,
        "sessions": {"started": final[STARTED], "timed_out": final[TIMED_OUT], "killed": len(deciding), "active_at_the_end": final[ACTIVE]},
        "loop_looks_over_goal": seen.over_goal(),
        "resident_mib": [round(resident / 2**20) for resident in seen.resident],
        "metrics_at_the_end": {name: value for name, value in seen.last.items() if "_pause_seconds" in name},
    }


def _rows(seen: Seen, kills: list[int], sent: Found, arguments: argparse.Namespace) -> list[Found]:
    kept = "" if sent["is_kept"] and not sent["late"] else f"; THE RATE WAS NOT KEPT: {sent['rate']}, up to {sent['late_max_ms']} ms late"
    over = f"{seen.over_goal():,.0f} of {seen.last[LOOP_BUCKET % '+Inf']:,.0f} looks over {GOAL_MS} ms"
    health = statistics.quantiles(seen.health, n=1_000, method="inclusive")[998]
    what = f"{arguments.minutes:g} min at {arguments.rate:,.0f} events/s: longest"

    def line(where: str, milliseconds: float, goal: float | None, note: str) -> Found:
        return row(f"{what} {where}", milliseconds, "ms", at_least=goal, lower_is_better=True, note=note + kept)

    return [
        line("event-loop pause", 1_000 * seen.inside["event_loop"], GOAL_MS, over),
        line("garbage collection", 1_000 * seen.inside["gc"], GOAL_MS, ""),
        line("answer of /health, from outside", 1_000 * max(seen.health), None, f"p99.9 {1_000 * health:.0f} ms"),
        line("kill latency", max(kills), None, f"{len(kills)} kills, p99 {statistics.quantiles(kills, n=100, method='inclusive')[98]:.0f} ms"),
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this benchmark can be asked."""
    parser.add_argument("--minutes", type=float, default=10, help="how long it is looked at, after the warm-up (default 10)")
    parser.add_argument("--rate", type=float, default=20_000, help="interactions a second (default 20,000)")
    parser.add_argument("--warm-up", type=float, default=2 * TURN_SECONDS, metavar="SECONDS", help=f"not looked at (default {2 * TURN_SECONDS:g})")


def main() -> None:
    """Run it alone."""
    alone(__doc__, add_arguments, run)


if __name__ == "__main__":
    main()

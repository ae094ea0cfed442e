"""How soon a kill follows: append time of the deciding interaction to append time of the kill, at several rates.

    .venv/bin/python -m benchmarks.kill_latency --rate 200 --rate 10000 --rate half --seconds 60

A load generator of its own process (``benchmarks.feed``) sends the rate asked for. ``half`` is half of what the monitor reads at most,
measured before; ``quiet`` is 200 a second that all fall to one partition of four, while the others get nothing.

Beside it, in turns, at the same rate and with the same records, a plain aiokafka echo (``benchmarks.echo``): consume all, produce a
record for each that decides. Its time is what Kafka and the client cost without deciding anything.

Each kill has to name the offset of its variant's tenth like, and all interactions have to be counted, before a time counts. Whether
the generator kept the rate is part of the result. Milliseconds: append times have no finer resolution.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from benchmarks import feed
from benchmarks.backlog import Backlog, preload
from benchmarks.report import Found, alone, row
from benchmarks.stage import Monitor, Servers, say, stage
from benchmarks.watching import counted, until_counted
from benchmarks.working_off import work_off
from models.errors import Stop

RATES = ("200", "quiet", "1000", "10000", "half")
HALF = "half"
QUIET = "quiet"
QUIET_RATE = 200.0
GOALS = {True: (250.0, 100.0), False: (50.0, 20.0)}
"""What p99 has to be at most, and is aimed to be, in milliseconds, at half the maximum and below."""
WARM_UP_SECONDS = 20.0
"""Measured and thrown away at each rate, for both: Kafka compiles itself as it runs, and takes a third more of two cores until it has."""
ANSWER_SECONDS = 30.0
APP = "bench-latency"


@dataclass(slots=True)
class Answers:
    """What has come out, by variant: append time in milliseconds, and the record it answers as (partition, offset)."""

    appended: dict[str, int] = field(default_factory=dict)
    origin: dict[str, tuple[int, int]] = field(default_factory=dict)

    def note(self, record: Any) -> None:
        """Note the first answer for a variant."""
        variant = record.key.decode()
        if variant not in self.appended:
            event = json.loads(record.value)["deciding_event"]
            self.appended[variant], self.origin[variant] = record.timestamp, (event["partition"], event["offset"])

    async def delays(self, deciding: dict[str, tuple[int, int, int]], collecting: asyncio.Task[None]) -> list[int]:
        """Wait for the answer to each deciding record, and return the milliseconds that each took.

        Args:
            deciding: Append time, partition and offset of each variant's deciding record.
            collecting: What brings answers.

        Raises:
            Stop: One is missing, or answers another record.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + ANSWER_SECONDS
        while missing := deciding.keys() - self.appended.keys():
            if collecting.done():
                collecting.result()
            if loop.time() > until:
                raise Stop(f"{len(missing)} of {len(deciding)} are without an answer after {ANSWER_SECONDS:g} s, {min(missing)} for one")
            await asyncio.sleep(0.1)
        wrong = [variant for variant, (_, *origin) in deciding.items() if self.origin[variant] != tuple(origin)]
        if wrong:
            raise Stop(f"{len(wrong)} of {len(deciding)} were answered for another record, {min(wrong)} for one")
        return [self.appended[variant] - appended for variant, (appended, _, _) in deciding.items()]


@asynccontextmanager
async def collect(bootstrap: str, *topics: str) -> AsyncIterator[tuple[Answers, asyncio.Task[None]]]:
    """Read answers from ``topics`` for the time of the context."""
    consumer = AIOKafkaConsumer(*topics, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    answers = Answers()

    async def read() -> None:
        async for record in consumer:
            answers.note(record)

    collecting = asyncio.create_task(read())
    try:
        yield answers, collecting
    finally:
        collecting.cancel()
        with suppress(asyncio.CancelledError):
            await collecting
        await consumer.stop()


@asynccontextmanager
async def echo(servers: Servers) -> AsyncIterator[None]:
    """Run the echo, on topics of its own."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers.kafka)
    await admin.start()
    await admin.create_topics([NewTopic(name, 4, 1, topic_configs={"message.timestamp.type": "LogAppendTime"}) for name in ("echo_posted", "echo_in", "echo_out")])
    await admin.close()
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "benchmarks.echo", servers.kafka, "echo_in", "echo_out", stdout=asyncio.subprocess.PIPE)
    try:
        if process.stdout is None or await process.stdout.readline() != b"ready\n":
            raise Stop("the echo ended before it began")
        yield
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


@dataclass(slots=True)
class Turns:
    """What one of the two did at one rate, over all rounds."""

    milliseconds: list[int] = field(default_factory=list)
    loads: list[dict[str, Any]] = field(default_factory=list)

    def summary(self) -> Found:
        """Return count, median, 99th percentile and maximum, and how well the rate was kept."""
        percentiles = statistics.quantiles(self.milliseconds, n=100, method="inclusive")
        return {
            "n": len(self.milliseconds),
            "p50": percentiles[49],
            "p99": percentiles[98],
            "max": max(self.milliseconds),
            "is_rate_kept": all(load["is_kept"] for load in self.loads),
            "loads": self.loads,
        }


class Contest:
    """Both, ready to take turns."""

    def __init__(self, servers: Servers, monitor: Monitor, answers: Answers, collecting: asyncio.Task[None]) -> None:
        self._servers, self._monitor, self._answers, self._collecting = servers, monitor, answers, collecting

    async def early_kill(self, load: feed.Load, turns: Turns) -> None:
        """Let the monitor decide a load."""
        before = await counted(self._monitor)
        sent = await self._send(load, turns)
        await until_counted(self._monitor, before + sent["interactions"] + sent["posted"])

    async def plain_echo(self, load: feed.Load, turns: Turns) -> None:
        """Let the echo answer the same."""
        await self._send(replace(load, posted="echo_posted", interaction="echo_in"), turns)

    async def _send(self, load: feed.Load, turns: Turns) -> dict[str, Any]:
        result = await feed.result(await feed.start(load))
        turns.milliseconds += await self._answers.delays(result.pop("deciding"), self._collecting)
        turns.loads.append(result)
        return result

    async def at(self, rate: float, seconds: float, rounds: int, busy_partitions: int) -> tuple[Turns, Turns]:
        """Let both take turns at one rate; return what the monitor and the echo did."""

        def load(seconds: float) -> feed.Load:
            return feed.Load(kafka=self._servers.kafka, rate=rate, seconds=seconds, busy_partitions=busy_partitions)

        await self.early_kill(load(WARM_UP_SECONDS), Turns())
        await self.plain_echo(load(WARM_UP_SECONDS), Turns())
        ours, theirs = Turns(), Turns()
        for number in range(rounds):
            turns = [(self.early_kill, ours), (self.plain_echo, theirs)]
            for take_turn, found in turns if number % 2 == 0 else reversed(turns):
                await take_turn(load(seconds / rounds), found)
        return ours, theirs


async def maximum(servers: Servers, events: int) -> float:
    """Return the interactions a second at which a monitor works off a backlog, on topics of its own."""
    backlog = Backlog(events, prefix="maximum-")
    await servers.create_topics(backlog.prefix)
    await preload(servers.kafka, backlog)
    async with servers.monitor("bench-maximum", {"EARLY_KILL_TOPIC_PREFIX": backlog.prefix}) as monitor:
        return (await work_off(servers, [monitor], backlog)).per_second


async def run(arguments: argparse.Namespace) -> Found:
    """Start everything, and measure both at each rate."""
    rates: list[str] = arguments.rate or list(RATES)
    found: Found = {"seconds": arguments.seconds, "rounds": arguments.rounds}
    rows: list[Found] = []
    async with stage() as servers:
        await servers.create_topics()
        fastest = await maximum(servers, arguments.events) if HALF in rates else None
        found["maximum_per_second"] = fastest
        async with servers.monitor(APP) as monitor, echo(servers):
            await monitor.ready()
            async with collect(servers.kafka, "variant_killed", "echo_out") as (answers, collecting):
                contest = Contest(servers, monitor, answers, collecting)
                for name in rates:
                    rate = fastest / 2 if name == HALF and fastest else QUIET_RATE if name == QUIET else float(name)
                    where = {HALF: "half the maximum, ", QUIET: "all in one partition, "}.get(name, "") + f"{rate:,.0f} events/s"
                    say(f"kill latency at {where}")
                    ours, theirs = (turns.summary() for turns in await contest.at(rate, arguments.seconds, arguments.rounds, int(name == QUIET)))
                    found[f"at_{name}"] = {"rate": rate, "early_kill_ms": ours, "plain_echo_ms": theirs}
                    rows += _rows(where, ours, theirs, GOALS[name == HALF])
    return {"rows": rows, **found}


def _rows(where: str, ours: Any, theirs: Any, goals: tuple[float, float]) -> list[Found]:
    note = f"{ours['n']} kills, max {ours['max']} ms; echo p50 {theirs['p50']:.3g} ms, p99 {theirs['p99']:.3g} ms"
    if not (ours["is_rate_kept"] and theirs["is_rate_kept"]):
        note += f"; THE RATE WAS NOT KEPT: {[load['rate'] for load in (*ours['loads'], *theirs['loads'])]}"
    what = f"kill latency at {where}"
    return [row(f"{what}, p50", ours["p50"], "ms"), row(f"{what}, p99", ours["p99"], "ms", at_least=goals[0], aim=goals[1], lower_is_better=True, note=note)]


def _rate(text: str) -> str:
    if text not in {HALF, QUIET} and not float(text) > 0:
        raise ValueError(text)
    return text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this benchmark can be asked."""
    parser.add_argument("--rate", type=_rate, action="append", metavar="N|half|quiet", help=f"interactions a second; may be repeated (default: {', '.join(RATES)})")
    parser.add_argument("--seconds", type=float, default=60, help="how long each of the two is measured at each rate (default 60)")
    parser.add_argument("--rounds", type=int, default=3, help="times that they take turns at each rate (default 3)")
    parser.add_argument("--events", type=int, default=1_000_000, help=f"interactions of the backlog that `{HALF}` finds the maximum with (default 1,000,000)")


def main() -> None:
    """Run it alone."""
    alone(__doc__, add_arguments, run)


if __name__ == "__main__":
    main()

"""One monitor, two, three on the same backlog of 12 partitions; and what a partition costs.

    .venv/bin/python -m benchmarks.scaling --events 3000000 --rounds 2

Each turn is a new consumer group that works off the same backlog, taken in turns. Monitors that start together do not join their group in the same
moment, so the pace is taken from when all of them read on, and the rest of the backlog, already smaller, is left. Where monitors, Kafka and this program
share few cores the ratio says more about the machine than about the monitors: the CPU seconds that each took for 1,000,000 interactions are the number to
scale by. Then one monitor on 4, 16 and 64 partitions: pace, memory, and what it takes of a core with nothing to do.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from collections.abc import Mapping
from contextlib import AsyncExitStack

from benchmarks.backlog import Backlog, preload
from benchmarks.report import Found, alone, median_ratio, row
from benchmarks.stage import Servers, say, stage
from benchmarks.watching import Usage
from benchmarks.working_off import Worked, work_off

PARTITIONS = 12
WORKERS = (1, 2, 3)
PARTITION_COUNTS = (4, 16, 64)
SETTLE_SECONDS = 3.0


def settings_of(backlog: Backlog) -> Mapping[str, str]:
    """Return the settings of a monitor for a backlog's topics."""
    return {"EARLY_KILL_TOPIC_PREFIX": backlog.prefix, "EARLY_KILL_PARTITIONS": str(backlog.partitions)}


async def together(servers: Servers, backlog: Backlog, workers: int, number: int) -> Worked:
    """Let so many monitors of one new group work the backlog off."""
    async with AsyncExitStack() as running:
        starting = (running.enter_async_context(servers.monitor(f"{workers}-together-{number}", settings_of(backlog))) for _ in range(workers))
        monitors = [await one for one in starting]
        return await work_off(servers, monitors, backlog)


async def alone_on(servers: Servers, backlog: Backlog, number: int, idle_seconds: float) -> Found:
    """Let one monitor work the backlog off, and look at it afterwards, idle."""
    async with servers.monitor(f"{backlog.prefix}{number}", settings_of(backlog)) as monitor:
        worked = await work_off(servers, [monitor], backlog)
        await asyncio.sleep(SETTLE_SECONDS)
        before, kafka_before = Usage.of(monitor.pid), Usage.of(servers.kafka_pid)
        await asyncio.sleep(idle_seconds)
        after, kafka_after = Usage.of(monitor.pid), Usage.of(servers.kafka_pid)
    return {
        **worked.found(),
        "idle_cores": (after.cpu_seconds - before.cpu_seconds) / idle_seconds,
        "idle_kafka_cores": (kafka_after.cpu_seconds - kafka_before.cpu_seconds) / idle_seconds,
        "resident_mib": after.resident / 2**20,
    }


async def run(arguments: argparse.Namespace) -> Found:
    """Preload, and take turns."""
    backlog = Backlog(arguments.events, arguments.variants, partitions=PARTITIONS, prefix="shared-")
    by_count = {count: Backlog(arguments.partition_events, arguments.variants, partitions=count, prefix=f"of-{count}-") for count in PARTITION_COUNTS}
    found: dict[int, list[Worked]] = {workers: [] for workers in WORKERS}
    costs: dict[int, list[Found]] = {count: [] for count in PARTITION_COUNTS}
    async with stage() as servers:
        for each in (backlog, *by_count.values()):
            say(f"preloading {each.events:,} interactions on {each.partitions} partitions")
            await servers.create_topics(each.prefix, each.partitions)
            await preload(servers.kafka, each)
        for number in range(arguments.rounds):
            for workers in WORKERS if number % 2 == 0 else reversed(WORKERS):
                say(f"round {number + 1} of {arguments.rounds}: {workers} monitors")
                found[workers].append(await together(servers, backlog, workers, number))
            for count in PARTITION_COUNTS:
                say(f"round {number + 1} of {arguments.rounds}: {count} partitions")
                costs[count].append(await alone_on(servers, by_count[count], number, arguments.idle_seconds))
    rows = [*_rows_of_workers(found), *_rows_of_partitions(costs)]
    turns = {f"{workers}_workers": [worked.found() for worked in turns] for workers, turns in found.items()}
    return {"rows": rows, "events": arguments.events, **turns, **{f"{count}_partitions": turns for count, turns in costs.items()}}


def _rows_of_workers(found: Mapping[int, list[Worked]]) -> list[Found]:
    rows = []
    for workers, turns in found.items():
        paces = [worked.per_second for worked in turns]
        cpu = statistics.median(seconds for worked in turns for seconds in worked.cpu_per_million)
        kafka = statistics.median(worked.kafka_cpu_per_million for worked in turns)
        ratio = median_ratio(paces, [worked.per_second for worked in found[WORKERS[0]]])
        note = f"{ratio:.2f} of one; CPU s for 1,000,000: {cpu:.3g} a monitor, {kafka:.3g} Kafka"
        rows.append(row(f"throughput, {workers} monitor{'s' if workers > 1 else ''}, {PARTITIONS} partitions", statistics.median(paces), "1/s", note=note))
    return rows


def _rows_of_partitions(costs: Mapping[int, list[Found]]) -> list[Found]:
    rows = []
    for count, turns in costs.items():

        def median(name: str, turns: list[Found] = turns) -> float:
            return statistics.median(float(str(turn[name])) for turn in turns)

        note = f"{median('resident_mib'):.0f} MiB; idle it takes {100 * median('idle_cores'):.2g} % of a core, Kafka {100 * median('idle_kafka_cores'):.2g} %"
        rows.append(row(f"throughput, 1 monitor, {count} partitions", median("per_second"), "1/s", note=note))
    return rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this benchmark can be asked."""
    parser.add_argument("--events", type=int, default=3_000_000, help="interactions for one, two and three monitors (default 3,000,000)")
    parser.add_argument("--partition-events", type=int, default=1_000_000, help="interactions for 4, 16 and 64 partitions (default 1,000,000)")
    parser.add_argument("--variants", type=int, default=1_000, help="variants they are spread over (default 1,000)")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each (default 2)")
    parser.add_argument("--idle-seconds", type=float, default=10, help="how long an idle monitor is looked at (default 10)")


def main() -> None:
    """Run it alone."""
    alone(__doc__, add_arguments, run)


if __name__ == "__main__":
    main()

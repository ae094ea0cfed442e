"""How many interactions a second one monitor works off, beside others who compute the same from the same backlog.

    .venv/bin/python -m benchmarks.throughput --events 3000000 --rounds 3

A backlog of JSON interactions with ``event_id`` lies on 4 partitions of embedded Kafka. In turns, in the same minutes, it is read by: one monitor as shipped, with
every guarantee on; Kafka Streams with one thread, as its defaults are and once more committing as often as the monitor flushes; Quix Streams; Faust as documented; and
plain aiokafka + msgspec + a dict, which keeps no state, drops no duplicate and so is the limit. All compute views and interactions per variant and 10-minute window, and
kill below the line; each one's counts are checked before its time counts. The slow ones get fewer events. ``benchmarks/contestants.py`` says how time is taken.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from benchmarks.backlog import Backlog, preload
from benchmarks.contestants import FLUSH_MS, Ground, Pace, Turn, missing
from benchmarks.report import Found, alone, interleaved, median_ratio, row
from benchmarks.stage import say, stage

STREAMS_COMMIT_MS = 30_000
"""Kafka Streams' own default."""
CHANGELOG_AT_LEAST, CHANGELOG_AIM = 50, 20


@dataclass(frozen=True, slots=True)
class Goal:
    """What the ratio of our pace to a peer's has to be."""

    what: str
    at_least: float | None = None
    aim: float | None = None


GOALS = {
    "kafka-streams": Goal("Kafka Streams, 1 thread, warm", 0.6, 1.0),
    "kafka-streams-flush": Goal(f"Kafka Streams, committing each {FLUSH_MS} ms as the monitor flushes"),
    "quix": Goal("Quix Streams", 3, 5),
    "plain": Goal("plain aiokafka + msgspec + dict", 0.35, 0.6),
    "faust": Goal("Faust as documented"),
}
OURS = "early-kill"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be chosen."""
    parser.add_argument("--events", type=int, default=3_000_000, help="interactions (default 3,000,000)")
    parser.add_argument("--variants", type=int, default=1_000, help="variants they are spread over (default 1,000)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each (default 3)")
    parser.add_argument("--quix-events", type=int, default=600_000, help="events for Quix Streams at most (default 600,000)")
    parser.add_argument("--faust-events", type=int, default=20_000, help="events for plain Faust at most (default 20,000)")
    parser.add_argument("--peers", nargs="*", choices=list(GOALS), default=list(GOALS), help="who takes part beside the monitor (default all)")


async def run(arguments: argparse.Namespace) -> Found:
    """Start Kafka, preload, let all take turns."""
    skipped = {peer: reason for peer in arguments.peers if (reason := missing(peer))}
    for peer, reason in skipped.items():
        say(f"{peer} is skipped, {reason}")
    async with stage() as servers:
        ground = Ground(servers, "peers.variant_killed")
        backlogs = _backlogs(arguments)
        await servers.create_topics("peers.")
        for backlog in set(backlogs.values()):
            say(f"preloading {backlog.events:,} events")
            await servers.create_topics(backlog.prefix)
            await preload(servers.kafka, backlog)
        contestants = await _contestants(ground, backlogs, [peer for peer in arguments.peers if peer not in skipped])
        paces = await interleaved(arguments.rounds, {name: _telling(name, turn) for name, turn in contestants.items()})
    return {
        "rows": _rows(paces, skipped),
        "events": {name: backlogs.get(name, backlogs[OURS]).events for name in paces},
        "variants": arguments.variants,
        "rounds": arguments.rounds,
        "skipped": skipped,
        "paces": {name: [asdict(pace) for pace in found] for name, found in paces.items()},
    }


def main() -> None:
    """Run it alone."""
    alone(__doc__, add_arguments, run)


def _backlogs(arguments: argparse.Namespace) -> dict[str, Backlog]:
    """Who gets a backlog of their own; the others get that of the monitor."""
    whole = Backlog(arguments.events, arguments.variants)
    found = {OURS: whole}
    for peer, most in (("quix", arguments.quix_events), ("faust", arguments.faust_events)):
        if peer in arguments.peers and most < whole.events:
            found[peer] = Backlog(most, arguments.variants, whole.window_start, prefix=f"{peer}.")
    return found


async def _contestants(ground: Ground, backlogs: Mapping[str, Backlog], peers: Sequence[str]) -> dict[str, Turn]:
    if any(peer.startswith("kafka-streams") for peer in peers):
        await ground.compile_kafka_streams()
    whole = backlogs[OURS]
    enter = {
        "kafka-streams": lambda: ground.kafka_streams(whole, STREAMS_COMMIT_MS),
        "kafka-streams-flush": lambda: ground.kafka_streams(whole, FLUSH_MS),
        "quix": lambda: ground.quix(backlogs.get("quix", whole)),
        "plain": lambda: ground.plain(whole),
        "faust": lambda: ground.faust(backlogs.get("faust", whole)),
    }
    return {OURS: ground.early_kill(whole), **{peer: enter[peer]() for peer in peers}}


def _telling(name: str, turn: Turn) -> Turn:
    async def told(number: int) -> Pace:
        pace = await turn(number)
        say(f"round {number + 1}: {name} {pace.per_second:,.0f} events/s, {pace.cpu_microseconds:.1f} µs of CPU time an event")
        return pace

    return told


def _rows(paces: Mapping[str, Sequence[Pace]], skipped: Mapping[str, str]) -> list[Found]:
    ours = paces[OURS]
    changelog = statistics.median(pace.changelog_bytes or 0 for pace in ours)
    rows = [
        row("throughput of one monitor", _median(ours), "events/s"),
        row("changelog bytes an event", changelog, "B", at_least=CHANGELOG_AT_LEAST, aim=CHANGELOG_AIM, lower_is_better=True),
    ]
    for peer, theirs in paces.items():
        if peer != OURS:
            goal = GOALS[peer]
            ratio = median_ratio([pace.per_second for pace in ours], [pace.per_second for pace in theirs])
            rows.append(row(f"against {goal.what}", ratio, "", at_least=goal.at_least, aim=goal.aim, note=f"{_median(theirs):,.0f} events/s"))
    return rows + [{**row(f"against {GOALS[peer].what}", 0, ""), "measured": None, "note": f"skipped, {reason}"} for peer, reason in skipped.items()]


def _median(paces: Sequence[Pace]) -> float:
    return statistics.median(pace.per_second for pace in paces)


if __name__ == "__main__":
    main()

"""What each guarantee costs: how often state is made durable, and that an event counts once.

    .venv/bin/python -m benchmarks.guarantees --events 3000000 --rounds 3

The same backlog is worked off, in turns, by a monitor as shipped but for one thing: flush intervals of 0.1, 0.5 (the default) and 2 s; and,
at the default, a backlog whose interactions carry no ``event_id``, so that there is nothing to remember of them. Events a second, CPU time, and the bytes that an
event comes to in the changelogs (sizes of the log segments on the broker's disk, batch headers included). Counts are checked before a time counts.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.backlog import Backlog, preload
from benchmarks.report import Found, alone, median_ratio, row
from benchmarks.stage import Servers, say, stage
from benchmarks.working_off import Worked, changelog_bytes, work_off

FLUSH_SECONDS = (0.1, 0.5, 2.0)
DEFAULT_FLUSH = 0.5
NO_IDS = "no event_id"
CHANGELOG_AT_LEAST, CHANGELOG_AIM = 50, 20


class WithoutIds(Backlog):
    """The same events without ``event_id``."""

    def interactions(self) -> Iterator[tuple[int, bytes]]:
        """Yield (variant, value) of all ``interaction``."""
        for variant, value in Backlog.interactions(self):
            yield variant, value[: value.rindex(b',"event_id"')] + b"}"


@dataclass(frozen=True, slots=True)
class Variation:
    """A backlog, and how the monitor is set."""

    name: str
    backlog: Backlog
    flush_seconds: float = DEFAULT_FLUSH


async def turn(servers: Servers, variation: Variation, number: int) -> tuple[Worked, float]:
    """Let a new monitor work the backlog off; return what it took, and the changelog bytes of an event."""
    app_id = f"{variation.name.replace(' ', '-')}-{number}"
    settings = {"EARLY_KILL_TOPIC_PREFIX": variation.backlog.prefix, "EARLY_KILL_FLUSH_INTERVAL_SECONDS": str(variation.flush_seconds)}
    async with servers.monitor(app_id, settings) as monitor:
        worked = await work_off(servers, [monitor], variation.backlog)
    return worked, changelog_bytes(servers, app_id) / variation.backlog.events


async def run(arguments: argparse.Namespace) -> Found:
    """Preload both backlogs, and let the variations take turns."""
    with_ids = Backlog(arguments.events, arguments.variants, prefix="ids-")
    without = WithoutIds(arguments.events, arguments.variants, prefix="bare-")
    variations = [*(Variation(f"flush {seconds:g} s", with_ids, seconds) for seconds in FLUSH_SECONDS), Variation(NO_IDS, without)]
    found: dict[str, list[tuple[Worked, float]]] = {variation.name: [] for variation in variations}
    async with stage() as servers:
        for backlog in (with_ids, without):
            await servers.create_topics(backlog.prefix)
            say(f"preloading {backlog.events:,} interactions")
            await preload(servers.kafka, backlog)
        for number in range(arguments.rounds):
            shift = number % len(variations)
            for variation in variations[shift:] + variations[:shift]:
                say(f"round {number + 1} of {arguments.rounds}: {variation.name}")
                found[variation.name].append(await turn(servers, variation, number))
    return {"rows": _rows(found), "events": arguments.events, "variants": arguments.variants, "turns": {name: [_told(*one) for one in turns] for name, turns in found.items()}}


def _told(worked: Worked, changelog: float) -> Found:
    return {**worked.found(), "changelog_bytes_per_event": changelog}


def _rows(found: dict[str, list[tuple[Worked, float]]]) -> list[Found]:
    usual = f"flush {DEFAULT_FLUSH:g} s"
    paces = {name: [worked.per_second for worked, _ in turns] for name, turns in found.items()}
    rows = []
    for name, turns in found.items():
        ratio = median_ratio(paces[name], paces[usual])
        changelog = statistics.median(written for _, written in turns)
        cpu = statistics.median(worked.cpu_per_million[0] for worked, _ in turns)
        note = f"{ratio:.2f} of the default; {cpu:.3g} CPU s for 1,000,000"
        rows.append(row(f"throughput, {name}", statistics.median(paces[name]), "1/s", note=note))
        at_least, aim = (CHANGELOG_AT_LEAST, CHANGELOG_AIM) if name == usual else (None, None)
        rows.append(row(f"changelog an event, {name}", changelog, "bytes", at_least=at_least, aim=aim, lower_is_better=True))
    return rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this benchmark can be asked."""
    parser.add_argument("--events", type=int, default=3_000_000, help="interactions (default 3,000,000)")
    parser.add_argument("--variants", type=int, default=1_000, help="variants they are spread over (default 1,000)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each (default 3)")


def main() -> None:
    """Run it alone."""
    alone(__doc__, add_arguments, run)


if __name__ == "__main__":
    main()

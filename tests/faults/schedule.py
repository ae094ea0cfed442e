"""One random schedule: traffic in real time, faults beside it, then healing, draining and judgement."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.faults.evidence import keep_topics
from tests.faults.menu import SERVER_FAULTS, WORKER_FAULTS, Fault, Injected
from tests.faults.servers import Servers
from tests.faults.stage import Stage, staged
from tests.faults.traffic import Sender, make_plan


@dataclass(frozen=True, slots=True)
class Size:
    """How much traffic, and for how many seconds."""

    variants: int = 500
    events: int = 20_000
    seconds: float = 30.0
    drain_seconds: float = 90.0


@dataclass(slots=True)
class Report:
    """What one schedule has shown.

    Attributes:
        wrong: Violations; none is what has to be.
        faults: Name of each fault that was injected, and what showed that it bit (None: nothing did).
        results: What became of the records, by the oracle.
        outcomes: How sessions ended.
        copies: Kills and records that came more than once: repetitions that had to have no effect.
    """

    seed: int
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)
    faults: list[tuple[str, str | None]] = field(default_factory=list)
    results: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    exits: Counter[str] = field(default_factory=Counter)
    copies: int = 0

    def lines(self) -> list[str]:
        """The report for people."""
        bit = [name for name, bite in self.faults if bite]
        said = [f"seed {self.seed}: {len(self.wrong)} violations, {len(bit)} of {len(self.faults)} faults bit, {self.copies} repetitions on the topics, {self.seconds:.0f} s"]
        said.append(f"  records: {_summed(self.results)}; sessions: {_summed(self.outcomes)}; workers that ended: {_summed(self.exits) or 'none'}")
        said += [f"  {name}: {bite or 'nothing noticed'}" for name, bite in self.faults]
        return said + [f"  VIOLATION {line}" for line in self.wrong]


def _summed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


Lanes = Mapping[str, Mapping[str, Fault]]
"""Faults by name, that come one after the other; for each of the lanes, that run beside each other."""


def lanes(only: str = "") -> Lanes:
    """Return all faults of the menu in whose names the pattern ``only`` is."""
    chosen = {lane: {name: faults[name] for name in faults if re.search(only, name)} for lane, faults in (("workers", WORKER_FAULTS), ("servers", SERVER_FAULTS))}
    return {lane: faults for lane, faults in chosen.items() if faults}


ALL = lanes()


def sabotaged(without: str) -> dict[str, str]:
    """Return what, in a worker's environment, takes a safeguard out of it."""
    return {"PYTHONPATH": str(Path(__file__).with_name("sabotage")), "SABOTAGE": without}


async def run_schedule(servers: Servers, home: Path, seed: int, size: Size, *, monitors: int = 2, without: str | None = None, faults: Lanes = ALL) -> Report:
    """Run the schedule of ``seed``, made of these ``faults``; ``without`` names a safeguard to take out of the workers (``sabotage/sitecustomize.py``).

    Workers' logs stand in ``home``; and what was on the topics, if something is wrong that should not be.
    """
    sabotage = sabotaged(without) if without else {}
    report, began = Report(seed), time.monotonic()
    async with staged(servers, home, monitors, **sabotage) as stage:
        plan = make_plan(seed, size.variants, size.events, size.seconds)
        stage.fill(plan.variants)
        stage.keep()
        sender = Sender(stage.system.settings.kafka_bootstrap_servers, stage.system.settings.topic_prefix)
        until = time.monotonic() + size.seconds
        _, *injected = await asyncio.gather(sender.send(plan), *(_lane(stage, Random(f"{lane} {seed}"), of_it, until) for lane, of_it in faults.items()))
        await asyncio.to_thread(servers.heal)
        left = await stage.settle(len(plan.variants), size.drain_seconds)
        verdict, wrong = await stage.judged()
        report.wrong = [*left, *wrong, *await stage.unbalanced(), *await stage.leave()]
        report.faults = [(fault.name, fault.bite()) for lane in injected for fault in lane]
        report.results, report.outcomes, report.exits = verdict.results, Counter(fate.outcome for fate in verdict.fates.values()), stage.exits
        report.copies = await copies(stage)
        if report.wrong and not without:
            await keep_topics(stage.system.settings, home)
    report.seconds = time.monotonic() - began
    return report


async def _lane(stage: Stage, chance: Random, faults: Mapping[str, Fault], until: float) -> list[Injected]:
    """Inject one fault after the other, each of another kind than the last, with pauses."""
    injected: list[Injected] = []
    await asyncio.sleep(chance.uniform(0.5, 2))
    while time.monotonic() < until:
        name = chance.choice([name for name in faults if len(faults) == 1 or not injected or name != injected[-1].name])
        injected.append(Injected(name, await faults[name](stage, chance)))
        await asyncio.sleep(chance.uniform(0.5, 3))
    return injected


async def copies(stage: Stage) -> int:
    """Return how many kills and records are on their topics more than once."""
    killed, recorded = await stage.system.values("variant_killed"), await stage.system.values("monitoring_record")
    return len(killed) - len({value["kill_id"] for value in killed}) + len(recorded) - len({value["record_id"] for value in recorded})

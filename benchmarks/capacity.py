"""What a monitor can hold: memory of a live session, restart with 100,000 of them, and whether pace stays when there are many.

    .venv/bin/python -m benchmarks.capacity --sessions 100000 --sessions 1000000

Memory: resident bytes of the monitor's process before, and once it holds so many live sessions and has made them durable; without events, with a
few events each, and after a restart that has read them back. Ids are of the usual length: variant_id 24 characters, post_id a uuid, event_id 20.

Restart: the deciding events of some variants are sent while no monitor runs, after SIGTERM and after SIGKILL. From the moment that the broker's group
coordinator says the new monitor has its partitions until the first and the last of these kills is on ``variant_killed`` (append times). What goes before, the
start of the process and the group's wait for one that was killed, is told beside it.

Pace: the same number of interactions over 1,000 and over 100,000 live variants, in turns.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import statistics
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from benchmarks.backlog import Backlog, preload
from benchmarks.kill_latency import collect
from benchmarks.report import Found, alone, median_ratio, row
from benchmarks.stage import Monitor, Servers, say, stage
from benchmarks.watching import ACTIVE, counted, lag, peak, settled_memory, until, until_counted
from benchmarks.working_off import work_off
from models.errors import Stop
from models.moments import format_moment

SESSIONS = (100_000, 1_000_000)
CANARIES = 40
"""Variants whose kills tell when a monitor decides again."""
VIEWS, LIKES = 334, 10
FEW, MANY = 1_000, 100_000
LOOK_SECONDS = 0.02
LONG_SECONDS = 900.0
KILOBYTE = 1_000


class Sessions(Backlog):
    """Live sessions with usual ids, and a few events each; none is bad.

    Event ``number`` belongs to variant ``number % variants``, as in any backlog.
    """

    def variant_id(self, variant: int) -> str:
        """Name variant ``variant``: 24 characters."""
        return f"{self.prefix[:4]:-<4}{variant:020}"

    def post_id(self, variant: int) -> str:
        """Name its posting: a uuid."""
        return str(uuid.UUID(int=variant << 64 | 0x4D53_9A71, version=4))

    def posts(self) -> Iterator[tuple[int, bytes]]:
        """Yield (variant, value) of all ``variant_posted``."""
        posted_at = format_moment(self.window_start * 1_000_000)
        for variant in range(self.variants):
            ids = f'"variant_id":"{self.variant_id(variant)}","persona_id":"persona-{variant % 1_000:04}","post_id":"{self.post_id(variant)}"'
            yield variant, f'{{{ids},"expected_engagement_rate":0.06,"posted_at":"{posted_at}","timeout_minutes":{self.timeout_minutes:g}}}'.encode()

    def interactions(self) -> Iterator[tuple[int, bytes]]:
        """Yield (variant, value) of all ``interaction``: views."""
        moment = format_moment(self.window_start * 1_000_000)
        for number in range(self.events):
            variant = number % self.variants
            ids = f'"variant_id":"{self.variant_id(variant)}","post_id":"{self.post_id(variant)}"'
            yield variant, f'{{{ids},"kind":"view","occurred_at":"{moment}","event_id":"event-{number:014}"}}'.encode()


async def _settle(monitor: Monitor, records: float, sessions: int) -> int:
    """Wait until the monitor holds ``sessions`` live ones from ``records`` counted ones, and has flushed; return its resident bytes."""
    await until(monitor, lambda found: found[ACTIVE] >= sessions and lag(found) == 0, f"{sessions:,} live sessions", LONG_SECONDS)
    await until_counted(monitor, records)
    return await settled_memory(monitor.pid)


async def memory(servers: Servers, steps: list[int], events_each: int) -> list[Found]:
    """Fill one monitor step by step; return what a session takes at each, and after a restart with all of them."""
    found: list[Found] = []
    prefix = f"m{events_each}-"
    app_id, settings = f"memory-{events_each}", {"EARLY_KILL_TOPIC_PREFIX": prefix}
    await servers.create_topics(prefix)
    async with servers.monitor(app_id, settings) as monitor:
        await monitor.ready()
        bare = await settled_memory(monitor.pid)
        held, records = 0, 0
        for step in steps:
            async with peak(monitor.pid) as most:
                await preload(servers.kafka, _Step(0, step, prefix=prefix, first=held))
                resident = await _settle(monitor, records := records + step - held, step)
                if events_each:  # once the posts are there, as in life: an interaction that overtakes its post waits for it, and takes memory of its own
                    await preload(servers.kafka, _Step(step * events_each, step, prefix=prefix, first=held), posts=False)
                    resident = await _settle(monitor, records := records + (step - held) * events_each, step)
            held = step
            found.append(_per_session("running", held, events_each, resident - bare, most.resident - bare))
            say(f"{held:,} sessions, {events_each} events each: {_kilobytes(resident - bare, held):.2f} KB each")
    async with servers.monitor(app_id, settings) as monitor:
        async with peak(monitor.pid) as most:
            await monitor.ready(LONG_SECONDS)
            await until(monitor, lambda metrics: metrics[ACTIVE] == held, "as many live sessions as before")
            resident = await settled_memory(monitor.pid)
        found.append(_per_session("restarted", held, events_each, resident - bare, most.resident - bare))
    return found


@dataclass(frozen=True, slots=True)
class _Step(Sessions):
    """The sessions from ``first`` on, up to ``variants``."""

    first: int = 0

    def posts(self) -> Iterator[tuple[int, bytes]]:
        return (post for post in Sessions.posts(self) if post[0] >= self.first)

    def interactions(self) -> Iterator[tuple[int, bytes]]:
        return (event for event in Sessions.interactions(self) if event[0] >= self.first)


def _per_session(how: str, sessions: int, events_each: int, resident: int, most: int) -> Found:
    return {
        "how": how,
        "sessions": sessions,
        "events_each": events_each,
        "kilobytes_each": _kilobytes(resident, sessions),
        "peak_kilobytes_each": _kilobytes(most, sessions),
        "resident_mib": resident / 2**20,
    }


def _kilobytes(resident: int, sessions: int) -> float:
    return resident / sessions / KILOBYTE


# -- restart ---------------------------------------------------------------------------------------------------------


async def send_canaries(bootstrap: str, prefix: str, names: list[str], *, deciding: bool) -> None:
    """Post canaries and bring each to the brink of its kill, or ``deciding``: over it."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await producer.start()

    async def send(topic: str, name: str, value: dict[str, Any]) -> None:
        await producer.send(f"{prefix}{topic}", json.dumps({"variant_id": name, "post_id": "canary", **value}).encode(), key=name.encode())

    if not deciding:
        for name in names:
            await send("variant_posted", name, {"persona_id": "canary", "timeout_minutes": 600})
        await producer.flush()  # appended after its own views, a post would find them early
        for name in names:
            await send("interaction", name, {"kind": "view", "count": VIEWS, "event_id": f"{name}-view"})
    for name in names:
        for number in [LIKES - 1] if deciding else range(LIKES - 1):
            await send("interaction", name, {"kind": "like", "event_id": f"{name}-{number}"})
    await producer.stop()


async def assigned_at(admin: AIOKafkaAdminClient, group: str, old: frozenset[str], until_seconds: float = 60) -> tuple[float, frozenset[str]]:
    """Wait until the group is stable with members that are all new; return Unix seconds then, and the members' ids."""
    deadline = time.monotonic() + until_seconds
    while time.monotonic() < deadline:
        state, members = await group_of(admin, group)
        if state == "Stable" and members and not members & old:
            return time.time(), members
        await asyncio.sleep(LOOK_SECONDS)
    raise Stop(f"group {group} is not assigned after {until_seconds:g} s")


async def group_of(admin: AIOKafkaAdminClient, group: str) -> tuple[str, frozenset[str]]:
    """Return a consumer group's state and its members' ids, as its coordinator tells."""
    (answer,) = await admin.describe_consumer_groups([group])
    _, _, state, _, _, members, *_ = answer.groups[0]
    return state, frozenset(member[0] for member in members)


async def restart(servers: Servers, sessions: int, events_each: int, rounds: int) -> list[Found]:
    """Let a monitor hold sessions, stop it and start it again; return how long it takes to decide."""
    prefix, app_id = "r-", "restart"
    settings = {"EARLY_KILL_TOPIC_PREFIX": prefix}
    backlog = Sessions(sessions * events_each, sessions, prefix=prefix)
    await servers.create_topics(prefix)
    await preload(servers.kafka, backlog)
    admin = AIOKafkaAdminClient(bootstrap_servers=servers.kafka)
    await admin.start()
    found = []
    try:
        async with servers.monitor(app_id, settings) as monitor, collect(servers.kafka, f"{prefix}variant_killed") as (answers, _):
            await _settle(monitor, backlog.events + sessions, sessions)
            for number in range(2 * rounds):
                how = signal.SIGKILL if number % 2 else signal.SIGTERM
                names = [f"canary-{number}-{index}" for index in range(CANARIES)]
                before = await counted(monitor)
                await send_canaries(servers.kafka, prefix, names, deciding=False)
                await until_counted(monitor, before + CANARIES * (1 + LIKES))
                await asyncio.sleep(1)  # flushed, and its offsets committed
                _, old = await group_of(admin, app_id)
                await asyncio.to_thread(monitor.process.kill if how is signal.SIGKILL else monitor.process.stop)
                await send_canaries(servers.kafka, prefix, names, deciding=True)
                began = time.time()
                await asyncio.to_thread(monitor.process.start)
                assigned, _ = await assigned_at(admin, app_id, old)
                await monitor.ready()
                ready = time.time()
                await until_there(names, answers.appended)
                decided = sorted(answers.appended[name] / 1_000 for name in names)
                metrics = await until(monitor, lambda metrics: metrics[ACTIVE] == sessions, f"{sessions:,} live sessions after the restart")
                found.append(
                    {
                        "after": how.name,
                        "start_to_assigned": assigned - began,
                        "assigned_to_first_kill": decided[0] - assigned,
                        "assigned_to_last_kill": decided[-1] - assigned,
                        "assigned_to_ready": ready - assigned,
                        "sessions": metrics[ACTIVE],
                    }
                )
                say(f"restart after {how.name}: assigned after {assigned - began:.1f} s, decides {decided[-1] - assigned:.1f} s later")
    finally:
        await admin.close()
    return found


async def until_there(names: list[str], answers: dict[str, int], seconds: float = 120) -> None:
    """Wait until each of ``names`` has its answer; raises ``Stop`` if one has none in time."""
    deadline = time.monotonic() + seconds
    while missing := set(names) - answers.keys():
        if time.monotonic() > deadline:
            raise Stop(f"{len(missing)} of {len(names)} kills are missing {seconds:g} s after the restart")
        await asyncio.sleep(LOOK_SECONDS)


# -- pace ------------------------------------------------------------------------------------------------------------


async def pace(servers: Servers, events: int, rounds: int, many: int) -> dict[str, list[float]]:
    """Return interactions a second over few and over many live variants, in turns."""
    backlogs = {f"{variants:,} variants": Backlog(events, variants, prefix=f"v{variants}-") for variants in (FEW, many)}
    found: dict[str, list[float]] = {name: [] for name in backlogs}
    for backlog in backlogs.values():
        await servers.create_topics(backlog.prefix)
        await preload(servers.kafka, backlog)
    for number in range(rounds):
        turns = list(backlogs.items())
        for name, backlog in turns if number % 2 == 0 else reversed(turns):
            async with servers.monitor(f"{backlog.prefix}{number}", {"EARLY_KILL_TOPIC_PREFIX": backlog.prefix}) as monitor:
                found[name].append((await work_off(servers, [monitor], backlog)).per_second)
            say(f"{name}: {found[name][-1]:,.0f} events/s")
    return found


# -- all of it -------------------------------------------------------------------------------------------------------


async def run(arguments: argparse.Namespace) -> Found:
    """Measure all three, or those that are asked for."""
    steps = sorted(arguments.sessions or SESSIONS)
    found: Found = {}
    rows: list[Found] = []
    if "memory" in arguments.parts:
        held: list[Found] = []
        for events_each in arguments.events_each:
            async with stage() as servers:
                held += await memory(servers, steps, events_each)
        found["memory"] = held
        rows += [_memory_row(one) for one in held]
    async with stage() as servers:
        if "restart" in arguments.parts:
            restarts = await restart(servers, arguments.restart_sessions, max(arguments.events_each), arguments.rounds)
            found["restart"] = restarts
            rows += [_restart_row(restarts, how, arguments.restart_sessions) for how in ("SIGTERM", "SIGKILL")]
        if "pace" in arguments.parts:
            paces = await pace(servers, arguments.events, arguments.rounds, arguments.variants)
            found["pace"] = paces
            few, many = paces.values()
            note = ", ".join(f"{statistics.median(rates):,.0f}/s with {name}" for name, rates in paces.items())
            rows.append(row(f"throughput with {arguments.variants:,} live variants against {FEW:,}", median_ratio(many, few), "", at_least=0.5, aim=0.8, note=note))
    return {"rows": rows, **found}


def _memory_row(one: Found) -> Found:
    what = f"memory a live session, {one['sessions']:,} of them, {one['events_each']} events each, {one['how']}"
    note = f"at the peak {float(str(one['peak_kilobytes_each'])):.2f}"
    return row(what, float(str(one["kilobytes_each"])), "KB", at_least=2, aim=1, lower_is_better=True, note=note)


def _restart_row(restarts: list[Found], how: str, sessions: int) -> Found:
    those = [one for one in restarts if one["after"] == how]

    def median(name: str) -> float:
        return statistics.median(float(str(one[name])) for one in those)

    note = f"first kill {median('assigned_to_first_kill'):.2f} s, ready {median('assigned_to_ready'):.2f} s; before that {median('start_to_assigned'):.1f} s to the assignment"
    what = f"assigned to deciding again, {sessions:,} sessions, after {how}"
    return row(what, median("assigned_to_last_kill"), "s", at_least=15, aim=5, lower_is_better=True, note=note)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this benchmark can be asked."""
    parser.add_argument("--parts", nargs="+", choices=("memory", "restart", "pace"), default=["memory", "restart", "pace"], help="what to measure (default all)")
    parser.add_argument("--sessions", type=int, action="append", metavar="N", help=f"live sessions to look at the memory of; may be repeated (default {SESSIONS})")
    parser.add_argument("--events-each", type=int, nargs="+", default=[0, 5], metavar="N", help="events that each session has got (default 0 and 5)")
    parser.add_argument("--restart-sessions", type=int, default=100_000, help="live sessions at a restart (default 100,000)")
    parser.add_argument("--rounds", type=int, default=3, help="restarts of each kind, and turns of each pace (default 3)")
    parser.add_argument("--events", type=int, default=3_000_000, help="interactions to take the pace by (default 3,000,000)")
    parser.add_argument("--variants", type=int, default=MANY, help=f"many live variants (default {MANY:,})")


def main() -> None:
    """Run it alone."""
    alone(__doc__, add_arguments, run)


if __name__ == "__main__":
    main()

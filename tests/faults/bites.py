"""Whether the harness bites: each safeguard is taken out of the workers in turn, under the faults that it is for. There have to be violations then, and none with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from random import Random

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from streams.topics import MAX_MESSAGE_BYTES, topic_configuration, topic_name
from tests.faults.menu import Bite, Fault, dies_at
from tests.faults.schedule import Lanes, Size, run_schedule
from tests.faults.servers import Servers
from tests.faults.stage import Stage

SEED = 7
SIZE = Size(variants=150, events=4_000, seconds=12.0, drain_seconds=20.0)
TOLD = ("variant_killed", "monitoring_record")
DIES_SECONDS = 30.0


def _monitor_dies_at(point: str) -> Fault:
    return lambda stage, _: dies_at(stage, stage.system.monitors[0], f"{point}:1", DIES_SECONDS)


def _sink_dies_at(point: str) -> Fault:
    return lambda stage, _: dies_at(stage, stage.system.sink, f"{point}:1", DIES_SECONDS)


async def _nothing_told(stage: Stage, chance: Random) -> Bite:
    """Let no kill and no record arrive for some seconds, though all else does."""
    await _limit(stage, 100)
    try:
        await asyncio.sleep(1)
        before = await stage.ends(*TOLD)
        await asyncio.sleep(chance.uniform(3, 4))
        is_closed = await stage.ends(*TOLD) == before
    finally:
        await _limit(stage, MAX_MESSAGE_BYTES)
    return lambda: "no kill and no record arrived" if is_closed else None


async def _limit(stage: Stage, size: int) -> None:
    settings = stage.system.settings
    configurations = {topic_name(settings, name): topic_configuration(settings, name) | {"max.message.bytes": str(size)} for name in TOLD}
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    await admin.start()
    try:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configuration) for topic, configuration in configurations.items()])
    finally:
        await admin.close()


FAULTS: dict[str, Lanes] = {
    "offset-guard": {"workers": {"monitor dies before its records are done": _monitor_dies_at("before_ack")}},
    "repetition": {"workers": {"monitor dies before it tells of an end": _monitor_dies_at("after_latch")}},
    "on-conflict": {"workers": {"sink dies before anybody knows of its commit": _sink_dies_at("after_commit")}},
    "awaited-send": {"workers": {"Kafka refuses kills and records": _nothing_told}},
}
"""For each safeguard of ``sabotage/sitecustomize.py``."""


async def unbitten(servers: Servers, home: Path, safeguards: Iterable[str] = FAULTS) -> list[str]:
    """Run the schedules of these safeguards twice each, with all in place and without that one, and print what was found.

    Returns:
        What is not as it has to be; nothing if the harness bites.
    """
    wrong = []
    for safeguard in safeguards:
        for without in (None, safeguard):
            said = f"{'without' if without else 'with'} {safeguard}"
            report = await run_schedule(servers, home / said.replace(" ", "-"), SEED, SIZE, monitors=1, without=without, faults=FAULTS[safeguard])
            print(f"{said}:", *report.lines()[:8], sep="\n", flush=True)
            if not without and not any(bite for _, bite in report.faults):
                wrong.append(f"with {safeguard} no fault has bitten")
            if bool(report.wrong) != bool(without):
                wrong.append(f"without {safeguard} nothing is found" if without else f"with {safeguard} there are {len(report.wrong)} violations")
    return wrong

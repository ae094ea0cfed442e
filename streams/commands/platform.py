"""``up``, ``demo`` and ``worker``: what runs until somebody says stop."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from streams.environment import load_settings

PORT = {"min": 0, "max": 65_535}
DataDir = Annotated[Path, typer.Option(help="Where everything that lasts is kept.")]
KafkaPort = Annotated[int, typer.Option(help="Port of Kafka; 0 for any that is free.", **PORT)]
PostgresPort = Annotated[int, typer.Option(help="Port of PostgreSQL; 0 for any that is free.", **PORT)]
WebPort = Annotated[int | None, typer.Option(help="Port of the first monitor, the next ones follow; 0 for any that are free. [default: EARLY_KILL_WEB_PORT, or 6066]", **PORT)]


class Role(StrEnum):
    """What a worker does."""

    monitor = "monitor"
    sink = "sink"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(up)
    app.command()(demo)
    app.command()(worker)


def up(
    data_dir: DataDir = Path(".early-kill"),
    kafka_port: KafkaPort = 9092,
    postgres_port: PostgresPort = 5432,
    web_port: WebPort = None,
    workers: Annotated[int, typer.Option(help="Number of monitors; 0 starts everything but monitors.", min=0, max=64)] = 1,
) -> None:
    """Start everything on this machine: Kafka, PostgreSQL, topics, schema, monitors, sink. Ctrl-C stops it.

    When all is ready, its addresses are printed, and are in DATA_DIR/endpoints.json. A part that dies is started again.
    """
    from streams.local.supervisor import UpOptions, run_up

    settings = load_settings()
    asyncio.run(run_up(UpOptions(data_dir, kafka_port, postgres_port, settings.web_port if web_port is None else web_port, workers)))


def demo(
    data_dir: DataDir = Path(".early-kill"),
    kafka_port: KafkaPort = 9092,
    postgres_port: PostgresPort = 5432,
    web_port: WebPort = None,
    workers: Annotated[int, typer.Option(help="Number of monitors.", min=1, max=64)] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the randomness: the same seed, the same days.")] = 1,
    once: Annotated[bool, typer.Option("--once", help="End after one simulated day, about three minutes.")] = False,
) -> None:
    """Start everything as up does, and watch a simulated posting day: kills are printed as they happen. Ctrl-C stops it."""
    from streams.commands.simulation import run_demo
    from streams.local.supervisor import UpOptions, run_up

    settings = load_settings()
    options = UpOptions(data_dir, kafka_port, postgres_port, settings.web_port if web_port is None else web_port, workers)

    async def run() -> None:
        await run_up(options, on_ready=lambda endpoints: run_demo(settings, endpoints, seed=seed, once=once))

    asyncio.run(run())


def worker(
    role: Annotated[Role, typer.Option(help="monitor decides and serves the HTTP API; sink writes to PostgreSQL, and serves its health and metrics.")],
    web_port: Annotated[
        int | None,
        typer.Option(
            help="Port of the monitor's HTTP API [default: EARLY_KILL_WEB_PORT, or 6066], or of the sink's health and metrics [default: EARLY_KILL_SINK_WEB_PORT, or 6065].", **PORT
        ),
    ] = None,
) -> int:
    """Run one worker against the Kafka and PostgreSQL of the configuration."""
    settings = load_settings()
    if web_port is not None:
        settings = settings.model_copy(update={"web_port" if role is Role.monitor else "sink_web_port": web_port})
    from streams.app import run_worker

    return run_worker(settings, role=role.value)

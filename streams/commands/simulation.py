"""What ``demo`` does once all is ready: a simulated posting day through the running system, and its kills in lines for people."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pydantic import SecretStr
from sqlalchemy import insert, text
from sqlalchemy.exc import SQLAlchemyError

from models.moments import format_moment
from models.records import ScheduledPost, VariantPool
from streams.commands.common import put, tell
from streams.commands.kills import kill_line
from streams.database import create_engine, explained
from streams.event_log import MOMENT_FIELD
from streams.integration import EventPublisher, KillSubscriber, VariantKilled
from streams.integration.pipeline import Pipeline
from streams.traffic import DAY_SECONDS, WINDOW_MINUTES, Variant, happenings, plan_day

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from streams.local.endpoints import Endpoints
    from streams.settings import Settings

CLEANUP_SECONDS = 5.0
"""How long a kill's line waits for its cleanup in PostgreSQL."""
AFTER_DEADLINE_SECONDS = 15.0
"""After the last deadline: grace, and the time a timeout may take to be written."""
_CLEANED = text("SELECT count(*) FROM scheduled_post WHERE variant_id = :variant AND status = 'cancelled' AND cancel_reason LIKE '%' || :kill || '%'")
_IS_KILLED = text("SELECT status = 'killed' FROM variant_pool WHERE variant_id = :variant")
_OUTCOMES = text("SELECT variant_id, outcome FROM variant_monitoring WHERE variant_id = ANY(:variants)")


async def run_demo(settings: Settings, endpoints: Endpoints, *, seed: int, once: bool) -> None:
    """Simulate one day after another, or just one, printing each kill on stdout as it happens.

    Raises:
        Retry: Kafka or PostgreSQL went away for good.
    """
    here = settings.model_copy(
        update={"kafka_bootstrap_servers": endpoints.kafka, "kafka_security_protocol": "PLAINTEXT", "database_url": SecretStr(endpoints.database_url), "database_url_file": None}
    )
    put(f"Watch it live: {endpoints.web[0]}/")
    engine = create_engine(here)
    try:
        async with EventPublisher(here) as publisher, KillSubscriber(here) as kills:
            printing = asyncio.create_task(_print_kills(kills, engine))
            day = 1
            while True:
                living = asyncio.create_task(_live_through(day, seed + day - 1, publisher, engine))
                await _both(living, printing)
                if once:
                    printing.cancel()
                    await asyncio.gather(printing, return_exceptions=True)
                    return
                day += 1
    finally:
        await engine.dispose()


async def _both(living: asyncio.Task[None], printing: asyncio.Task[None]) -> None:
    """Wait for the day's end while kills are printed; whatever ends otherwise ends both."""
    try:
        await asyncio.wait({living, printing}, return_when=asyncio.FIRST_COMPLETED)
        if printing.done():
            printing.result()
        living.result()
    except BaseException:
        living.cancel()
        printing.cancel()
        await asyncio.gather(living, printing, return_exceptions=True)
        raise


async def _live_through(day: int, seed: int, publisher: EventPublisher, engine: AsyncEngine) -> None:
    variants = plan_day(seed, f"{datetime.now(UTC):%m%d%H%M%S}")
    await _schedule(engine, variants)
    minutes = (DAY_SECONDS + 60 * WINDOW_MINUTES + AFTER_DEADLINE_SECONDS) / 60
    tell(f"day {day}: {len(variants)} variants in {DAY_SECONDS:.0f} s, each watched for {WINDOW_MINUTES:g} min; over in {minutes:.0f} min (Ctrl-C ends the demo)")
    pipeline = Pipeline(publisher)
    start = time.time()
    for happening in happenings(variants, seed):
        ahead = start + happening.after - time.time()
        if ahead > 0:
            await asyncio.sleep(ahead)
        moment = format_moment(round((start + happening.after) * 1e6))
        await pipeline.send(happening.topic, {**happening.value, MOMENT_FIELD[happening.topic]: moment})
    await pipeline.drain()
    last_deadline = start + variants[-1].posted_after + 60 * WINDOW_MINUTES
    await asyncio.sleep(max(0.0, last_deadline + AFTER_DEADLINE_SECONDS - time.time()))
    await _sum_up(day, variants, engine)


async def _schedule(engine: AsyncEngine, variants: list[Variant]) -> None:
    """Fill the tables that other programs fill: the pool, and when each variant is to go out again."""
    now = datetime.now(UTC)
    posts = [
        {"variant_id": variant.variant_id, "scheduled_for": now + timedelta(hours=6 * (number + 1)), "status": "retry_scheduled" if number == 0 else "scheduled"}
        for variant in variants
        for number in range(variant.scheduled_posts)
    ]
    with explained():
        async with engine.begin() as connection:
            await connection.execute(insert(VariantPool), [{"variant_id": variant.variant_id, "persona_id": variant.persona_id, "status": "active"} for variant in variants])
            await connection.execute(insert(ScheduledPost), posts)


async def _print_kills(kills: KillSubscriber, engine: AsyncEngine) -> None:
    async with asyncio.TaskGroup() as group:
        async for kill in kills:
            group.create_task(_print_kill(kill, engine))


async def _print_kill(kill: VariantKilled, engine: AsyncEngine) -> None:
    """Print a kill once its cleanup is there, or without it if that takes long."""
    cancelled = None
    deadline = time.monotonic() + CLEANUP_SECONDS
    while cancelled is None and time.monotonic() < deadline:
        with suppress(SQLAlchemyError):
            async with engine.connect() as connection:
                if await connection.scalar(_IS_KILLED, {"variant": kill.variant_id}):
                    cancelled = await connection.scalar(_CLEANED, {"variant": kill.variant_id, "kill": str(kill.kill_id)})
        if cancelled is None:
            await asyncio.sleep(0.05)
    put(kill_line(kill, cancelled))


async def _sum_up(day: int, variants: list[Variant], engine: AsyncEngine) -> None:
    with explained():
        async with engine.connect() as connection:
            outcomes = {row.variant_id: row.outcome for row in await connection.execute(_OUTCOMES, {"variants": [variant.variant_id for variant in variants]})}
    ends = Counter((variant.quality, outcomes.get(variant.variant_id)) for variant in variants)
    parts = []
    for quality in ("good", "bad", "dead"):
        total = sum(count for (other, _), count in ends.items() if other == quality)
        parts.append(f"{ends[quality, 'killed']} of {total} {quality} variants killed")
    tell(f"day {day} is over: {', '.join(parts)}; the others were watched to the end")

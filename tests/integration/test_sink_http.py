"""A sink as others see it from outside: its health and metrics, and the calls that it makes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql as compose

from streams.local.kafka import KafkaServer
from streams.settings import Settings
from streams.store import migrate
from streams.topics import ensure_topics
from tests.integration.receiver import Receiver, Request
from tests.integration.system import System, fresh, running
from tests.integration.test_worker_starts import start
from tests.standstill import standing_still

SECRET = "a-secret-of-sixteen-characters-or-more"  # noqa: S105 - nobody else's


async def until_ready(system: System, *, is_ready: bool = True, seconds: float = 20) -> Mapping[str, Any]:
    """Wait until the sink says so; returns what it says."""
    async with asyncio.timeout(seconds):
        while True:
            status, told = await system.call(system.sink, "GET", "/ready")
            if (status == 200) == is_ready:
                return dict(told)
            await asyncio.sleep(0.1)


def logs_in(home: Path) -> str:
    """What all workers have said."""
    return "".join(log.read_text() for log in home.glob("*.log"))


async def kill(system: System, variant: str) -> None:
    """Let the rule kill it."""
    await system.post(variant)
    await system.interact(variant, "view", count=1_000)
    await system.interact(variant, "like", count=10)
    await system.until_ended([variant])


async def test_a_sink_shows_its_health_readiness_and_metrics(settings: Settings, database: str, tmp_path: Path):
    """503 while PostgreSQL takes nothing, with the part that is away; 200 again when it is back."""
    async with running(settings, tmp_path) as system:
        assert await system.call(system.sink, "GET", "/health") == (200, {"status": "ok"})
        told = await until_ready(system)
        assert told == {"status": "ready", "kafka": "up", "postgresql": "up", "rebalancing": False, "stopping": False, "held_variants": 0, "stalled_seconds": 0.0}
        await kill(system, fresh("v"))
        _, shown = await system.call(system.sink, "GET", "/metrics")
        assert 'performance_monitor_sink_records_total{result="killed"} 1.0' in shown
        assert "performance_monitor_postgresql_up 1.0" in shown
        topic = re.escape(system.topic("monitoring_record"))
        assert re.findall(rf'performance_monitor_consumer_lag{{partition="\d",topic="{topic}"}} (\S+)', shown) == ["0.0"] * settings.partitions
        status, problem = await system.call(system.sink, "GET", "/performance-monitor/active")
        assert (status, problem["status"]) == (404, 404)
        name = compose.Identifier(database.rsplit("/", 1)[1])
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(compose.SQL("ALTER DATABASE {} CONNECTION LIMIT 0").format(name))
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
            told = await until_ready(system, is_ready=False)
            assert (told["status"], told["kafka"], told["postgresql"]) == ("not ready", "up", "away")
            _, shown = await system.call(system.sink, "GET", "/metrics")
            assert "performance_monitor_postgresql_up 0.0" in shown
            assert await system.call(system.sink, "GET", "/health") == (200, {"status": "ok"})
            connection.execute(compose.SQL("ALTER DATABASE {} CONNECTION LIMIT -1").format(name))
        await until_ready(system)
        assert system.sink.stop() == 0


async def test_the_lag_grows_while_postgresql_is_away(settings: Settings, database: str, tmp_path: Path):
    """Though the sink then holds what it can and fetches no more: records that come one by one are all in its metric, and none when they are written."""

    async def lag() -> float:
        _, shown = await system.call(system.sink, "GET", "/metrics")
        return sum(float(records) for records in re.findall(r"performance_monitor_consumer_lag{[^}]*} (\S+)", shown))

    async def until_lag(records: int) -> None:
        async with asyncio.timeout(20):
            while await lag() != records:
                await asyncio.sleep(0.2)

    name, variant = compose.Identifier(database.rsplit("/", 1)[1]), fresh("v")
    async with running(settings, tmp_path) as system:
        await until_ready(system)
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(compose.SQL("ALTER DATABASE {} CONNECTION LIMIT 0").format(name))
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
            for number in range(40):
                await system.post(variant, post_id=f"post-{number}")
                await asyncio.sleep(0.1)
            await until_lag(40)
            connection.execute(compose.SQL("ALTER DATABASE {} CONNECTION LIMIT -1").format(name))
        await until_lag(0)


@pytest.mark.faults
async def test_a_sink_without_kafka_is_not_ready(settings: Settings, kafka: KafkaServer, tmp_path: Path):
    """Though it is alive; it goes on by itself when Kafka does."""
    async with running(settings, tmp_path) as system:
        await until_ready(system)
        assert kafka.child.pid is not None
        with standing_still(kafka.child.pid):
            told = await until_ready(system, is_ready=False)
            assert (told["kafka"], told["postgresql"]) == ("away", "up")
            assert await system.call(system.sink, "GET", "/health") == (200, {"status": "ok"})
        await until_ready(system, seconds=60)
        await kill(system, fresh("v"))


async def test_a_kill_is_told_also_when_the_sink_is_killed_in_mid_call(settings: Settings, tmp_path: Path):
    """The next one tells it again, with the same key and bytes. A revival is told too. No log has secret or path; posts of the killed variant do not stay runnable."""
    arrived = asyncio.Event()

    def behave(_: Request) -> str:
        arrived.set()
        return "slow" if len(receiver.requests) == 1 else "ok"

    outbound = {"EARLY_KILL_OUTBOUND_SECRET": SECRET, "EARLY_KILL_OUTBOUND_TIMEOUT_SECONDS": "2"}
    async with Receiver(behave, slow_seconds=1.0) as receiver, running(settings, tmp_path, EARLY_KILL_OUTBOUND_URL=f"{receiver.url}/hidden-path", **outbound) as system:
        variant = fresh("v")
        system.query("INSERT INTO variant_pool (variant_id, persona_id) VALUES (%s, 'persona')", variant)
        await kill(system, variant)
        await asyncio.wait_for(arrived.wait(), 5)
        system.sink.kill()
        system.query("UPDATE outbound_call SET leased_until = now()")  # as if 17 s had passed
        system.query("ALTER TABLE scheduled_post DISABLE TRIGGER USER")
        system.query("INSERT INTO scheduled_post (variant_id, scheduled_for) VALUES (%s, now() + interval '1 day')", variant)
        system.sink.start()
        await system.sink.ready()
        await system.until(lambda: system.query("SELECT 1 FROM outbound_call WHERE state = 'confirmed' AND attempts = 2"), 10)
        first, second = receiver.requests
        assert (first.body, first.head["idempotency-key"]) == (second.body, second.head["idempotency-key"])
        assert list(receiver.effects.values()) == [1]
        await system.until(lambda: system.query("SELECT 1 FROM scheduled_post WHERE status = 'cancelled'"), 10)
        status, _ = await system.call(system.monitors[0], "POST", f"/performance-monitor/revive/{variant}")
        assert status == 200
        await system.until(lambda: len(receiver.requests) == 3, 10)
        assert json.loads(receiver.requests[2].body)["event"] == "variant_revived"
        assert [row["status"] for row in system.query("SELECT status FROM scheduled_post")] == ["scheduled"]
        assert system.sink.stop() == 0
    logs = logs_in(tmp_path)
    assert "hidden-path" not in logs
    assert SECRET not in logs


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"EARLY_KILL_OUTBOUND_URL": "http://receiver.example/hidden", "EARLY_KILL_OUTBOUND_SECRET": SECRET}, "plain HTTP to another machine"),
        ({"EARLY_KILL_OUTBOUND_URL": "https://receiver.example/hidden"}, "needs a secret"),
        ({"EARLY_KILL_WEB_HOST": "0.0.0.0"}, "without tokens"),  # noqa: S104 - refused
    ],
)
async def test_a_sink_that_is_set_up_wrongly_says_so_and_ends(settings: Settings, tmp_path: Path, extra: dict[str, str], said: str):
    """In one line without secrets, before it takes a record."""
    migrate(settings)
    await ensure_topics(settings)
    ended = start(settings, "sink", tmp_path, **extra)
    assert ended.returncode == 1
    assert said in ended.stderr.strip().splitlines()[-1]
    assert not any(word in ended.stderr for word in ("Traceback", "hidden", SECRET))

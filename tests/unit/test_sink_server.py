"""What a sink shows of itself, on an aiohttp server of its own; its dependencies are scripted."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from models.errors import Stop
from streams.local.child import free_port
from streams.metrics import Metrics
from streams.settings import Settings
from streams.web import sink_server
from streams.web.readiness import Probe
from streams.web.sink_server import STALLED_SECONDS, SinkReadiness, SinkServer, SinkState, application

WELL = SinkState(is_assigned=True, is_stopping=False, is_waiting=False, held_variants=0, stalled_seconds=0.0)


async def report() -> tuple[bool, dict[str, Any]]:
    """All is well."""
    return True, {"status": "ready"}


@asynccontextmanager
async def served(settings: Settings, told: Callable[[], Awaitable[tuple[bool, dict[str, Any]]]] = report) -> AsyncIterator[Callable[..., Awaitable[tuple[int, str]]]]:
    """A server, and a way to ask it."""
    port = free_port()
    server = SinkServer(application(settings, Metrics(), told), "127.0.0.1", port)
    await server.start()

    async def ask(path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as client, client.request(method, f"http://127.0.0.1:{port}{path}", headers=headers) as answer:
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            return answer.status, await answer.text()

    try:
        await asyncio.sleep(0.05)
        yield ask
    finally:
        await server.stop()


async def test_without_tokens_this_machine_may_look():
    """And other web sites in a browser on it may not, under whatever name."""
    async with served(Settings()) as ask:
        assert [(await ask(path))[0] for path in ("/health", "/ready", "/metrics", "/nothing")] == [200, 200, 200, 404]
        assert (await ask("/health", "POST"))[0] == 405
        assert (await ask("/metrics", Host="attacker.example"))[0] == 421


async def test_with_tokens_all_but_health_asks_for_one():
    """One that may read is enough."""
    settings = Settings.model_validate({"read_tokens": ["reader"], "operate_tokens": ["operator"]})
    async with served(settings) as ask:
        assert [(await ask(path))[0] for path in ("/health", "/ready", "/metrics", "/nothing")] == [200, 401, 401, 401]
        for token in ("reader", "operator"):
            assert (await ask("/metrics", Authorization=f"Bearer {token}"))[0] == 200
        assert (await ask("/metrics", Authorization="Bearer wrong"))[0] == 401


async def test_a_report_that_fails_is_a_problem_without_insides():
    """500, and nothing of the error in it."""

    async def fail() -> tuple[bool, dict[str, Any]]:
        raise RuntimeError("hidden")

    async with served(Settings(), fail) as ask:
        status, text = await ask("/ready")
        assert status == 500
        assert "hidden" not in text


def test_other_machines_may_look_with_tokens_only():
    """As with the API."""
    with pytest.raises(Stop, match="without tokens"):
        application(Settings.model_validate({"web_host": "0.0.0.0"}), Metrics(), report)  # noqa: S104 - refused


@pytest.mark.parametrize(
    ("changes", "kafka", "postgresql", "is_ready"),
    [
        ({}, True, True, True),
        ({}, False, True, False),
        ({}, True, False, False),
        ({"is_assigned": False}, True, True, False),
        ({"is_stopping": True}, True, True, False),
        ({"is_waiting": True}, True, True, False),
        ({"held_variants": 3}, True, True, True),
        ({"stalled_seconds": STALLED_SECONDS - 0.1}, True, True, True),
        ({"stalled_seconds": STALLED_SECONDS}, True, True, False),
    ],
)
async def test_a_sink_is_ready_if_it_can_write(changes: dict[str, Any], kafka: bool, postgresql: bool, is_ready: bool):
    """Kafka, PostgreSQL, its partitions, and progress; locked rows of some variants are no reason not to be."""

    def probe(is_up: bool) -> Probe:
        async def ping() -> None:
            if not is_up:
                raise OSError("away")

        return Probe("it", ping)

    state = SinkState(**{name: changes.get(name, getattr(WELL, name)) for name in SinkState.__dataclass_fields__})
    metrics = Metrics()
    ready, told = await SinkReadiness(probe(kafka), probe(postgresql), lambda: state, metrics).report()
    assert (ready, told["status"]) == (is_ready, "ready" if is_ready else "not ready")
    assert f"performance_monitor_postgresql_up {float(postgresql and not state.is_waiting)}" in metrics.render().decode()


async def test_a_port_that_is_taken_is_waited_for(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    """The sink has other things to do than to end for that; one line says so."""
    monkeypatch.setattr(sink_server, "LISTEN_AGAIN_SECONDS", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = SinkServer(application(Settings(), Metrics(), report), "127.0.0.1", port)
        await server.start()
        await asyncio.sleep(0.1)
        assert [f"127.0.0.1:{port} cannot be had" in record.getMessage() for record in caplog.records] == [True]
        assert len(server._runner.sites) <= 1, "a try leaves nothing behind"
    await asyncio.sleep(0.1)
    async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:{port}/health") as answer:
        assert answer.status == 200
    assert len(server._runner.sites) == 1
    await server.stop()

"""The API on Faust's own web server, with and without a real Kafka."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import aiohttp
import faust

from streams.delivery import KafkaLog
from streams.kafka_access import kafka_client_options
from streams.local.child import free_port
from streams.local.kafka import KafkaServer
from streams.metrics import Metrics
from streams.settings import Settings
from streams.topics import ensure_topics
from streams.web.install import faust_web_options, install
from streams.web.memory import MemoryLive, MemoryPublish, MemoryStore, view
from streams.web.readiness import Probe

P = "/performance-monitor"


def make_app(settings: Settings, live: MemoryLive) -> faust.App:
    """A Faust app as the worker makes it, as far as the API is concerned."""
    app = faust.App(
        settings.app_id,
        broker=f"kafka://{settings.kafka_bootstrap_servers}",
        store="memory://",
        topic_partitions=settings.partitions,
        topic_replication_factor=1,
        broker_session_timeout=6,
        broker_heartbeat_interval=2,
        **faust_web_options(settings),
    )
    log = KafkaLog(kafka_client_options(settings), client_id="web-test")
    install(app, settings=settings, live=live, store=MemoryStore(), publish=MemoryPublish(), metrics=Metrics(), kafka_ping=log.ping)

    async def disconnect(_: object) -> None:
        await log.stop()

    app.web.web_app.on_cleanup.append(disconnect)
    return app


async def get(http: aiohttp.ClientSession, settings: Settings, path: str) -> tuple[int, dict]:
    """Status and JSON body."""
    async with http.get(f"http://127.0.0.1:{settings.web_port}{path}") as response:
        return response.status, await response.json(content_type=None)


async def test_the_api_serves_on_fausts_server_without_kafka(tmp_path: Path):
    """The web service alone: health answers, readiness says that Kafka is away, Faust's own pages are not there."""
    settings = Settings.model_validate({"kafka_bootstrap_servers": f"127.0.0.1:{free_port()}", "web_port": free_port()})
    live = MemoryLive()
    app = make_app(settings, live)
    app.conf.datadir = tmp_path
    await app.web.start()
    try:
        async with aiohttp.ClientSession() as http:
            assert await get(http, settings, "/health") == (200, {"status": "ok"})
            status, body = await get(http, settings, "/ready")
            assert (status, body["kafka"], body["postgresql"], body["rebalancing"]) == (503, "away", "up", True)
            for path in ("/table/", "/router/", "/stats/", "/graph/", "/performance/"):
                assert (await get(http, settings, path))[0] == 404
            async with http.get(f"http://127.0.0.1:{settings.web_port}/") as response:
                assert (response.status, response.content_type) == (200, "text/html")
    finally:
        begun = time.monotonic()
        await app.web.stop()
    assert time.monotonic() - begun < 5


async def test_a_worker_serves_from_its_first_moment_and_is_ready_once_recovered(kafka_settings: Settings, tmp_path: Path):
    """Up before the consumer has its partitions, not ready then; ready after table recovery; down within seconds."""
    settings = kafka_settings
    await ensure_topics(settings)
    live = MemoryLive()
    live.put(view("v1"))
    app = make_app(settings, live)
    app.conf.datadir = tmp_path
    topic = app.topic(settings.topic_prefix + "interaction", value_type=bytes, value_serializer="raw", partitions=settings.partitions)
    table = app.Table("engagement", default=int, partitions=settings.partitions)

    @app.agent(topic)
    async def count(stream: faust.StreamT[bytes]):
        async for _ in stream:
            table["n"] += 1

    app.finalize()
    seen: list[int] = []
    starting = asyncio.create_task(app.start())
    try:
        async with aiohttp.ClientSession() as http, asyncio.timeout(60):
            while not seen or seen[-1] != 200:
                try:
                    status, body = await get(http, settings, "/ready")
                    assert (await get(http, settings, "/health"))[0] == 200
                    seen.append(status)
                except aiohttp.ClientConnectionError:
                    assert not seen, "the API went away again"
                await asyncio.sleep(0.02)
            assert 503 in seen
            assert (body["kafka"], body["recovering"], body["rebalancing"]) == ("up", False, False)
            assert (await get(http, settings, f"{P}/status/v1"))[1]["live"] is True
    finally:
        begun = time.monotonic()
        await app.stop()
        await asyncio.wait([starting], timeout=10)
        starting.cancel()
    assert time.monotonic() - begun < 10


async def test_readiness_follows_kafka_as_it_goes_and_comes_back(kafka: KafkaServer, kafka_settings: Settings):
    """Gone is away within the probe's patience, back is up again."""
    log = KafkaLog(kafka_client_options(kafka_settings), client_id="web-test")
    probe = Probe("Kafka", log.ping, fresh_seconds=0)
    try:
        assert await probe.is_up()
        await asyncio.to_thread(kafka.stop)
        begun = time.monotonic()
        assert not await probe.is_up()
        assert time.monotonic() - begun < 5
        await asyncio.to_thread(kafka.start)
        await asyncio.to_thread(kafka.wait_ready, 60)
        async with asyncio.timeout(20):
            while not await probe.is_up():
                await asyncio.sleep(0.1)
    finally:
        await log.stop()

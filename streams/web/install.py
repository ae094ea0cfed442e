"""Puts the API on a Faust app (or any aiohttp application)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from aiohttp import web

from streams.clock import wall_clock
from streams.metrics import Metrics
from streams.settings import Settings
from streams.topics import partition_for
from streams.web.auth import Gate, check_bind
from streams.web.cluster import Cluster
from streams.web.commands import Commands
from streams.web.gatekeeping import middlewares, protect
from streams.web.inputs import BODY_LIMIT
from streams.web.lookups import Lookups
from streams.web.page import Page
from streams.web.peers import HttpPeers
from streams.web.ports import LiveSessions, PublishPort, StorePort
from streams.web.problems import keep_to_problems
from streams.web.readiness import Ping, Probe, Readiness
from streams.web.routes import add_routes
from streams.web.server import HANDLER_ARGUMENTS, BoundedWeb, WebFirst
from streams.web.services import SERVICES, Services
from streams.web.trail import Trail


def application_options() -> dict[str, Any]:
    """Return the keyword arguments of the aiohttp application that the API is mounted on."""
    return {"client_max_size": BODY_LIMIT, "handler_args": HANDLER_ARGUMENTS}


def faust_web_options(settings: Settings) -> dict[str, Any]:
    """Return the ``web_…`` arguments for ``faust.App``: where to listen, and Faust's own pages off.

    Raises:
        Stop: The API would listen beyond loopback without tokens.
    """
    check_bind(settings)
    return {
        "web_enabled": True,
        "web_bind": settings.web_host,
        "web_host": settings.web_host,
        "web_port": settings.web_port,
        "canonical_url": settings.advertised_url,
        "web_in_thread": False,
        "web_tables_enabled": False,
        "web_router_enabled": False,
        "web_stats_enabled": False,
        "web_graph_enabled": False,
        "web_metrics_enabled": False,
        "web_application_options": application_options(),
    }


def mount(
    web_app: web.Application,
    *,
    settings: Settings,
    live: LiveSessions,
    store: StorePort,
    publish: PublishPort,
    metrics: Metrics,
    kafka_ping: Ping,
    is_rebalancing: Callable[[], bool] = lambda: False,
    is_stopping: Callable[[], bool] = lambda: False,
    now_us: Callable[[], int] = wall_clock,
    start_seconds: float = 5.0,
    stop_seconds: float = 10.0,
    revive_seconds: float = 5.0,
) -> Services:
    """Put the API on an aiohttp application that has not started yet.

    Args:
        web_app: Made with ``application_options``.
        settings: Tokens, own address, partitions, defaults.
        live: This worker's sessions.
        store: The database.
        publish: Kafka.
        metrics: What ``/metrics`` shows; its ``sessions_active`` is taken from ``live``.
        kafka_ping: Returns if Kafka answers, raises if not.
        is_rebalancing: Whether partitions are being dealt out.
        is_stopping: Whether the worker is going down.
        now_us: The wall clock.
        start_seconds: Longest wait of a start.
        stop_seconds: Longest wait of a stop.
        revive_seconds: Longest wait of a revival for the kill to be recorded.

    Raises:
        Stop: The API would listen beyond loopback without tokens.
    """
    check_bind(settings)
    gate, peers, trail = Gate(settings), HttpPeers(), Trail(store)
    cluster = Cluster(live, peers, settings.advertised_url, partial(partition_for, partitions=settings.partitions), settings.partitions)
    lookups = Lookups(cluster, store, now_us)

    async def ping_postgresql() -> None:
        try:
            await store.ping()
        except BaseException:
            metrics.postgresql(is_up=False)
            raise
        metrics.postgresql(is_up=True)

    services = Services(
        gate=gate,
        cluster=cluster,
        lookups=lookups,
        commands=Commands(cluster, lookups, store, publish, trail, start_seconds=start_seconds, stop_seconds=stop_seconds, revive_seconds=revive_seconds),
        store=store,
        trail=trail,
        readiness=Readiness(Probe("Kafka", kafka_ping), Probe("PostgreSQL", ping_postgresql), live, is_rebalancing, is_stopping),
        metrics=metrics,
        defaults=settings.defaults,
        page=Page(),
        now_us=now_us,
    )
    metrics.watch_active(live.active_count)
    web_app[SERVICES] = services
    web_app.middlewares.extend(middlewares(settings, gate))
    add_routes(web_app)
    web_app.on_response_prepare.append(keep_to_problems)
    web_app.on_response_prepare.append(protect)

    async def go_down(_: web.Application) -> None:
        services.commands.close()

    async def clean_up(_: web.Application) -> None:
        await trail.drain()
        await peers.close()

    web_app.on_shutdown.append(go_down)
    web_app.on_cleanup.append(clean_up)
    return services


def install(
    app: Any,
    *,
    settings: Settings,
    live: LiveSessions,
    store: StorePort,
    publish: PublishPort,
    metrics: Metrics,
    kafka_ping: Ping,
    now_us: Callable[[], int] = wall_clock,
) -> Services:
    """Put the API on a Faust app that was made with ``faust_web_options(settings)`` and has not started.

    The web server starts before Kafka's clients and serves while tables are recovered; ``/ready`` says 503 meanwhile. Arguments and
    errors as ``mount``.
    """
    app.boot_strategy = WebFirst(app)
    app.web = BoundedWeb(app)

    def is_rebalancing() -> bool:
        return bool(app.rebalancing or app.in_recovery or not app.tables.recovery.completed.is_set())

    return mount(
        app.web.web_app,
        settings=settings,
        live=live,
        store=store,
        publish=publish,
        metrics=metrics,
        kafka_ping=kafka_ping,
        is_rebalancing=is_rebalancing,
        is_stopping=lambda: bool(app.should_stop),
        now_us=now_us,
    )

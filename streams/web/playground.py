"""Workers that share a world in memory and serve the real API over real HTTP: for tests, and for working on the page.

``python -m streams.web.playground 6066`` serves the page with sessions that come and go.
"""

from __future__ import annotations

import asyncio
import random
import sys
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from models.errors import Retry
from models.events import VariantPosted, posting
from models.moments import SECOND
from models.policy import Defaults
from models.views import SessionView
from streams.addresses import base_url
from streams.clock import wall_clock
from streams.local.child import LOOPBACK, free_port
from streams.metrics import Metrics
from streams.settings import Settings
from streams.topics import partition_for
from streams.web.install import application_options, mount
from streams.web.memory import MemoryLive, MemoryPublish, MemoryStore, ended, recorded, view
from streams.web.server import Runner
from streams.web.services import Services

PARTITIONS = 4


@dataclass
class Worker:
    """One worker: its port, its part of the world, and its server while it runs."""

    port: int
    live: MemoryLive
    metrics: Metrics = field(default_factory=Metrics)
    runner: Runner | None = None
    services: Services | None = None
    is_rebalancing: bool = False

    @property
    def url(self) -> str:
        """The base URL of its API."""
        return base_url(LOOPBACK, self.port)


class World:
    """Some workers, one database, one Kafka. Use it as an async context manager.

    Args:
        workers: How many; partition p belongs to worker p modulo that.
        delay_seconds: How long the monitor takes to see what was published.
        is_deaf: Whether the monitor sees nothing of it.
        ports: Where the workers listen; free ports if None.
        limits: More keyword arguments of ``mount``.
        settings: Settings that differ from the defaults.
    """

    def __init__(
        self, workers: int = 1, *, delay_seconds: float = 0.0, is_deaf: bool = False, ports: list[int] | None = None, limits: dict[str, Any] | None = None, **settings: Any
    ) -> None:
        self.store = MemoryStore()
        self.publish = MemoryPublish(self._on_posted, self._on_stop)
        self.is_kafka_away = False
        self.delay_seconds = delay_seconds
        self.is_deaf = is_deaf
        self._limits = limits or {}
        self._settings = settings
        self.workers = [
            Worker(port, MemoryLive([partition for partition in range(PARTITIONS) if partition % workers == index]))
            for index, port in enumerate(ports or [free_port() for _ in range(workers)])
        ]
        for worker in self.workers:
            worker.live.worker_urls = [other.url for other in self.workers]
            worker.live.owner_urls = {partition: self.workers[partition % workers].url for partition in range(PARTITIONS)}

    @property
    def url(self) -> str:
        """The base URL of the first worker."""
        return self.workers[0].url

    async def __aenter__(self) -> Self:
        """Start all workers."""
        for worker in self.workers:
            await self.start(worker)
        return self

    async def __aexit__(self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None) -> None:
        """Stop all workers."""
        for worker in self.workers:
            await self.stop(worker)

    async def start(self, worker: Worker) -> None:
        """Let a worker serve."""
        settings = Settings.model_validate({"web_port": worker.port, "partitions": PARTITIONS, **self._settings})
        app = web.Application(**application_options())
        worker.services = mount(
            app,
            settings=settings,
            live=worker.live,
            store=self.store,
            publish=self.publish,
            metrics=worker.metrics,
            kafka_ping=self._ping_kafka,
            is_rebalancing=lambda: worker.is_rebalancing,
            **self._limits,
        )
        worker.runner = Runner(app, access_log=None, shutdown_timeout=0.2)
        await worker.runner.setup()
        await web.TCPSite(worker.runner, LOOPBACK, worker.port).start()

    async def stop(self, worker: Worker) -> None:
        """Take a worker's server away; nobody answers at its address then."""
        if worker.runner is not None:
            await worker.runner.cleanup()
            worker.runner = None

    def owner(self, variant_id: str) -> Worker:
        """Return the worker that owns the variant's partition."""
        return self.workers[partition_for(variant_id, PARTITIONS) % len(self.workers)]

    def put(self, variant_id: str, post_id: str = "post", **changes: Any) -> SessionView:
        """Let the owner hold a session, and return it."""
        session = view(variant_id, post_id, partition=partition_for(variant_id, PARTITIONS), **changes)
        self.owner(variant_id).live.put(session)
        return session

    async def _ping_kafka(self) -> None:
        if self.is_kafka_away:
            raise Retry("no broker answers")

    def _later(self, act: Any, *arguments: object) -> None:
        if not self.is_deaf:
            asyncio.get_running_loop().call_later(self.delay_seconds, act, *arguments)

    def _on_posted(self, message: dict[str, Any], offset: int) -> None:
        self._later(self._begin, message, offset)

    def _begin(self, message: dict[str, Any], offset: int) -> None:
        now_us = wall_clock()
        posted = posting(VariantPosted.model_validate(message), now_us, Defaults())
        policy = posted.policy
        if any(known.post_id == posted.post_id for known in self.owner(posted.variant_id).live.sessions_of(posted.variant_id)):
            return  # another post of the same session changes nothing
        self.put(
            posted.variant_id,
            posted.post_id,
            persona_id=posted.persona_id,
            started_at_us=posted.posted_at,
            deadline_us=posted.posted_at + policy.timeout,
            expected_engagement_rate=policy.expected_engagement_rate,
            kill_threshold=policy.kill_threshold,
            kill_rate=policy.kill_rate,
            min_interactions=policy.min_interactions,
            timeout_minutes=policy.timeout_minutes,
            posted_offset=offset,
        )

    def _on_stop(self, variant_id: str, post_id: str | None) -> None:
        self._later(self._end, variant_id, post_id)

    def _end(self, variant_id: str, post_id: str | None) -> None:
        live = self.owner(variant_id).live
        for session in live.sessions_of(variant_id):
            if session.is_active and post_id in (None, session.post_id):
                live.put(ended(session, "stopped", "Manually stopped", wall_clock()))


async def play(port: int, seed: int = 1) -> None:
    """Serve the page with sessions that come and go, until cancelled."""
    rng = random.Random(seed)  # noqa: S311 - for show
    async with World(ports=[port]) as world:
        live = world.workers[0].live
        number = 0
        while True:
            now_us = wall_clock()
            if live.active_count() < 12:  # noqa: PLR2004 - a page full
                number += 1
                minutes = rng.choice([0.5, 1, 2, 10])
                world.put(
                    f"variant-{number}",
                    f"post-{number}",
                    persona_id=rng.choice(["ada", "bo", "cy"]),
                    started_at_us=now_us,
                    deadline_us=now_us + round(minutes * 60 * SECOND),
                    timeout_minutes=minutes,
                )
            for session in live.active(500, None):
                _go_on(world, session, now_us, rng)
            await asyncio.sleep(0.5)


def _go_on(world: World, session: SessionView, now_us: int, rng: random.Random) -> None:
    views = session.view_count + rng.randrange(40)
    likes = session.interaction_count + (rng.random() < (0.3 + 0.7 * (hash(session.variant_id) % 3) / 2))
    session = replace(session, view_count=views, interaction_count=likes, engagement_rate=likes / views if views else None, counts={**session.counts, "view": views, "like": likes})
    if likes >= session.min_interactions and views and likes / views < session.kill_rate:
        session = ended(session, "killed", "Below 50% of expected engagement rate", now_us)
    elif now_us >= session.deadline_us:
        session = ended(session, "timed_out", f"{session.timeout_minutes:.6g}-minute monitoring window expired", session.deadline_us)
    world.owner(session.variant_id).live.put(session)
    world.store.put(recorded(session, now_us))


if __name__ == "__main__":
    asyncio.run(play(int(sys.argv[1])))

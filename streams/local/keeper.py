"""Starts the parts in their order, starts again what dies, and stops them in the opposite order."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.errors import EarlyKillError, Stop
from streams.local.child import bound_log
from streams.local.endpoints import FILE, Endpoints
from streams.local.parts import Part, Parts
from streams.local.worker import WorkerProcess
from streams.topics import ensure_topics

START_SECONDS = 120.0
NOTICE_SECONDS = 0.2
STEADY_SECONDS = 5.0
AGAIN_SECONDS = 1.0  # pause before a part that did not live for STEADY_SECONDS is started again
LOG_CHECK_SECONDS = 5.0


class Keeper:
    """Keeps the parts of one data directory running.

    Args:
        parts: What to keep.
        data_dir: Gets ``endpoints.json`` while all is ready.
        say: Tells people a line.
    """

    def __init__(self, parts: Parts, data_dir: Path, say: Callable[[str], None]) -> None:
        self._parts = parts
        self._file = data_dir / FILE
        self._file.unlink(missing_ok=True)
        self._say = say
        self._is_ready = False
        self._pids: dict[str, int] = {}
        self._is_stopping = asyncio.Event()
        self._watches: list[asyncio.Task[None]] = []
        self._running: set[asyncio.Future[Any]] = set()

    async def start(self) -> Endpoints:
        """Start everything and wait until all of it is ready.

        Raises:
            Stop: Something cannot be started; ``stop`` is to be called all the same.
            Retry: As ``Stop``, but it may work another time.
        """
        began = time.monotonic()
        await self._together(self._start_kafka(), self._start_postgres())
        self._say(f"Kafka, PostgreSQL, topics and schema are ready after {time.monotonic() - began:.1f} s")
        for worker in self._parts.workers:
            await self._blocking(worker.start)
        self._watches = [asyncio.ensure_future(self._watch(part)) for part in self._parts.all]
        await self._together(*(self._until_ready(worker) for worker in self._parts.workers))
        self._is_ready = True
        self._say(f"monitors ({len(self._parts.monitors)}) and sink are ready after {time.monotonic() - began:.1f} s; the sink's metrics: {self._parts.sink.metrics_url}")
        return self._write_endpoints()

    async def stop(self) -> None:
        """Stop the workers, so that they can finish what they have in hand; then what they stand on."""
        self._is_stopping.set()
        self._file.unlink(missing_ok=True)
        await asyncio.gather(*self._watches, return_exceptions=True)
        await asyncio.gather(*(asyncio.to_thread(worker.stop) for worker in self._parts.workers))
        while True:
            await asyncio.gather(*(asyncio.to_thread(part.stop) for part in self._parts.all))
            if not self._running:
                return
            await asyncio.wait(self._running, timeout=NOTICE_SECONDS)  # a start that was given up is still under way in its thread

    async def _start_kafka(self) -> None:
        await self._blocking(self._parts.kafka.start)
        await self._blocking(self._parts.kafka.wait_ready)
        await ensure_topics(self._parts.settings)

    async def _start_postgres(self) -> None:
        from streams.store import migrate

        await self._blocking(self._parts.postgres.start)
        await self._blocking(self._parts.postgres.wait_ready)
        await self._blocking(lambda: migrate(self._parts.settings))

    async def _until_ready(self, worker: WorkerProcess) -> None:
        child = worker.child
        until = time.monotonic() + START_SECONDS
        while not await self._blocking(worker.is_ready):
            if _failed(worker):
                raise Stop(f"{child.name} ended at its start (exit code {child.exit_code}), see {child.log}: {child.last_words(1)}")
            if time.monotonic() > until:
                raise Stop(f"{child.name} is not ready after {START_SECONDS:g} s, see {child.log}: {child.last_words(1)}")
            await asyncio.sleep(NOTICE_SECONDS / 2)

    async def _watch(self, part: Part) -> None:
        """Start a part again whenever it is gone; keep its log in bounds."""
        started_at = looked_at = time.monotonic()
        while not await self._is_stopped_within(NOTICE_SECONDS):
            if time.monotonic() - looked_at > LOG_CHECK_SECONDS:
                looked_at = time.monotonic()
                await asyncio.to_thread(bound_log, part.child.log)
            if part.child.pid is not None:
                continue
            if _failed(part) and not self._is_ready:
                return  # whoever waits for it to be ready tells why
            if time.monotonic() - started_at < STEADY_SECONDS and await self._is_stopped_within(AGAIN_SECONDS):
                return
            started_at = time.monotonic()
            await self._start_again(part)

    async def _start_again(self, part: Part) -> None:
        ended = part.child.exit_code
        try:
            await self._blocking(part.start)
        except (EarlyKillError, OSError) as error:
            self._say(f"{part.child.name} does not start again: {error}")
        else:
            self._say(f"{part.child.name} ended (exit code {ended}) and was started again; its log: {part.child.log}")
        if self._is_ready and not self._is_stopping.is_set():
            try:
                self._write_endpoints()
            except OSError as error:  # the part runs all the same, and is to be watched
                self._say(f"{self._file} cannot be written, and does not tell the new pid of {part.child.name}: {error}")

    def _write_endpoints(self) -> Endpoints:
        endpoints = self._parts.endpoints()
        self._pids.update(endpoints.pids)
        endpoints = replace(endpoints, pids=dict(self._pids))  # of several that died at once, those to come have the pid they had
        endpoints.write(self._file.parent)
        return endpoints

    async def _together(self, *steps: Awaitable[None]) -> None:
        """Do all of them at once; the first error ends the wait for the others."""
        tasks = [asyncio.ensure_future(step) for step in steps]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _blocking(self, act: Callable[[], Any]) -> Any:
        """Do ``act`` in a thread, remembered until it is done even when nobody waits for it any more."""
        future = asyncio.get_running_loop().run_in_executor(None, act)
        self._running.add(future)
        future.add_done_callback(self._forget)
        return await asyncio.shield(future)

    def _forget(self, future: asyncio.Future[Any]) -> None:
        self._running.discard(future)
        if not future.cancelled():
            future.exception()  # looked at, so that asyncio does not complain that nobody did

    async def _is_stopped_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._is_stopping.wait(), seconds)
        return self._is_stopping.is_set()


def _failed(part: Part) -> bool:
    """Whether it ended by itself with an error, not by a signal: then it has said why."""
    return (part.child.exit_code or 0) > 0

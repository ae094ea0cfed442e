"""`early-kill up`: Kafka, PostgreSQL, topics, schema and workers on this machine, kept running until somebody says stop."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from models.errors import Stop
from streams.local.child import Child
from streams.local.endpoints import Endpoints
from streams.local.keeper import Keeper
from streams.local.parts import Parts, UpOptions
from streams.local.worker import marker

__all__ = ["Endpoints", "UpOptions", "platform", "run_up"]

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def say_on_stderr(line: str) -> None:
    """Tell people, who may have closed the pipe."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


async def run_up(options: UpOptions, on_ready: Callable[[Endpoints], Awaitable[None]] | None = None, say: Callable[[str], None] = say_on_stderr) -> None:
    """Start everything, do ``on_ready`` while it runs, stop everything.

    Ends when ``on_ready`` does (None: it prints the endpoints on stdout and waits), or at SIGINT, SIGTERM or SIGHUP; all three are a
    normal end. To be called in the main thread's event loop.

    Raises:
        Stop: Something cannot be started; the message is for people.
        Retry: As ``Stop``, but it may work another time.
    """
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in ENDING:
        loop.add_signal_handler(number, told.set)
    body = asyncio.ensure_future(_run(options, on_ready or _print_and_wait, say))
    waiting = asyncio.ensure_future(told.wait())
    try:
        await asyncio.wait({body, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not body.done():
            say("stopping")
            body.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await body
    finally:
        waiting.cancel()
        for number in ENDING:
            loop.remove_signal_handler(number)


@asynccontextmanager
async def platform(options: UpOptions, say: Callable[[str], None] = say_on_stderr) -> AsyncIterator[Endpoints]:
    """Everything, ready, for the time of the context; parts that die meanwhile are started again.

    Raises:
        Stop: Something cannot be started, or another `early-kill up` uses the data directory.
        Retry: As ``Stop``, but it may work another time.
    """
    try:
        options.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Stop(f"cannot use {options.data_dir} as data directory: {error.strerror}") from None
    data_dir = options.data_dir.resolve()
    with only_one(data_dir):
        parts = Parts.of(options, data_dir)
        keeper = Keeper(parts, data_dir, say)
        _stop_orphans(parts, data_dir / "run")
        parts.require_ports()
        try:
            yield await keeper.start()
        finally:
            await asyncio.shield(keeper.stop())


async def _run(options: UpOptions, on_ready: Callable[[Endpoints], Awaitable[None]], say: Callable[[str], None]) -> None:
    async with platform(options, say) as endpoints:
        await on_ready(endpoints)


async def _print_and_wait(endpoints: Endpoints) -> None:
    sys.stdout.write(f"{endpoints.to_json()}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


@contextmanager
def only_one(data_dir: Path) -> Iterator[None]:
    """Hold the data directory's lock; the kernel lets go of it when this process dies, however."""
    with (data_dir / "up.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise Stop(f"another `early-kill up` (pid {lock.read().strip() or 'unknown'}) uses {data_dir}") from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def _stop_orphans(parts: Parts, run_dir: Path) -> None:
    """End what a killed `early-kill up` left running, also workers that this one won't start, before ports are looked at."""
    for pid_file in sorted(run_dir.glob("*.pid")):
        Child(pid_file.stem, pid_file, run_dir / f"{pid_file.stem}.log", marker(run_dir, pid_file.stem)).stop_orphan()
    parts.kafka.stop_orphan()
    parts.postgres.stop_orphan()

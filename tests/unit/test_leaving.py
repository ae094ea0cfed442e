"""A worker that is told to stop."""

from __future__ import annotations

import asyncio
import signal
from types import SimpleNamespace
from typing import Any

import faust
import pytest

from streams import app, monitor_worker
from streams.app import LEAVE_SECONDS, Worker


def test_a_signal_sets_the_last_moment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draining begins at once. Should it never end, a thread of its own ends the process: with exit code 0, for nothing is lost by it."""
    seen: list[Any] = []

    class Timer:
        daemon = False

        def __init__(self, seconds: float, leave: Any) -> None:
            self.seconds, self.leave = seconds, leave

        def start(self) -> None:
            seen.append((self.seconds, self.daemon))
            self.leave()

    monkeypatch.setattr(app, "threading", SimpleNamespace(Timer=Timer))
    monkeypatch.setattr(app.os, "_exit", seen.append)
    monkeypatch.setattr(app.logging, "shutdown", lambda: seen.append("shutdown"))
    monkeypatch.setattr(faust.Worker, "_schedule_shutdown", lambda _self, number: seen.append(number))
    Worker.__new__(Worker)._schedule_shutdown(signal.SIGTERM)
    assert seen == [(LEAVE_SECONDS, True), "shutdown", 0, signal.SIGTERM]
    assert LEAVE_SECONDS < 10


@pytest.mark.parametrize("is_leaving", [True, False])
async def test_what_fails_as_the_worker_leaves_is_no_error(monkeypatch: pytest.MonkeyPatch, *, is_leaving: bool) -> None:
    """What it was told to stop in the middle of may be gone: seen with a monitor that was told so as it made sure of its changelogs."""
    failed: list[BaseException] = []
    error = asyncio.InvalidStateError("invalid state")

    async def start(_worker: Worker) -> None:
        raise error

    monkeypatch.setattr(faust.Worker, "start", start)
    worker = Worker.__new__(Worker)
    worker._fail = failed.append  # type: ignore[assignment]
    worker._signal_stop_time = 1.0 if is_leaving else None
    await worker.start()
    worker._crash(error)
    assert failed == ([] if is_leaving else [error, error])


@pytest.mark.parametrize("is_leaving", [True, False])
def test_a_takeover_that_fails_as_the_worker_leaves_is_no_error(*, is_leaving: bool) -> None:
    """Its consumer is gone already: seen with monitors that came and went while Kafka stood still."""
    failed: list[BaseException] = []
    error = RuntimeError("Event loop is closed")
    monitor_worker._fail_unless_leaving(SimpleNamespace(should_stop=is_leaving), failed.append, error)  # type: ignore[arg-type]
    assert failed == ([] if is_leaving else [error])

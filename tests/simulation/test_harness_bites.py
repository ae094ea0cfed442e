"""A harness that finds nothing proves nothing: with any one of the safeguards taken out, it has to find a violation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

import streams.monitoring
from models import duplicates, monitor
from models.errors import Stop
from models.monitor import PartitionMonitor
from models.session import Outcome, Session
from models.state import decode_session
from models.waiting import Waiter, Waiting
from streams.monitoring import Monitoring
from streams.partition import PartitionWorker
from tests.simulation.broker import SimulatedLog
from tests.simulation.history import Shape
from tests.simulation.simulation import Violation, simulate

SEEDS = 400

Patch = pytest.MonkeyPatch


def without_offset_guard(patch: Patch) -> None:
    """Records that are delivered again are folded again."""

    def decode(value: bytes, segment: Callable[[Session, int], bytes | None]) -> Session:
        session = decode_session(value, segment)
        session.applied = -1
        return session

    patch.setattr(streams.monitoring, "decode_session", decode)


def without_repetition(patch: Patch) -> None:
    """What an earlier process may not have told is not told again."""
    restore = PartitionMonitor.restore

    def forgetful(self: PartitionMonitor, sessions: Iterable[Session], waiters: Iterable[Waiter]) -> None:
        restore(self, sessions, waiters)
        self.emissions.clear()

    patch.setattr(PartitionMonitor, "restore", forgetful)


def without_waiting_for_the_changelog(patch: Patch) -> None:
    """Records are done while the states they have changed are still on their way."""

    class Hasty:
        def __init__(self, log: SimulatedLog) -> None:
            self.send, self.send_all = log.send, log.send_all

        async def delivered(self, _sent: Any) -> bool:
            return True

    flush = PartitionWorker.flush

    async def hasty_flush(self: PartitionWorker) -> None:
        log, self._log = self._log, Hasty(self._log)  # type: ignore[arg-type]
        try:
            await flush(self)
        finally:
            self._log = log

    patch.setattr(PartitionWorker, "flush", hasty_flush)


def without_latch(patch: Patch) -> None:
    """Stops, and ends that depend on the order of two topics, are told before they are durable."""
    patch.setattr(Session, "needs_latch", property(lambda _self: False))


def without_latch_for_time_outs(patch: Patch) -> None:
    """A stop that is read again after a crash comes before the time-out that was told."""
    patch.setattr(Session, "needs_latch", property(lambda self: self.by_order or self.end.outcome is Outcome.STOPPED))


def without_order_of_topics(patch: Patch) -> None:
    """Stops do not wait for the interactions, nor these for the posts."""

    def may_fetch(self: Monitoring, tp: Any) -> bool:
        return tp.partition in self._owned

    patch.setattr(Monitoring, "may_fetch", may_fetch)


def without_waiting_for_the_backlog(patch: Patch) -> None:
    """Deadlines pass as soon as the clock says so."""
    tick = PartitionMonitor.tick

    def impatient(self: PartitionMonitor, _read_through: int, now: int, limit: int = 1_000) -> bool:
        return tick(self, now, now, limit)

    patch.setattr(PartitionMonitor, "tick", impatient)


def without_duplicate_ids(patch: Patch) -> None:
    """Event ids that are durable in segments are forgotten."""
    patch.setattr(duplicates.EventIds, "reserve", lambda _self, _event_id: True)


def without_segments_of_waiters(patch: Patch) -> None:
    """Waiting records are done without being durable."""
    patch.setattr(Waiting, "changed_segments", lambda _self: [])


@pytest.mark.parametrize(
    ("take_out", "shape"),
    [
        (without_offset_guard, Shape()),
        (without_repetition, Shape()),
        (without_waiting_for_the_changelog, Shape()),
        (without_latch, Shape(stops=True, anonymous=0.4)),
        (without_latch_for_time_outs, Shape(stops=True)),
        (without_order_of_topics, Shape(stops=True)),
        (without_waiting_for_the_backlog, Shape()),
        (without_duplicate_ids, Shape()),
        (without_segments_of_waiters, Shape()),
    ],
)
@pytest.mark.timeout(300)
def test_the_simulation_fails_without(monkeypatch: Patch, take_out: Callable[[Patch], None], shape: Shape) -> None:
    """Each safeguard is one that the simulation misses."""
    monkeypatch.setattr(duplicates, "TAIL", 4)
    monkeypatch.setattr(duplicates, "SEGMENT_LIMIT", 8)
    monkeypatch.setattr(monitor, "FUTURE_LIMIT", 1_000_000)
    take_out(monkeypatch)
    for seed in range(SEEDS):
        try:
            simulate(seed, shape)
        except (Violation, Stop):
            return
    pytest.fail(f"{take_out.__doc__} And nobody has noticed within {SEEDS} seeds.")

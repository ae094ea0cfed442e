"""A worker that stood still ends before it writes."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from models.errors import Stop
from streams.watchdog import Watchdog


class Stood(Exception):
    """Raised by the test's ``fail``."""


def fail(error: BaseException) -> None:
    raise Stood from error


@pytest.mark.parametrize(("gap", "is_too_long"), [(6.0, False), (6.1, True)])
@pytest.mark.parametrize("act", ["check", "beat"])
def test_a_gap_longer_than_the_limit_fails(gap: float, is_too_long: bool, act: str):
    """Exactly the limit is still fine; a late beat must not hide the gap."""
    now = [100.0]
    watchdog = Watchdog(6.0, fail, clock=lambda: now[0])
    watchdog.beat()
    now[0] += gap
    if is_too_long:
        with pytest.raises(Stood) as caught:
            getattr(watchdog, act)()
        assert isinstance(caught.value.__cause__, Stop)
    else:
        getattr(watchdog, act)()


def test_nothing_is_late_before_the_first_beat():
    """A worker that restores for a minute has written nothing yet."""
    now = [0.0]
    watchdog = Watchdog(6.0, fail, clock=lambda: now[0])
    now[0] = 60.0
    watchdog.check()
    watchdog.beat()
    watchdog.check()


def test_a_machine_that_was_suspended_has_stood_still(monkeypatch: pytest.MonkeyPatch):
    """Only one of Linux's clocks goes on meanwhile; elsewhere there may be none."""
    clocks = {"boot": 100.0, "monotonic": 100.0}
    monkeypatch.setattr(time, "CLOCK_BOOTTIME", "boot", raising=False)
    monkeypatch.setattr(time, "clock_gettime", clocks.__getitem__)
    monkeypatch.setattr(time, "monotonic", lambda: clocks["monotonic"])
    watchdog = Watchdog(6.0, fail)
    watchdog.beat()
    clocks["boot"] += 6.1
    with pytest.raises(Stood):
        watchdog.check()
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    watchdog.beat()
    clocks["monotonic"] += 6.1
    with pytest.raises(Stood):
        watchdog.check()


async def test_an_event_loop_that_stands_still_is_noticed_while_it_does():
    """By a thread, for nothing on the loop can tell; until then the loop beats by itself."""
    noticed = threading.Event()
    watchdog = Watchdog(0.6, lambda _error: noticed.set())
    watchdog.start()
    await asyncio.sleep(1.2)
    assert not noticed.is_set()
    time.sleep(1.2)  # noqa: ASYNC251 - that is what must not happen
    assert noticed.is_set()

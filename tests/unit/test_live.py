"""What a worker shows of the sessions that it holds."""

from __future__ import annotations

from typing import Any

import pytest

from models.events import Posting, Stop
from models.moments import SECOND
from models.monitor import PartitionMonitor
from models.policy import Policy
from models.session import Session
from models.views import Place, place_of
from streams.live import Live

T = 1_700_000_000_000_000


def monitors(partitions: int, sessions: int, active: int) -> dict[int, PartitionMonitor]:
    """Partitions with so many sessions each, two of which start at every moment; all but the ``active`` last ones have ended, for everybody to know."""
    made = {partition: PartitionMonitor(partition) for partition in range(partitions)}
    for monitor in made.values():
        for number in range(sessions):
            variant = f"v{monitor.partition} {number}"
            monitor.post(Posting(variant, "p", "q", Policy(), T + number // 2 * SECOND), number, T, b"", b"", T)
            if number < sessions - active:
                monitor.stop(Stop(variant), number, T, T)
                monitor.latched(monitor.sessions.of(variant)[0])
    return made


def live(held: dict[int, PartitionMonitor]) -> Live:
    """Without the application, which knows of the others only."""
    nobody: Any = None
    return Live(nobody, lambda: held, "variant_posted", "engagement")


def pages(shown: Live, limit: int) -> list[Place]:
    """All that is active, page by page."""
    places: list[Place] = []
    while page := shown.active(limit, places[-1] if places else None):
        assert len(page) <= limit
        assert all(view.is_active for view in page)
        places += [place_of(view) for view in page]
    return places


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_pages_of_active_sessions_hold_each_once_newest_first(limit: int):
    """Also where many start at one moment; an end that is not durable yet is one that nobody knows of."""
    held = monitors(3, 10, 4)
    held[0].stop(Stop("v0 9"), 10, T, T)
    expected = [place_of(one.view(partition)) for partition, monitor in held.items() for one in monitor.sessions if one.told_end is None]
    assert len(expected) == 12
    assert pages(live(held), limit) == sorted(expected, reverse=True)


def test_a_list_of_active_sessions_looks_at_no_others(monkeypatch: pytest.MonkeyPatch):
    """A day of ended ones is held as well, and the page asks every two seconds."""
    shown = live(monitors(2, 500, 3))
    looked_at: set[Session] = set()

    def watched(name: str) -> property:
        is_there = getattr(Session, name).__get__

        def look(session: Session) -> Any:
            looked_at.add(session)
            return is_there(session)

        return property(look)

    for name in ("posted_at", "end", "told_end", "is_end_durable"):
        monkeypatch.setattr(Session, name, watched(name))
    assert len(shown.active(100, None)) == 6
    assert len(looked_at) == 6

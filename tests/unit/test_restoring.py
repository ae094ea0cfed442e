"""What recovery has read of a partition's changelogs, on its way into a monitor."""

from __future__ import annotations

import asyncio
import json
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from models.engagement import Engagement
from models.errors import Stop
from models.moments import SECOND
from models.monitor import PartitionMonitor
from models.policy import Policy
from models.session import Session
from models.state import encode_session, encode_waiters
from models.waiting import Waiter
from streams.changelog import Changelogs
from streams.restoring import YIELD_EVERY, changelogs_read_back, restore
from streams.tables import Recovered, StateTable


class Found(StateTable):
    """A table of which recovery has read this."""

    changelog_topic_name = "changelog"

    def __init__(self, found: Recovered) -> None:
        self.found = found

    def take(self, _partition: int) -> Recovered:
        return self.found


@pytest.mark.parametrize(("start", "is_taken"), [(2, True), (1, True), (3, False), (None, False)])
def test_state_is_taken_over_only_if_it_was_read_from_its_beginning(start: int | None, *, is_taken: bool) -> None:
    """Half a state would forget what has been counted, and nobody be told; the worker starts anew instead."""
    whole, log = Found(Recovered({}, start=0, end=9)), SimpleNamespace()
    tables: Any = (whole, Found(Recovered({}, start=start, end=9)), whole)
    with nullcontext() if is_taken else pytest.raises(Stop, match=r"changelog\[0\] was not read back from its beginning"):
        assert changelogs_read_back(0, tables, {TP("changelog", 0): 2}, log, 0)  # type: ignore[arg-type]


async def test_a_long_restore_lets_other_work_have_its_turn():
    """Heartbeats, above all: a worker whose event loop stands still loses its partitions, and would begin anew for ever."""
    session = Session("v", "p", "q", Policy(), posted_at=0, deadline=600 * SECOND, posted_offset=0, applied=-1, floor=-1, counts=Engagement())
    waiter = Waiter(None, 0, 0, b"v", b'{"variant_id":"v","kind":"view"}', SECOND)  # type: ignore[arg-type] # read anew from the value
    many = 3 * YIELD_EVERY
    found: Any = (
        {b"%d" % number: encode_session(replace(session, variant_id=f"v{number}", posted_offset=number)) for number in range(many)},
        {_key("v", f"q{number}", 0): b"" for number in range(many)},
        {_key("v", number): encode_waiters([replace(waiter, offset=number)]) for number in range(3)},
    )
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other, monitor = asyncio.create_task(others()), PartitionMonitor(0, position=many)
    unused = await restore(monitor, Changelogs(*(SimpleNamespace(hand_over=lambda content=content: content) for content in found)))  # type: ignore[arg-type]
    other.cancel()
    assert (len(list(monitor.sessions)), monitor.waiting.count, len(unused)) == (many, 3, many)
    assert turns >= 3 * 3


def _key(*parts: str | int) -> bytes:
    return json.dumps([parts, None]).encode()

"""What recovery has read of a partition's changelogs, on its way into a monitor."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from models.errors import Stop
from streams.restoring import changelogs_read_back
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

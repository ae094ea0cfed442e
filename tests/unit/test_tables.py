"""Keys of the windowed tables: part of what is stored, so they never change."""

from __future__ import annotations

import json

import pytest
from faust.windows import TumblingWindow

from streams.tables import StateTable, parse_key


class Windowed(StateTable):
    def __init__(self, window: TumblingWindow | None) -> None:
        self.window = window


@pytest.mark.parametrize("ids", [("v", "q"), ("é😀", 'with "quotes" \\ and /'), ("a\u2028b\x7f", "\u00ad")])
@pytest.mark.parametrize("at", [1_764_000_000.0, 1_764_000_599.9, 946_684_800.000001])
def test_a_key_names_its_parts_and_the_window_that_holds_its_moment(ids: tuple[str, str], at: float) -> None:
    """Compact JSON, not ASCII-escaped."""
    window = TumblingWindow(600.0)
    key = Windowed(window).key(*ids, 7, at=at)
    start = at // 600 * 600
    assert key == json.dumps([[*ids, 7], [start, start + 599.9]], ensure_ascii=False, separators=(",", ":")).encode()
    assert parse_key(key) == [*ids, 7]


def test_without_a_window_a_key_has_none() -> None:
    """Whatever the moment."""
    assert Windowed(None).key("v", 3, at=5.0) == b'[["v",3],null]'

"""Keys of the windowed tables: part of what is stored, so they never change."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from faust.windows import TumblingWindow

from streams.tables import RecoveredStore, StateTable, parse_key


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


def test_recovery_keeps_the_last_value_of_each_key_by_partition() -> None:
    """In the order of the records, also when some are read twice; a tombstone removes; what is taken is gone."""
    store = RecoveredStore.__new__(RecoveredStore)
    store.__post_init__()

    def fetched(partition: int, *records: tuple[bytes, bytes | None]) -> Any:
        carried = [SimpleNamespace(key=key, value=value) for key, value in records]
        return SimpleNamespace(message=SimpleNamespace(partition=partition, records=carried))

    store.apply_changelog_batch([fetched(0, (b"a", b"1"), (b"b", b"1")), fetched(1, (b"a", b"x")), fetched(0, (b"b", b"1"), (b"a", b"2"), (b"b", None))], bytes, bytes)
    assert store.partitions == {0: {b"a": b"2"}, 1: {b"a": b"x"}}
    table = Windowed(None)
    table._data = store
    assert table.take(0) == {b"a": b"2"}
    assert table.take(0) == {}
    table.forget()
    assert store.partitions == {}

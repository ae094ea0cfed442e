"""Keys of the windowed tables: part of what is stored, so they never change."""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from faust.tables.recovery import Recovery
from faust.types import TP
from faust.windows import TumblingWindow

from streams.pieces import Piece
from streams.tables import CLAIM, Recovered, RecoveredStore, StateTable, drop_unapplied, parse_key


class Windowed(StateTable):
    changelog_topic_name = "changelog"

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


@dataclass(frozen=True)
class Record:
    offset: int
    key: bytes
    value: bytes | None
    generation: int | None = None
    timestamp: int = 0

    @property
    def headers(self) -> list[tuple[str, bytes]]:
        return [] if self.generation is None else [("g", b"%d" % self.generation)]


def recovered(*records: Record) -> Recovered:
    found = Recovered({})
    found.apply(records)
    return found


def piece(*records: Record, start: int | None = None, end: int | None = None) -> Piece[Record]:
    return Piece(records[0].offset if start is None else start, list(records), records[-1].offset + 1 if end is None else end)


def test_recovery_keeps_the_last_value_of_each_key_by_partition() -> None:
    """In the order of the records, also when some are read twice; a tombstone removes; what is taken is gone."""
    store = RecoveredStore.__new__(RecoveredStore)
    store.__post_init__()

    def fetched(partition: int, *records: Record) -> Any:
        return SimpleNamespace(message=SimpleNamespace(partition=partition, piece=piece(*records)))

    first = [Record(0, b"a", b"1"), Record(1, b"b", b"1")]
    store.apply_changelog_batch([fetched(0, *first), fetched(1, Record(0, b"a", b"x")), fetched(0, *first, Record(2, b"a", b"2"), Record(3, b"b", None))], bytes, bytes)
    assert {partition: found.content for partition, found in store.partitions.items()} == {0: {b"a": b"2"}, 1: {b"a": b"x"}}
    table = Windowed(None)
    table._data = store
    table.app = SimpleNamespace(tables=SimpleNamespace(recovery=SimpleNamespace(active_highwaters={TP("changelog", 0): 6})))  # type: ignore[assignment]
    taken = table.take(0)
    assert taken.content == {b"a": b"2"}
    assert taken.end == 7
    assert not store.partitions.get(0)
    table.forget()
    assert store.partitions == {}


def test_what_an_earlier_owner_sends_after_a_later_one_counts_for_nothing() -> None:
    """Values and tombstones; records without a generation are the earliest. Which keys they hide is told, unless a later record of the key counts."""
    found = recovered(
        Record(0, b"a", b"old"),
        Record(1, b"b", b"old"),
        Record(2, b"c", b"5", 5),
        Record(3, b"a", b"stray", 4),
        Record(4, b"b", None, 4),
        Record(5, b"c", b"stray"),
        Record(6, b"c", b"5 again", 5),
    )
    assert found.content == {b"a": b"old", b"b": b"old", b"c": b"5 again"}
    assert (found.furthest, found.end, set(found.hidden)) == (5, 7, {b"a", b"b"})


def test_a_claim_alone_shuts_out_earlier_owners() -> None:
    """Also one that comes late shuts out nobody, and leaves nothing to mend."""
    found = recovered(Record(0, b"a", b"1", 1), Record(1, CLAIM, None, 2), Record(2, b"a", b"stray", 1), Record(3, CLAIM, None, 1))
    assert found.content == {b"a": b"1"}
    assert set(found.hidden) == {b"a"}


def test_records_that_are_read_again_change_nothing() -> None:
    """Recovery may begin anew with some of them."""
    records = [Record(0, b"a", b"1", 1), Record(1, CLAIM, None, 2), Record(2, b"a", b"2", 2)]
    assert recovered(*records, *records) == recovered(*records)


def test_a_piece_left_over_from_an_earlier_assignment_does_not_stand_in_for_the_beginning() -> None:
    """Faust may apply one that was fetched before it sought the beginning. What follows the beginning counts, and that one is read again."""
    found = Recovered({})
    found.read(piece(Record(5, b"c", b"3", 2)))
    assert not found.has_all_since(0)
    found.read(piece(Record(0, b"a", b"1", 1), Record(1, b"b", b"2", 1)))
    assert (found.content, found.furthest) == ({b"a": b"1", b"b": b"2"}, 1)
    found.read(piece(Record(2, b"d", b"0"), Record(5, b"c", b"3", 2)))
    assert found.content == {b"a": b"1", b"b": b"2", b"c": b"3"}
    assert found.has_all_since(0)


def test_a_piece_that_is_missing_is_noticed() -> None:
    """Wherever it was; offsets that hold no record are no gap."""
    found = Recovered({})
    found.read(piece(Record(3, b"a", b"1"), start=2, end=9))
    assert (found.has_all_since(1), found.has_all_since(2)) == (False, True)
    found.read(piece(Record(11, b"b", b"1"), start=9))
    assert found.has_all_since(2)
    found.read(piece(Record(14, b"c", b"1"), start=13))
    assert not found.has_all_since(2)
    assert found.content == {b"c": b"1"}


def test_a_changelog_of_which_nothing_was_read_is_complete_if_it_is_empty() -> None:
    """Its end, which recovery has asked for, tells."""
    found = Recovered({}, end=7)
    assert (found.has_all_since(6), found.has_all_since(7)) == (False, True)


@pytest.mark.parametrize(("timestamp", "content"), [(99, {b"a": b"stray"}), (100, {})])
def test_a_stray_counts_where_compaction_may_have_taken_what_it_hides(timestamp: int, content: dict[bytes, bytes]) -> None:
    """And only there: a record that is as old as the lag is the first that is not old enough."""
    found = recovered(Record(0, CLAIM, None, 2), Record(1, b"a", b"stray", 1, timestamp))
    found.settle(100)
    assert found.content == content


def test_a_stray_counts_nowhere_else() -> None:
    """What it hides is still there."""
    found = recovered(Record(0, b"a", b"1", 1), Record(1, CLAIM, None, 2), Record(2, b"a", b"stray", 1))
    found.settle(100)
    assert found.content == {b"a": b"1"}


def test_what_recovery_has_not_applied_at_a_revocation_is_never_applied() -> None:
    """Faust flushes its buffers when the next recovery begins; the store is another's by then."""
    applied: list[object] = []
    recovery: Any = SimpleNamespace(buffers={_Buffered(applied): ["tail"]})
    drop_unapplied(recovery)
    Recovery.flush_buffers(recovery)
    assert applied == []


class _Buffered:
    """A table as Faust's buffers have it for a key."""

    def __init__(self, applied: list[object]) -> None:
        self.apply_changelog_batch = applied.extend

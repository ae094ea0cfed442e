"""Files of recorded events: what a line may be, and which moment it has."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from models.errors import Reject, Stop
from streams.event_log import LINE_LIMIT, BadLine, Event, TimedEvent, read_events, read_timed, to_bytes

VIEW = {"topic": "interaction", "value": {"variant_id": "v", "kind": "view"}}


def write(path: Path, *lines: object) -> Path:
    """Write each line: bytes as they are, anything else as JSON."""
    path.write_bytes(b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines))
    return path


def view(occurred_at: object) -> dict[str, object]:
    """A line that tells of a view at a moment."""
    return {"topic": "interaction", "value": {"variant_id": "v", "kind": "view", "occurred_at": occurred_at}}


def test_plain_and_gzipped_files_read_the_same(tmp_path: Path) -> None:
    """The content says whether a file is gzipped, not its name."""
    plain = write(tmp_path / "events.jsonl", VIEW, VIEW)
    zipped = tmp_path / "events.log"
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    assert list(read_events(plain)) == list(read_events(zipped)) == [Event(1, "interaction", VIEW["value"]), Event(2, "interaction", VIEW["value"])]


def test_a_missing_final_newline_empty_lines_crlf_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    """Editors leave such things behind; line numbers stay those of the editor."""
    path = tmp_path / "events.jsonl"
    line = json.dumps(VIEW).encode()
    path.write_bytes(b"\xef\xbb\xbf" + line + b"\r\n\r\n   \n" + line)
    assert [item.line for item in read_events(path)] == [1, 4]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (b"nonsense", "is not JSON"),
        (b'{"topic": "interaction"', "is not JSON"),
        (b"[]", "is not"),
        (b'{"topic": "interaction"}', "value"),
        (b'{"value": {}}', "topic"),
        (b'{"topic": "variant_killed", "value": {}}', "is not one of variant_posted, interaction"),
        (b'{"topic": "interaction", "value": []}', "value"),
        (b'{"topic": "interaction", "value": {"a": NaN}}', "is not JSON"),
        (b'{"topic": "interaction", "value": {"a": 1e999}}', "non-finite"),
        (b'{"topic": "interaction", "value": {"a": "\\ud800"}}', "surrogate|not JSON"),
        (b'{"topic": "interaction", "value": {"a": "\xff"}}', "UTF-8"),
        (b'{"topic": "interaction", "value": {"a": "\\u0000"}}', "U+0000"),
        (b'{"topic": "interaction", "value": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, "nested|recursion|JSON"),
    ],
)
def test_a_bad_line_is_named_and_the_next_one_still_counts(tmp_path: Path, line: bytes, word: str) -> None:
    """A line is as strict as a record's value, and its fault its own."""
    bad, good = read_events(write(tmp_path / "events.jsonl", line, VIEW))
    assert isinstance(bad, BadLine)
    assert bad.line == 1
    assert any(part in bad.reason for part in word.split("|")), bad.reason
    assert isinstance(good, Event)


def test_a_value_of_64_kib_is_read_and_one_byte_more_is_not(tmp_path: Path) -> None:
    """The contract's bound is the value's, not the line's."""
    room = 64 * 1024 - len(b'{"a":""}')
    fits, over = (b'{"topic": "interaction", "value": {"a":"' + b"x" * size + b'"}}' for size in (room, room + 1))
    first, second = read_events(write(tmp_path / "events.jsonl", fits, over))
    assert isinstance(first, Event)
    assert isinstance(second, BadLine)


def test_an_endless_line_is_skipped_in_pieces(tmp_path: Path) -> None:
    """A file without line ends must not fill the memory."""
    bad, good = read_events(write(tmp_path / "events.jsonl", b"x" * (3 * LINE_LIMIT + 17), VIEW))
    assert isinstance(bad, BadLine)
    assert (bad.line, good.line) == (1, 2)


def test_a_file_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    """People mistype names."""
    with pytest.raises(Stop, match="No such file"):
        list(read_events(tmp_path / "nothing.jsonl"))


def test_a_cut_gzip_file_says_so(tmp_path: Path) -> None:
    """A download that broke off must not pass for a short log."""
    path = tmp_path / "events.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(VIEW).encode() * 1000)[:-20])
    with pytest.raises(Stop, match="not a whole gzip file"):
        list(read_events(path))


def test_a_line_without_a_moment_has_that_of_the_line_before(tmp_path: Path) -> None:
    """And those at the start that of the first line that has one; bad moments are bad lines."""
    path = write(tmp_path / "events.jsonl", VIEW, view("2026-01-01T00:00:10Z"), VIEW, view("yesterday"), view(1767225615), VIEW)
    items = list(read_timed(path, without_any=0))
    start = 1_767_225_600_000_000
    assert [(item.moment_us - start) // 1_000_000 for item in items if isinstance(item, TimedEvent)] == [10, 10, 10, 15, 15]
    assert [(item.line, item.reason.split(":")[0]) for item in items if isinstance(item, BadLine)] == [(4, "occurred_at")]


def test_a_file_without_any_moment_gets_the_one_that_was_asked_for(tmp_path: Path) -> None:
    """Then all happens at once."""
    items = list(read_timed(write(tmp_path / "events.jsonl", VIEW, VIEW), without_any=42))
    assert [item.moment_us for item in items if isinstance(item, TimedEvent)] == [42, 42]


@pytest.mark.parametrize("value", [{"a": float("nan")}, {"a": "\ud800"}, {"a": {1, 2}}])
def test_what_json_in_utf8_cannot_say_is_refused(value: dict[str, object]) -> None:
    """The publisher must not send what no worker can read."""
    with pytest.raises(Reject):
        to_bytes(value)

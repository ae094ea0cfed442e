"""What is kept out of the log."""

from __future__ import annotations

import logging

import pytest

from streams.logs import MOST_LINES, SELDOM_SECONDS, Seldom, _without_trace


def record(name: str, line: str, at: float) -> logging.LogRecord:
    made = logging.LogRecord(name, logging.ERROR, "", 0, "%s", (line,), None)
    made.created = at
    return made


@pytest.mark.parametrize(("name", "again"), [("aiokafka", False), ("aiokafka.consumer", False), ("aiokafkaesque", True), ("streams.sink", True)])
def test_a_library_says_the_same_once_in_ten_seconds(name: str, again: bool):
    """Another line at once; others than this library whenever they like."""
    seldom = Seldom("aiokafka")
    assert seldom.filter(record(name, "away", 0))
    assert seldom.filter(record(name, "away", SELDOM_SECONDS - 0.01)) is again
    assert seldom.filter(record(name, "elsewhere", 1))
    assert seldom.filter(record(name, "away", SELDOM_SECONDS))


def test_what_it_remembers_is_bounded():
    """A line with a number in it is another one each time."""
    seldom = Seldom("aiokafka")
    for number in range(2 * MOST_LINES + 1):
        assert seldom.filter(record("aiokafka", str(number), 0))
    assert len(seldom._said_at) <= MOST_LINES


@pytest.mark.parametrize(
    ("name", "error", "is_kept"),
    [
        ("aiokafka.conn", ConnectionResetError("reset by peer"), False),
        ("asyncio", TimeoutError("too late"), False),
        ("sqlalchemy.pool", RuntimeError("the connection is closed"), False),
        ("mode.services", ValueError("a bug"), True),
        ("streams.app", OSError("a bug"), True),
    ],
)
def test_what_a_library_says_of_an_outage_has_no_trace(name: str, error: Exception, is_kept: bool):
    """But says what it was, once, in one line. A bug, of a library or of ours, keeps its trace."""
    made = logging.LogRecord(name, logging.ERROR, "", 0, "it failed at %s", ("closing",), (type(error), error, None))
    assert _without_trace(made)
    assert (made.exc_info is not None) is is_kept
    assert made.getMessage() == ("it failed at closing" if is_kept else f"it failed at closing: {error}")
    again = logging.LogRecord(name, logging.ERROR, "", 0, "it failed: %r", (error,), (type(error), error, None))
    assert _without_trace(again)
    assert again.getMessage() == f"it failed: {error!r}"

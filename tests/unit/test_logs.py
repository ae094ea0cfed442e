"""What is kept out of the log."""

from __future__ import annotations

import logging

import pytest

from streams.logs import MOST_LINES, SELDOM_SECONDS, Seldom


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

"""How soon one fetch follows the other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from streams.pace import LONGEST_REST, REST_A_RECORD, Pace

FETCHES = (["a fetch"], {}, 1.0, False, [])
NOTHING_TO_FETCH = ([], {}, 0.1, False, ["a partition that may be resumed"])


class Clock:
    """Seconds, moved by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def paced(answer: Any = FETCHES) -> tuple[Pace, Any, Clock]:
    """A pace, a fetcher that keeps it, and their clock."""
    clock, fetcher = Clock(), SimpleNamespace(answer=answer)
    fetcher._get_actions_per_node = lambda _assignment: fetcher.answer
    pace = Pace(clock)
    pace.set(fetcher)
    return pace, fetcher, clock


@pytest.mark.parametrize(("records", "rest"), [(1, REST_A_RECORD), (2, 2 * REST_A_RECORD), (1_000_000, LONGEST_REST)])
def test_a_fetch_waits_after_one_that_brought_something(records: int, rest: float) -> None:
    """From when that was sent, and the longer the more it brought, up to a limit. Meanwhile aiokafka is told when to ask again."""
    pace, fetcher, clock = paced()
    assert fetcher._get_actions_per_node(None) == FETCHES
    pace.found(records)
    clock.now += rest / 4
    fetches, resets, seconds, *others = fetcher._get_actions_per_node(None)
    assert (fetches, resets, others) == ([], {}, [False, []])
    assert seconds == pytest.approx(rest * 3 / 4)
    clock.now += rest
    assert fetcher._get_actions_per_node(None) == FETCHES


def test_after_nothing_nothing_is_waited_for() -> None:
    """A fetch that brought nothing was held by the broker until there was nothing to wait for."""
    pace, fetcher, _clock = paced()
    assert [fetcher._get_actions_per_node(None) for _ in range(2)] == [FETCHES, FETCHES]
    pace.found(0)
    assert fetcher._get_actions_per_node(None) == FETCHES


def test_only_fetches_are_counted_from() -> None:
    """Not looks at which there was nothing to fetch."""
    pace, fetcher, clock = paced()
    fetcher._get_actions_per_node(None)
    pace.found(1_000_000)
    clock.now += LONGEST_REST
    fetcher.answer = NOTHING_TO_FETCH
    assert fetcher._get_actions_per_node(None) == NOTHING_TO_FETCH
    fetcher.answer = FETCHES
    assert fetcher._get_actions_per_node(None) == FETCHES


def test_a_fetcher_keeps_one_pace() -> None:
    """However often it is told to; another one, after a reconnect, keeps it too."""
    pace, fetcher, _clock = paced()
    kept = fetcher._get_actions_per_node
    pace.set(fetcher)
    assert fetcher._get_actions_per_node is kept
    other = SimpleNamespace(_get_actions_per_node=lambda _assignment: NOTHING_TO_FETCH)
    pace.set(other)
    assert other._get_actions_per_node(None) == NOTHING_TO_FETCH
    assert fetcher._get_actions_per_node(None) == FETCHES

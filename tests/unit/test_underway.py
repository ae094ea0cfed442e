"""Chunks that are on their way to their agents, and such as never come."""

from __future__ import annotations

import pytest
from faust.types import TP

from streams.ledger import Ledger
from streams.transport import Chunk
from streams.underway import LOST_LOOKS, Underway

HERE, THERE, ELSEWHERE = TP("interaction", 0), TP("interaction", 1), TP("variant_posted", 0)


def chunk(tp: TP) -> Chunk:
    ledger = Ledger()
    return Chunk(tp, [], ledger.hand_out(0, 0), ledger)


def test_what_comes_in_order_is_not_lost() -> None:
    """Each topic has an order of its own."""
    underway = Underway()
    first, second, other = chunk(HERE), chunk(THERE), chunk(ELSEWHERE)
    for one in (first, second, other):
        underway.fetched(one)
    assert [underway.arrived(one) for one in (other, first, second)] == [None, None, None]
    assert [underway.look() for _ in range(2 * LOST_LOOKS)] == [None] * 2 * LOST_LOOKS


def test_one_that_is_passed_by_another_of_its_topic_is_lost() -> None:
    """An agent has a single queue for all partitions."""
    underway = Underway()
    lost, later = chunk(HERE), chunk(THERE)
    underway.fetched(lost)
    underway.fetched(later)
    assert underway.arrived(later) == HERE


@pytest.mark.parametrize("others", [False, True], ids=["nothing else", "traffic on another topic"])
def test_one_that_does_not_come_is_lost_after_a_while(*, others: bool) -> None:
    """However much other topics have to fold."""
    underway = Underway()
    underway.fetched(chunk(HERE))
    for _ in range(LOST_LOOKS - 1):
        if others:
            underway.fetched(one := chunk(ELSEWHERE))
            assert underway.arrived(one) is None
        assert underway.look() is None
    assert underway.look() == HERE


def test_with_the_assignment_all_is_forgotten() -> None:
    """What was on its way is delivered to the next owner; one that comes all the same proves nothing."""
    underway = Underway()
    old = chunk(HERE)
    underway.fetched(old)
    underway.forget()
    underway.fetched(new := chunk(HERE))
    assert underway.arrived(old) is None
    assert underway.arrived(new) is None

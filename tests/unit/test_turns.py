"""Whose turn it is: tests beside each other, but for those that want the machine to themselves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.turns import Turns

SOON, SECONDS = 0.1, 5.0

Ask = Callable[..., tuple[Turns, threading.Event]]


@pytest.fixture
def waiting(tmp_path: Path) -> Ask:
    """Lets another process ask for its turn; returns its turns, and what is set when it has got one. Locks belong to an open file, so a thread does for a process."""

    def ask(*, alone: bool) -> tuple[Turns, threading.Event]:
        turns, has_it = Turns(tmp_path), threading.Event()

        def take() -> None:
            turns.take(alone=alone)
            has_it.set()

        threading.Thread(target=take, daemon=True).start()
        return turns, has_it

    return ask


def test_most_run_beside_each_other(waiting: Ask) -> None:
    """Nobody waits."""
    for _ in range(2):
        assert waiting(alone=False)[1].wait(SECONDS)


@pytest.mark.parametrize("first", [True, False])
def test_one_that_is_alone_has_nobody_beside_it(waiting: Ask, *, first: bool) -> None:
    """Neither one that came before nor one that comes after."""
    turns, has_it = waiting(alone=first)
    assert has_it.wait(SECONDS)
    _, other_has_it = waiting(alone=not first)
    assert not other_has_it.wait(SOON)
    turns.give_back()
    assert other_has_it.wait(SECONDS)


def test_who_waits_to_be_alone_is_not_passed_by(waiting: Ask) -> None:
    """Else two processes that always have another test would keep it waiting to the end."""
    turns, has_it = waiting(alone=False)
    assert has_it.wait(SECONDS)
    alone, is_alone = waiting(alone=True)
    assert not is_alone.wait(SOON)
    _, passes = waiting(alone=False)
    assert not passes.wait(SOON)
    turns.give_back()
    assert is_alone.wait(SECONDS)
    assert not passes.is_set()
    alone.give_back()
    assert passes.wait(SECONDS)


def test_tests_in_a_row_that_are_alone_are_not_interrupted(waiting: Ask) -> None:
    """Who has the machine for itself keeps it for the next such test, also with others at the gate."""
    turns, has_it = waiting(alone=True)
    assert has_it.wait(SECONDS)
    _, passes = waiting(alone=False)
    assert not passes.wait(SOON)
    turns.take(alone=True)
    assert not passes.is_set()
    turns.give_back()
    assert passes.wait(SECONDS)


def test_the_machine_is_not_kept_for_a_test_that_is_like_most(waiting: Ask) -> None:
    """Its process lets the others in."""
    turns, has_it = waiting(alone=True)
    assert has_it.wait(SECONDS)
    turns.take(alone=False)
    assert waiting(alone=False)[1].wait(SECONDS)

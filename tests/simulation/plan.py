"""What one seed is about: a history, what the world is like, and the lives that the worker is to have, and to lose."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import NamedTuple

from tests.simulation.dice import Dice
from tests.simulation.history import SECOND, START, History, Shape, make_history
from tests.simulation.worker import Setting

LIVED_THROUGH = 8
"""So many seeds share a history, each with other lives: to make one up and to judge it takes a quarter of the time of a run."""

SHARED = 0.3
"""Share of the longer lives in which another worker joins the group, and rebalances follow."""


class Ending(StrEnum):
    """How a life ends.

    HANGS: It stands still and loses its partitions; what it had sent arrives later, at any time.
    LINGERS: It loses its partitions, does not know, and goes on beside their new owner.
    """

    STOPS = "is stopped in good order"
    CRASHES = "is killed"
    HANGS = "hangs, and loses its partitions"
    LINGERS = "loses its partitions, and does not know"


class Rebalance(NamedTuple):
    """Two workers share the partitions anew: both let go of all first.

    Attributes:
        share: When, as a share of the time that the life lasts.
        kept: A bit for each partition that this one gets; the other one, which joins with the first rebalance, gets the rest.
    """

    share: float
    kept: int


@dataclass(frozen=True, slots=True)
class LifePlan:
    """One life of the worker that does not last.

    Attributes:
        number: Seeds all that happens by chance in this life.
        pause: Microseconds from the end of the life before.
        share: How much of the time until the last deadline it sees at most.
        steps: It ends after so many callbacks; behind ``share`` if ``is_at_once`` is not set, else within it.
        rebalances: In the order of time; none, and it lives alone.
    """

    number: int
    pause: int
    share: float
    steps: int
    is_at_once: bool
    ending: Ending
    rebalances: tuple[Rebalance, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a seed stands for; run again it is the same again.

    Attributes:
        begin: When the first life starts (microseconds).
        last_pause: Microseconds until the last life starts, which has to bring everything to its end.
    """

    seed: int
    shape: Shape
    history: History
    setting: Setting
    visible_after: int
    begin: int
    lives: tuple[LifePlan, ...]
    last_pause: int


def make_plan(seed: int, shape: Shape) -> Plan:
    """Make up the plan of ``seed``."""
    rng = Dice(f"lives {seed}")
    history = make_history(seed // LIVED_THROUGH, shape)
    setting = Setting(
        history.grace, history.wait, flush_seconds=rng.choice((0.1, 0.3, 1.0)), failures=rng.choice((0.0, 0.0, 0.05)), fetch_gap=rng.random() < 0.5, strays=shape.strays
    )
    visible_after = rng.choice((0, 0, 30_000))
    begin = START + rng.choice((0, 0, rng.randrange(6 * SECOND)))
    lives = tuple(_life(rng, shape, number) for number in range(rng.choice((1, 1, 2, 2, 4))))
    return Plan(seed, shape, history, setting, visible_after, begin, lives, _pause(rng))


def _life(rng: Random, shape: Shape, number: int) -> LifePlan:
    is_at_once = rng.random() < 0.3
    steps = rng.choice((rng.randint(1, 60), rng.randint(1, 600))) if is_at_once else rng.randint(0, 40)
    ending = Ending.STOPS if rng.random() < 0.15 else rng.choice(_unwanted(shape))
    pause, share = _pause(rng) if number else 0, 1.0 if is_at_once else rng.random()
    is_shared = not is_at_once and rng.random() < SHARED
    rebalances = sorted(Rebalance(rng.random(), rng.randrange(4)) for _ in range(rng.randint(1, 4))) if is_shared else ()
    return LifePlan(number, pause, share, steps, is_at_once, ending, tuple(rebalances))


def _unwanted(shape: Shape) -> tuple[Ending, ...]:
    if shape.strays:
        return (Ending.CRASHES, Ending.HANGS, Ending.LINGERS, Ending.LINGERS)
    return (Ending.CRASHES,)


def _pause(rng: Random) -> int:
    return rng.choice((0, 50_000, rng.randrange(SECOND), rng.randrange(6 * SECOND)))

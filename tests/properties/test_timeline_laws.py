"""Replaying faster may not move an event over the edge of a window."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import example, given
from hypothesis import strategies as st

from models.moments import minutes
from streams.timeline import Timeline

START, NOW = 1_574_553_600_000_000, 1_767_225_600_000_000

moments = st.integers(-2_000, 2_000) | st.integers(-(10**12), 10**12)
"""Near the start, where edges collide, or days away from it."""
timeouts = st.integers(1, 3_000) | st.integers(1, 43_200 * 60_000_000)
speeds = st.sampled_from([Fraction(1), Fraction(1008), Fraction("0.5"), Fraction("3.7"), Fraction(1_000_000)])
speeds |= st.fractions(min_value=Fraction("0.01"), max_value=100_000, max_denominator=1000)


@given(posts=st.lists(st.tuples(moments, timeouts), min_size=1, max_size=5), at=moments, speed=speeds)
@example(posts=[(0, 1000)], at=999, speed=Fraction(1008))
@example(posts=[(0, 1000)], at=1000, speed=Fraction(1008))
@example(posts=[(0, 1000)], at=-1, speed=Fraction(1008))
@example(posts=[(0, 1000), (500, 1000)], at=600, speed=Fraction(1_000_000))
def test_an_event_stays_inside_or_outside_of_each_window(posts: list[tuple[int, int]], at: int, speed: Fraction) -> None:
    """``posted_at <= occurred_at < deadline`` is as true in the replay as in the log, for every session of the variant."""
    windows = [(START + posted, START + posted + timeout) for posted, timeout in posts]
    timeline = Timeline(log_start=START, starts_at=NOW, speed=speed, windows={"v": windows})
    occurred, again = START + at, timeline.moment("v", START + at)
    for posted, deadline in windows:
        posted_again = timeline.moment("v", posted)
        deadline_again = posted_again + minutes(timeline.timeout_minutes("v", posted, deadline))
        assert deadline_again == timeline.moment("v", deadline)
        assert (posted <= occurred) == (posted_again <= again)
        assert (occurred < deadline) == (again < deadline_again)


@given(posts=st.lists(st.tuples(moments, timeouts), max_size=4), pair=st.tuples(moments, moments), speed=speeds)
def test_time_never_runs_backwards(posts: list[tuple[int, int]], pair: tuple[int, int], speed: Fraction) -> None:
    """Of two events of a variant the later one does not come earlier."""
    timeline = Timeline(log_start=START, starts_at=NOW, speed=speed, windows={"v": [(START + posted, START + posted + timeout) for posted, timeout in posts]})
    early, late = sorted(pair)
    assert timeline.moment("v", START + early) <= timeline.moment("v", START + late)


@given(at=moments, speed=speeds)
def test_without_windows_a_moment_is_scaled_to_the_nearest_microsecond(at: int, speed: Fraction) -> None:
    """Pauses shrink by the speed, all alike."""
    timeline = Timeline(log_start=START, starts_at=NOW, speed=speed, windows={})
    assert abs(timeline.moment("v", START + at) - NOW - Fraction(at) / speed) <= Fraction(1, 2)

"""One session: which events count, when it ends, and what becomes of the rest."""

from __future__ import annotations

from models.events import Interaction, Posting
from models.moments import DAY, MINUTE, SECOND
from models.policy import Policy
from models.session import End, Origin, Outcome, Result, Session

T = 1_700_000_000_000_000
GRACE = 5 * SECOND
DEADLINE = T + 10 * MINUTE


def session(**policy: float) -> Session:
    return Session.start(Posting("v", "p", "q", Policy(**policy), T), 0, -1, -1)  # type: ignore[arg-type]


def event(kind: str = "view", at: int = T, **fields: object) -> Interaction:
    return Interaction("v", kind, at, post_id="q", **fields)  # type: ignore[arg-type]


def count(state: Session, what: Interaction, offset: int = 0, appended: int | None = None) -> Result:
    return state.count(what, offset, what.occurred_at if appended is None else appended, "interaction", 3, T + 1, GRACE)


def end(state: Session, outcome: Outcome) -> None:
    state.finish(End(outcome, "why", T, T))


def test_the_window_holds_its_start_and_not_its_end() -> None:
    """``posted_at <= occurred_at < posted_at + timeout``."""
    state = session()
    assert count(state, event(at=T - 1)) is Result.EARLY
    assert count(state, event(at=T)) is Result.COUNTED
    assert count(state, event(at=DEADLINE - 1)) is Result.COUNTED
    assert count(state, event(at=DEADLINE)) is Result.LATE
    assert state.counts.views == 2


def test_an_event_counts_until_the_grace_is_over() -> None:
    """Appended before ``posted_at + timeout + grace``; that moment itself is too late."""
    state = session()
    assert count(state, event(at=DEADLINE - 1), appended=DEADLINE + GRACE - 1) is Result.COUNTED
    assert count(state, event(at=DEADLINE - 1), appended=DEADLINE + GRACE) is Result.LATE


def test_a_repeated_event_id_counts_once() -> None:
    """Even with another content."""
    state = session()
    assert count(state, event(event_id="e")) is Result.COUNTED
    assert count(state, event("like", event_id="e", count=5)) is Result.DUPLICATE
    assert (state.counts.views, state.counts.interactions) == (1, 0)


def test_only_events_that_counted_reserve_their_id() -> None:
    """An early and a late one leave it free."""
    state = session()
    assert count(state, event(at=T - 1, event_id="e")) is Result.EARLY
    assert count(state, event(at=DEADLINE, event_id="e")) is Result.LATE
    assert count(state, event(event_id="e")) is Result.COUNTED


def test_the_rule_is_asked_after_each_event_that_counts() -> None:
    """The deciding event ends the session at its own moment, and says who it was."""
    state = session(min_interactions=1, expected_engagement_rate=1.0, kill_threshold=0.5)
    count(state, event("like", count=1), 0)
    assert count(state, event(count=2, at=T + 5), 1) is Result.COUNTED
    assert state.end is None
    assert count(state, event(at=T + 7), 2) is Result.COUNTED
    assert state.end == End(Outcome.KILLED, "Below 50% of expected engagement rate", T + 7, T + 1, Origin("interaction", 3, 2, T + 7), "below_threshold")
    assert state.end_pending


def test_a_snapshot_may_decide_too() -> None:
    """It counts like any event."""
    state = session(min_interactions=1)
    assert count(state, event("snapshot", totals=(1_000, 1, None, None, None, None, None, None))) is Result.COUNTED
    assert state.end is not None
    assert (state.counts.views, state.counts.interactions) == (1_000, 1)


def test_counts_freeze_at_the_end() -> None:
    """Later events are counted as after the end, whenever they occurred."""
    for outcome in (Outcome.KILLED, Outcome.STOPPED):
        state = session()
        end(state, outcome)
        for at in (T - 1, T, DEADLINE):
            assert count(state, event(at=at)) is Result.AFTER_END
        assert state.counts.views == 0


def test_a_session_that_timed_out_still_tells_early_late_and_after_the_end_apart() -> None:
    """Its window is over for all of them."""
    state = session()
    end(state, Outcome.TIMED_OUT)
    assert count(state, event(at=T - 1)) is Result.EARLY
    assert count(state, event(at=DEADLINE)) is Result.LATE
    assert count(state, event(at=T)) is Result.AFTER_END


def test_the_offset_moves_with_what_counts_and_never_back() -> None:
    """It guards against folding twice."""
    state = session()
    count(state, event(), 7)
    count(state, event(), 5)
    count(state, event(at=DEADLINE), 9)
    assert state.applied == 7


def test_a_session_is_forgotten_a_day_after_its_deadline() -> None:
    """Not before."""
    assert session().forget_at == DEADLINE + DAY


def test_a_view_of_a_session_shows_live_numbers_and_then_the_final_ones() -> None:
    """Final numbers only after the end, and once that is durable: before, another worker might still decide otherwise."""
    state = session()
    count(state, event(count=4))
    count(state, event("like"))
    live = state.view(2)
    assert (live.is_active, live.outcome, live.view_count, live.interaction_count, live.engagement_rate, live.partition) == (True, None, 4, 1, 0.25, 2)
    assert (live.final_view_count, live.final_interaction_count, live.final_engagement_rate, live.ended_at_us, live.was_killed) == (None, None, None, None, False)
    assert (live.started_at_us, live.deadline_us, live.kill_rate) == (T, DEADLINE, 0.03)
    end(state, Outcome.KILLED)
    assert state.view(2) == live
    state.is_end_durable = True
    ended = state.view(2)
    assert (ended.is_active, ended.outcome, ended.final_view_count, ended.final_interaction_count, ended.final_engagement_rate) == (False, "killed", 4, 1, 0.25)
    assert (ended.was_killed, ended.kill_reason, ended.ended_at_us) == (True, "why", T)

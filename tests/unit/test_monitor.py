"""One partition: posts, interactions, stops and time, in any order, also across a crash."""

from __future__ import annotations

import msgspec
import pytest

from models.announcement import end_record
from models.errors import Stop as Refusal
from models.events import Interaction, Posting, Stop
from models.ids import event_hash
from models.moments import DAY, MINUTE, SECOND
from models.monitor import Ended, Limits, PartitionMonitor, Rejected, Started
from models.policy import Policy
from models.session import Outcome, Result, Session
from models.state import decode_session, decode_waiters, encode_session, encode_waiters, seal_event_ids
from models.stop_request import StopRequest
from models.waiting import Waiter, Waiting

T = 1_700_000_000_000_000
DEADLINE = T + 10 * MINUTE
GRACE = 5 * SECOND
NOW = T + 42


def posting(post: str = "q", at: int = T, **policy: float) -> Posting:
    return Posting("v", "p", post, Policy(**policy), at)  # type: ignore[arg-type]


def post(monitor: PartitionMonitor, what: Posting, offset: int = 0, appended: int | None = None) -> Result:
    return monitor.post(what, offset, what.posted_at if appended is None else appended, b"v", b"post", NOW)


def see(monitor: PartitionMonitor, offset: int, at: int = T, post_id: str | None = "q", kind: str = "view", count: int = 1, appended: int | None = None) -> Result:
    return monitor.interact(Interaction("v", kind, at, count, post_id), offset, at if appended is None else appended, b"v", b"seen", NOW)


def session(monitor: PartitionMonitor, post_id: str = "q", variant_id: str = "v") -> Session:
    found = monitor.sessions.find(variant_id, post_id)
    assert found is not None
    return found


def kinds(monitor: PartitionMonitor) -> list[str]:
    return [type(emission).__name__ for emission in monitor.take_emissions()]


def restored(*monitors_sessions: Session, waiters: tuple[Waiter, ...] = (), position: int = -1) -> PartitionMonitor:
    """Start over from the durable form of these sessions."""
    monitor = PartitionMonitor(0, position=position)
    monitor.restore([decode_session(encode_session(one), lambda _session, _number: None) for one in monitors_sessions], waiters)
    return monitor


def test_the_first_post_starts_a_session_and_the_second_is_a_duplicate() -> None:
    """Its content counts for nothing."""
    monitor = PartitionMonitor(0)
    assert post(monitor, posting()) is Result.COUNTED
    assert post(monitor, posting(min_interactions=1), 1) is Result.DUPLICATE
    assert session(monitor).policy.min_interactions == 10
    assert kinds(monitor) == ["Started"]
    assert monitor.active_count == 1


def test_a_post_that_is_delivered_again_is_no_duplicate() -> None:
    """It is the same record."""
    monitor = PartitionMonitor(0)
    post(monitor, posting(), 4)
    assert post(monitor, posting(), 4) is Result.REDELIVERED
    assert post(monitor, posting(), 3) is Result.REDELIVERED


def test_another_post_id_is_another_session_beside_the_first() -> None:
    """Each counts its own."""
    monitor = PartitionMonitor(0)
    post(monitor, posting("q"))
    post(monitor, posting("r"), 1)
    see(monitor, 0, post_id="r")
    assert (session(monitor, "q").counts.views, session(monitor, "r").counts.views) == (0, 1)


def test_a_post_may_come_up_to_a_day_after_its_own_deadline() -> None:
    """A microsecond more, and it goes to the dead letters."""
    monitor = PartitionMonitor(0)
    assert post(monitor, posting("q"), 0, DEADLINE + DAY) is Result.COUNTED
    assert post(monitor, posting("r"), 1, DEADLINE + DAY + 1) is Result.DEAD_LETTER
    assert kinds(monitor) == ["Started", "Rejected"]
    assert monitor.active_count == 1


def test_early_events_wait_and_count_as_if_the_post_had_come_first() -> None:
    """One by one in their order of arrival: the one that decides, decides."""
    waiting, ready = PartitionMonitor(0), PartitionMonitor(0)
    policy = posting(min_interactions=1)
    post(ready, policy)
    for monitor in (waiting, ready):
        see(monitor, 0, kind="like")
        see(monitor, 1, count=30)
        see(monitor, 2, count=30)
        see(monitor, 3)
    assert waiting.waiting.count == 4
    post(waiting, policy)
    assert waiting.take_resolved() == {(Result.COUNTED, False): 3, (Result.AFTER_END, False): 1}
    assert session(waiting).end == session(ready).end
    assert session(waiting).end.origin.offset == 2  # type: ignore[union-attr]
    assert session(waiting).counts.by_kind() == session(ready).counts.by_kind()
    assert waiting.waiting.count == 0
    assert kinds(waiting) == ["Started", "Ended"]


@pytest.mark.parametrize("at_once", [1, 2, 3, 5])
def test_a_session_with_much_to_count_comes_in_part_by_part(at_once: int) -> None:
    """Nobody sees it, and all go on waiting, until it has got all; then it is as if it had got them at once."""
    slow, quick = PartitionMonitor(0, at_once=at_once), PartitionMonitor(0)
    for monitor in (slow, quick):
        for offset in range(4):
            see(monitor, offset, kind="like", count=1 if offset < 2 else 0)
        see(monitor, 4, count=400)
        see(monitor, 5)
        see(monitor, 6, T + 20 * MINUTE, appended=T)
        assert post(monitor, posting(min_interactions=2)) is Result.COUNTED
    turns = 0
    while slow.arriving is not None:
        assert (slow.waiting.count, len(slow.sessions), slow.take_emissions(), slow.take_resolved(), slow.take_changes()) == (7, 0, [], {}, ([], []))
        slow.go_on_arriving(NOW)
        turns += 1
    assert turns == (6 // at_once)
    assert slow.take_resolved() == quick.take_resolved()
    assert (session(slow).end, session(slow).counts.by_kind(), session(slow).applied) == (session(quick).end, session(quick).counts.by_kind(), session(quick).applied)
    assert session(slow).end.origin.offset == 4  # type: ignore[union-attr]
    assert kinds(slow) == kinds(quick) == ["Started", "Ended"]
    assert (slow.active_count, slow.waiting.count) == (quick.active_count, quick.waiting.count) == (0, 0)
    assert slow.take_changes() == ([session(slow)], [])
    assert [see(slow, offset) for offset in (3, 7)] == [Result.REDELIVERED, Result.AFTER_END]


def test_an_event_waits_for_ten_minutes() -> None:
    """Until all that was appended by then has been read; then it is a dead letter, told once."""
    monitor = PartitionMonitor(0)
    assert see(monitor, 0) is Result.WAITING
    monitor.tick(T + 10 * MINUTE - 1, NOW)
    assert monitor.waiting.count == 1
    monitor.tick(T + 10 * MINUTE, NOW)
    assert monitor.take_emissions() == [Rejected("interaction", 0, T, b"v", b"seen", "no post")]
    assert monitor.take_resolved() == {(Result.DEAD_LETTER, False): 1}
    monitor.tick(T + DAY, NOW)
    assert monitor.take_emissions() == []


def test_who_is_pushed_out_goes_to_the_dead_letters() -> None:
    """As many as are to make room, and never more than there are."""
    monitor = PartitionMonitor(0)
    for offset in range(3):
        see(monitor, offset)
    monitor.push_out(2)
    assert [emission.offset for emission in monitor.take_emissions() if isinstance(emission, Rejected)] == [0, 1]
    monitor.push_out(2)
    assert kinds(monitor) == ["Rejected"]
    assert monitor.waiting.count == 0


def test_without_post_id_it_belongs_to_the_session_posted_last_that_holds_it() -> None:
    """Not to one whose window does not, be it newer."""
    monitor = PartitionMonitor(0)
    post(monitor, posting("old", T), 0)
    post(monitor, posting("new", T + MINUTE), 1)
    see(monitor, 0, T + MINUTE, None)
    see(monitor, 1, T + MINUTE - 1, None)
    see(monitor, 2, T + 10 * MINUTE, None)
    see(monitor, 3, T + 10 * MINUTE - 1, None)
    assert (session(monitor, "old").counts.views, session(monitor, "new").counts.views) == (1, 3)


def test_without_post_id_and_outside_of_every_window_it_is_early_or_late() -> None:
    """After a moment in which the right post may still come."""
    monitor = PartitionMonitor(0)
    post(monitor, posting())
    assert see(monitor, 0, T - 1, None) is Result.WAITING
    assert see(monitor, 1, DEADLINE, None) is Result.WAITING
    monitor.tick(DEADLINE + 10 * MINUTE, NOW)
    assert monitor.take_resolved() == {(Result.EARLY, False): 1, (Result.LATE, False): 1}
    assert kinds(monitor) == ["Started", "Ended"]


def test_without_post_id_it_waits_for_its_post_as_long_as_any_other() -> None:
    """At least ten minutes, though an older session of the variant is long over. Source: contract, section 3.3."""
    monitor = PartitionMonitor(0)
    post(monitor, posting("old"))
    again = DEADLINE + MINUTE
    see(monitor, 0, again, None)
    monitor.tick(again + 10 * MINUTE - 1, NOW)
    post(monitor, posting("new", again), 1, again + 9 * MINUTE)
    assert session(monitor, "new").counts.views == 1


def test_a_moment_ahead_brings_no_deadline_nearer() -> None:
    """Neither its own session's nor another's: time is what the brokers say."""
    monitor = PartitionMonitor(0)
    post(monitor, posting("q", timeout_minutes=8))
    post(monitor, posting("r", timeout_minutes=1), 1)
    see(monitor, 0, T + 5 * MINUTE, "q", appended=T)
    assert not monitor.tick(T + MINUTE - 1, NOW)
    assert see(monitor, 1, T + MINUTE - 1, "r") is Result.COUNTED
    monitor.tick(T + MINUTE + GRACE - 1, NOW)
    assert session(monitor, "r").end is None
    monitor.tick(T + MINUTE + GRACE, NOW)
    assert session(monitor, "r").end is not None
    assert session(monitor, "q").end is None


def test_a_newer_session_waits_until_what_older_ones_took_is_durable() -> None:
    """An ended one too: it may have been offered records without ``post_id`` that did not count."""
    monitor = PartitionMonitor(0)
    post(monitor, posting("q"))
    assert not monitor.wants_flush
    monitor.stop(Stop("v"), 0, T, NOW)
    post(monitor, posting("r"), 1)
    assert monitor.wants_flush


@pytest.mark.parametrize(("later", "outcome"), [(-1, "stopped"), (0, "timed_out"), (MINUTE, "timed_out")])
def test_a_stop_that_comes_when_the_time_is_over_ends_nothing(later: int, outcome: str) -> None:
    """Live the session has timed out before it; so it has after an outage too, in which nobody was there to say so."""
    monitor = PartitionMonitor(0)
    post(monitor, posting("q"))
    over = DEADLINE + monitor.limits.grace
    result = monitor.stop(Stop("v"), 0, over + later, NOW)
    monitor.tick(over + 2 * MINUTE, NOW)
    end = session(monitor, "q").end
    assert end is not None
    assert (result is Result.COUNTED, end.outcome.value) == (outcome == "stopped", outcome)


@pytest.mark.parametrize(("later", "waits"), [(10 * MINUTE - 1, True), (10 * MINUTE, False)])
def test_a_newer_session_waits_only_for_those_whose_moments_it_may_claim(later: int, *, waits: bool) -> None:
    """A variant that is posted again when its window is over keeps nobody waiting: no record without ``post_id`` can belong to both."""
    monitor = PartitionMonitor(0)
    post(monitor, posting("q"))
    post(monitor, posting("r", T + later), 1, T + later)
    assert monitor.wants_flush is waits


def test_a_record_that_is_delivered_again_stays_with_the_session_that_took_it() -> None:
    """Though a newer session, posted since, holds its moment too."""
    monitor = PartitionMonitor(0)
    post(monitor, posting("old", T), 0)
    see(monitor, 5, T + MINUTE, None)
    again = restored(session(monitor, "old"), position=2)
    post(again, posting("new", T + SECOND), 1)
    assert see(again, 5, T + MINUTE, None) is Result.REDELIVERED
    assert see(again, 6, T + MINUTE, None) is Result.COUNTED
    assert (session(again, "old").counts.views, session(again, "new").counts.views) == (1, 1)


def test_what_had_waited_stays_with_the_first_session_that_came_for_it() -> None:
    """A later one that holds it as well does not count it a second time."""
    monitor = PartitionMonitor(0)
    see(monitor, 4, T + MINUTE, None)
    see(monitor, 9, T + MINUTE, "first")
    post(monitor, posting("first", T), 0)
    assert session(monitor, "first").counts.views == 2
    again = restored(session(monitor, "first"), position=3)
    post(again, posting("second", T + SECOND), 1)
    assert see(again, 4, T + MINUTE, None) is Result.REDELIVERED
    assert session(again, "second").counts.views == 0


def test_a_deadline_passes_once_all_before_the_end_of_grace_has_been_read() -> None:
    """Not a microsecond earlier, whatever the clock says."""
    monitor = PartitionMonitor(0)
    post(monitor, posting())
    see(monitor, 0)
    monitor.tick(DEADLINE + GRACE - 1, DEADLINE + DAY)
    assert session(monitor).end is None
    assert see(monitor, 1, DEADLINE - 1, appended=DEADLINE + GRACE - 1) is Result.COUNTED
    monitor.tick(DEADLINE + GRACE, NOW)
    end = session(monitor).end
    assert end is not None
    assert (end.outcome, end.ended_at, end.decided_at, end.reason, end.origin) == (Outcome.TIMED_OUT, DEADLINE, NOW, "10-minute monitoring window expired", None)
    assert session(monitor).counts.views == 2
    assert monitor.active_count == 0
    monitor.tick(DEADLINE + DAY, NOW)
    assert kinds(monitor) == ["Started", "Ended"]


def test_many_deadlines_are_done_in_slices() -> None:
    """So that a kill need not wait for all of them."""
    monitor = PartitionMonitor(0)
    for number in range(5):
        post(monitor, posting(f"q{number}"), number)
    assert monitor.tick(DEADLINE + GRACE, NOW, limit=3)
    assert monitor.active_count == 2
    assert not monitor.tick(DEADLINE + GRACE, NOW, limit=3)
    assert monitor.active_count == 0
    for number in range(3):
        see(monitor, number, post_id="unknown")
    assert monitor.tick(DEADLINE + DAY, NOW, limit=2)
    assert monitor.waiting.count == 1


def test_a_stop_ends_what_is_active_at_its_append_time() -> None:
    """All sessions of the variant, or the one it names; who has ended stays as it was."""
    monitor = PartitionMonitor(0)
    for offset, name in enumerate(("q", "r", "s")):
        post(monitor, posting(name), offset)
    assert monitor.stop(Stop("v", "r"), 7, T + 5, NOW) is Result.COUNTED
    assert monitor.stop(Stop("v", "r"), 8, T + 6, NOW) is Result.AFTER_END
    assert monitor.stop(Stop("v"), 9, T + 7, NOW) is Result.COUNTED
    assert monitor.stop(Stop("w"), 10, T + 8, NOW) is Result.AFTER_END
    ends = {name: session(monitor, name).end for name in ("q", "r", "s")}
    assert {name: (end.ended_at, end.origin.offset, end.reason) for name, end in ends.items() if end and end.origin} == {
        "q": (T + 7, 9, "Manually stopped"),
        "r": (T + 5, 7, "Manually stopped"),
        "s": (T + 7, 9, "Manually stopped"),
    }


def acknowledge(monitor: PartitionMonitor) -> None:
    for emission in monitor.take_emissions():
        if not isinstance(emission, Rejected):
            monitor.acknowledged(emission)


def test_an_ended_session_is_forgotten_after_a_day() -> None:
    """Once a post appended in the last moment of that day can come no more, and its emissions have arrived."""
    monitor = PartitionMonitor(0)
    post(monitor, posting("q"))
    post(monitor, posting("r"), 1)
    monitor.tick(DEADLINE + GRACE, NOW)
    monitor.forget(DEADLINE + DAY + 1)
    assert len(list(monitor.sessions)) == 2, "its end is not acknowledged"
    acknowledge(monitor)
    monitor.forget(DEADLINE + DAY)
    assert post(monitor, posting("q"), 2, DEADLINE + DAY) is Result.DUPLICATE
    assert monitor.forget(DEADLINE + DAY + 1, limit=1)
    assert not monitor.forget(DEADLINE + DAY + 1, limit=5)
    assert not list(monitor.sessions)
    changed, deleted = monitor.take_changes()
    assert (changed, {one.post_id for one in deleted}) == ([], {"q", "r"})


def untold(monitor: PartitionMonitor) -> set[str]:
    """Post ids of what is shown as active; fails unless it is what every session says of itself."""
    assert monitor.untold == {one for one in monitor.sessions if one.told_end is None}
    return {one.post_id for one in monitor.untold}


def test_a_session_is_shown_as_active_until_its_end_is_durable() -> None:
    """It is not counted as active any more by then. Restored, an end is durable already; and what is forgotten is not shown, whatever it was told."""
    monitor = PartitionMonitor(0)
    for offset, name in enumerate("qrs"):
        post(monitor, posting(name), offset)
    monitor.stop(Stop("v", "q"), 0, T, NOW)
    assert (untold(monitor), monitor.active_count) == ({"q", "r", "s"}, 2)
    monitor.latched(session(monitor, "q"))
    assert session(monitor, "q").told_end is not None
    assert (untold(monitor), monitor.active_count) == ({"r", "s"}, 2)
    monitor.stop(Stop("v", "r"), 1, T, NOW)
    assert untold(restored(*monitor.sessions)) == {"s"}
    acknowledge(monitor)
    monitor.forget(DEADLINE + DAY + 1)
    assert (untold(monitor), len(monitor.sessions)) == ({"s"}, 1)


def test_what_may_not_have_been_told_is_told_again_after_a_restore() -> None:
    """And nothing once it has been acknowledged."""
    monitor = PartitionMonitor(0)
    post(monitor, posting())
    monitor.stop(Stop("v"), 0, T, NOW)
    again = restored(session(monitor))
    first = again.take_emissions()
    assert [type(emission) for emission in first] == [Started, Ended]
    assert again.active_count == 0
    for emission in first:
        again.acknowledged(emission)  # type: ignore[arg-type]
    assert kinds(restored(session(again))) == []


def test_a_restored_session_times_out_too() -> None:
    """With no traffic at all."""
    monitor = PartitionMonitor(0)
    post(monitor, posting())
    again = restored(session(monitor))
    assert again.active_count == 1
    again.tick(DEADLINE + GRACE, NOW)
    assert kinds(again) == ["Started", "Ended"]


def restored_waiter(offset: int, at: int = T, post_id: str | None = "q") -> Waiter:
    return Waiter(Interaction("v", "view", at, 1, post_id), offset, at, b"v", b"seen", at + 10 * MINUTE, offset, restored=True)


def test_a_waiter_whose_session_is_durable_has_been_seen_to() -> None:
    """Its segment goes at the next flush; also if it was early or late, and did not count."""
    for at in (T, T - 1, DEADLINE):
        monitor = PartitionMonitor(0)
        see(monitor, 4, at)
        post(monitor, posting())
        again = restored(session(monitor), waiters=(restored_waiter(4, at), restored_waiter(5, at, "other")), position=5)
        assert again.waiting.count == 1
        assert [(segment, waiters) for _, segment, waiters in again.waiting.changed_segments()] == [(4, [])]
        assert see(again, 4, at) is not Result.WAITING
        assert session(again).counts.views == (at == T)


def test_a_waiter_that_is_delivered_again_keeps_its_place() -> None:
    """Segments do not become durable in order: what was restored of them must not overtake what comes again, or that would count as applied."""
    again = restored(waiters=(restored_waiter(1), restored_waiter(4)), position=1)
    assert again.waiting.count == 1
    assert [(segment, waiters) for _, segment, waiters in again.waiting.changed_segments()] == [(4, [])]
    post(again, posting())
    assert [see(again, offset) for offset in (2, 3, 4)] == [Result.COUNTED] * 3
    assert session(again).counts.views == 4


def test_restored_waiters_that_have_been_taken_do_not_look_at_all_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of thousands may wait for another post of the same variant."""
    first = PartitionMonitor(0, position=9)
    post(first, posting())
    monkeypatch.setattr(Waiting, "of", None)
    again = restored(session(first), waiters=tuple(restored_waiter(offset) for offset in range(5)), position=9)
    assert again.waiting.count == 0


def test_a_waiter_that_is_durable_is_not_let_in_again() -> None:
    """Its record may be delivered again; it counts once."""
    again = restored(waiters=(restored_waiter(4),), position=4)
    assert see(again, 4) is Result.REDELIVERED
    post(again, posting())
    assert again.take_resolved() == {(Result.COUNTED, True): 1}
    assert see(again, 4) is Result.REDELIVERED
    assert session(again).counts.views == 1


def test_a_bad_interaction_moves_the_position_on() -> None:
    """A later session need not look back at it."""
    monitor = PartitionMonitor(0)
    assert monitor.reject("interaction", 7, T, None, None, "bad") is Result.DEAD_LETTER
    assert monitor.reject("variant_posted", 9, T, None, None, "bad") is Result.DEAD_LETTER
    assert monitor.position == 7
    assert kinds(monitor) == ["Rejected", "Rejected"]


def test_the_grace_and_the_wait_can_be_configured() -> None:
    """They are part of the rule."""
    monitor = PartitionMonitor(0, Limits(grace=0, wait=SECOND))
    post(monitor, posting())
    assert see(monitor, 0, DEADLINE - 1, appended=DEADLINE) is Result.LATE
    see(monitor, 1, post_id="other")
    monitor.tick(T + SECOND, NOW)
    assert monitor.waiting.count == 0


# -- the durable form ------------------------------------------------------------------------------------------------


def busy() -> Session:
    monitor = PartitionMonitor(0)
    monitor.post(Posting("v", "p", "q", Policy(), T, "threads", {"n": 10**40, "text": "é"}), 3, T, b"v", b"post", NOW)
    see(monitor, 8)
    monitor.interact(Interaction("v", "snapshot", T, 1, "q", "e1", (5, None, 2, 0, 0, 0, 0, 0)), 9, T, b"v", b"", NOW)
    monitor.stop(Stop("v"), 0, T, NOW)
    return session(monitor)


def test_a_session_comes_back_as_it_was() -> None:
    """Ended, its event ids apart, which nobody asks for any more."""
    before = busy()
    before.is_end_durable = True  # as soon as it is written
    after = decode_session(encode_session(before), lambda _session, _number: None)
    assert (after.counts.by_kind(), after.counts.views, after.counts.interactions) == (before.counts.by_kind(), 5, 2)
    for name in Session.__slots__:
        if name not in ("counts", "event_ids", "is_changed"):
            assert getattr(after, name) == getattr(before, name), name
    again = decode_session(encode_session(after), lambda _session, _number: None)
    assert encode_session(again) == encode_session(after)


def test_a_stop_is_told_alike_after_a_crash_also_who_asked_for_it() -> None:
    """Also where its state is of a time when nobody asked who did: then nothing was told of it, and nothing is."""
    monitor, request = PartitionMonitor(0), StopRequest("token 0011aabb", "390c3896-29b9-43ac-95f0-031d3760aa74")
    post(monitor, posting("q"), 0)
    monitor.stop(Stop("v", "q", request), 7, T + 5, NOW)
    before = session(monitor, "q")
    state = encode_session(before)
    after = decode_session(state, lambda _session, _number: None)
    assert after.end == before.end
    assert end_record(after) == end_record(before)
    assert end_record(after).stop_request == request
    earlier = decode_session(msgspec.msgpack.encode(msgspec.msgpack.decode(state)[:-1]), lambda _session, _number: None)
    assert end_record(earlier).stop_request is None
    assert "stop_request" not in end_record(earlier).monitoring_metadata


def test_a_session_whose_segment_is_missing_does_not_start() -> None:
    """Rather than count ids twice."""
    state = busy()
    state.end = None
    for number in range(100):
        state.event_ids.reserve(event_hash(f"x{number}"))  # type: ignore[union-attr]
    changes = seal_event_ids(state)
    segments = dict(changes.written)
    again = decode_session(encode_session(state), lambda _session, number: segments.get(number))
    assert again.event_ids is not None
    assert not again.event_ids.reserve(event_hash("x99"))
    with pytest.raises(Refusal, match="segment 0 of its event ids is missing"):
        decode_session(encode_session(state), lambda _session, _number: None)


def test_an_ended_session_lets_its_event_ids_go() -> None:
    """All segments, once; one without ids has none to let go."""
    state = busy()
    state.end = None
    for number in range(100):
        state.event_ids.reserve(event_hash(f"x{number}"))  # type: ignore[union-attr]
    seal_event_ids(state)
    state.end = busy().end
    assert (seal_event_ids(state).dropped, seal_event_ids(state).dropped) == ([0], [])
    assert state.event_ids is None


def test_a_latched_end_counts_on_no_segment_that_is_still_on_its_way() -> None:
    """A stop that comes in the middle of a flush is durable before that flush's segments may be."""
    state = busy()
    state.end = None
    for number in range(100):
        state.event_ids.reserve(event_hash(f"x{number}"))  # type: ignore[union-attr]
    seal_event_ids(state)
    state.end = busy().end
    assert decode_session(encode_session(state), lambda _session, _number: None).end == state.end


def test_a_state_of_another_version_or_none_at_all_is_refused() -> None:
    """In one clear line."""
    state = bytearray(encode_session(busy()))
    assert state[3] == 2
    state[3] = 1
    with pytest.raises(Refusal, match="version 1; this program knows version 2"):
        decode_session(bytes(state), lambda _session, _number: None)
    with pytest.raises(Refusal, match="cannot be read"):
        decode_session(b"junk", lambda _session, _number: None)
    for junk in (b"junk", b"\x91\x95\x01\x01\x01\xc4\x01v\xc4\x01x"):
        with pytest.raises(Refusal, match="cannot be read"):
            decode_waiters(junk, 1)


def test_waiters_come_back_as_they_were() -> None:
    """With their records, byte for byte."""
    value = b'{"variant_id":"v","kind":"view"}'
    before = Waiter(Interaction("v", "view", T), 7, T, b"v", value, T + 5)
    (after,) = decode_waiters(encode_waiters([before]), 7)
    assert (after.event, after.offset, after.append_us, after.key, after.value, after.until) == (before.event, 7, T, b"v", value, T + 5)
    assert (after.segment, after.restored) == (7, True)

"""What the world is told of a session: all fields of the contract, none else."""

from __future__ import annotations

import json

import pytest

from models import ids
from models.announcement import end_record, kill_event, start_record
from models.events import Interaction, Posting
from models.monitoring_record import parse
from models.policy import Policy
from models.session import End, Outcome, Session

T = 1_700_000_000_000_000


def started() -> Session:
    return Session.start(Posting("v", "p", "q", Policy(), T, "threads", {"campaign": 1}), 0, -1, -1)


def killed() -> Session:
    session = started()
    for offset, (kind, count) in enumerate((("like", 10), ("view", 334))):
        session.count(Interaction("v", kind, T + 1_500_000, count, "q"), offset, T + 1_500_000, "interaction", 3, T + 2_000_000, 0)
    return session


def test_a_kill_event_has_every_field_of_the_contract() -> None:
    """And the same ids however often it is decided."""
    assert kill_event(killed()) == {
        "schema_version": 1,
        "kill_id": str(ids.kill_id(ids.session_id("v", "q"))),
        "session_id": str(ids.session_id("v", "q")),
        "variant_id": "v",
        "persona_id": "p",
        "post_id": "q",
        "reason": "Below 50% of expected engagement rate",
        "policy": "ratio",
        "expected_engagement_rate": 0.06,
        "kill_threshold": 0.5,
        "min_interactions": 10,
        "final_engagement_rate": 10 / 334,
        "final_interaction_count": 10,
        "final_view_count": 334,
        "counts": {"view": 334, "like": 10, "reply": 0, "repost": 0, "quote": 0, "share": 0, "click": 0, "save": 0},
        "posted_at": "2023-11-14T22:13:20.000000Z",
        "decided_at": "2023-11-14T22:13:22.000000Z",
        "deciding_event": {"topic": "interaction", "partition": 3, "offset": 1, "occurred_at": "2023-11-14T22:13:21.500000Z"},
        "time_to_kill_seconds": 1.5,
    }


def test_a_start_is_told_with_the_columns_of_the_end_null() -> None:
    """Where the post came from goes along."""
    value = json.loads(start_record(started()).to_bytes())
    assert value["kind"] == "started"
    assert value["is_active"] is True
    for name in ("ended_at", "outcome", "kill_reason", "final_engagement_rate", "final_interaction_count", "final_view_count", "kill_id", "decided_at"):
        assert value[name] is None
    assert value["monitoring_metadata"] == {"policy": "ratio", "source": "threads", "event_metadata": {"campaign": 1}}


def test_an_end_carries_all_columns() -> None:
    """It may be seen before its start."""
    session = killed()
    value = json.loads(end_record(session).to_bytes())
    assert (value["kind"], value["is_active"], value["was_killed"], value["outcome"]) == ("killed", False, True, "killed")
    assert (value["started_at"], value["ended_at"]) == ("2023-11-14T22:13:20.000000Z", "2023-11-14T22:13:21.500000Z")
    assert value["kill_id"] == str(ids.kill_id(session.id))
    assert value["monitoring_metadata"]["deciding_event"] == {"topic": "interaction", "partition": 3, "offset": 1, "occurred_at": "2023-11-14T22:13:21.500000Z"}
    assert value["monitoring_metadata"]["event_metadata"] == {"campaign": 1}


def test_a_time_out_names_no_deciding_event_and_no_kill() -> None:
    """Without views its rate is null."""
    session = started()
    session.finish(End(Outcome.TIMED_OUT, session.policy.timeout_reason, session.deadline, T, None, "expired"))
    value = json.loads(end_record(session).to_bytes())
    assert (value["kill_reason"], value["final_engagement_rate"], value["final_view_count"], value["kill_id"]) == ("10-minute monitoring window expired", None, 0, None)
    assert value["monitoring_metadata"]["deciding_event"] is None


def test_what_is_told_is_what_the_sink_reads() -> None:
    """Each kind of record, with numbers of any size in the metadata."""
    session = killed()
    session.metadata = {"n": 10**40}
    for record in (start_record(session), end_record(session)):
        assert parse(record.to_bytes()) == record


def test_only_an_end_can_be_told_as_an_end() -> None:
    """And only a kill as a kill."""
    session = started()
    with pytest.raises(ValueError, match="has not ended"):
        end_record(session)
    session.finish(End(Outcome.STOPPED, "Manually stopped", T, T))
    with pytest.raises(ValueError, match="was not killed"):
        kill_event(session)

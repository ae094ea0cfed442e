"""Everything that has to hold of what workers have left behind, and of a worker that has nothing left to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from models.session import Result
from models.state import decode_session
from streams.tables import parse_key
from tests.faults.oracle import EPOCH, Fate
from tests.simulation.broker import Broker
from tests.simulation.history import History, Shape
from tests.simulation.oracle import Verdicts
from tests.simulation.worker import CHANGELOGS, Life

_decode = msgspec.json.Decoder().decode


class Violation(AssertionError):
    """Something the contract promises does not hold."""


def claim(holds: object, what: str, *details: object) -> None:
    """Raise ``Violation`` unless ``holds``."""
    if not holds:
        raise Violation(f"{what}: {' | '.join(map(str, details))}")


@dataclass(slots=True)
class Run:
    """What one seed has brought about; says whether its faults have bitten."""

    history: History
    broker: Broker
    crashes: int = 0
    stops: int = 0
    redelivered: int = 0
    restored: int = 0
    unacknowledged: int = 0
    repeated_ends: int = 0
    kills: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    hung: int = 0
    lingering: int = 0
    overtaken: int = 0
    rebalances: int = 0
    owned_until: int = 0
    strays: int = 0
    pinned: dict[str, int] = field(default_factory=dict)
    diary: list[tuple[int, str]] = field(default_factory=list)

    def note(self, at: int, what: str) -> None:
        """Write down what happens at a moment."""
        self.diary.append((at, what))


def pin(run: Run) -> None:
    """Note what has been made durable of each end, for it may only be told word for word from now on."""
    for partition in {tp.partition for tp in run.history.records}:
        for value in run.broker.recovered("engagement", partition).content.values():
            session = decode_session(value, lambda _session, _number: b"")
            if session.end is not None:
                pinned = run.pinned.setdefault(str(session.id), session.end.decided_at)
                claim(pinned == session.end.decided_at, "an end that is durable stays as it is", session)


def check_accounts(life: Life) -> None:
    tally = life.tally
    waiting = life.left_waiting + life.own_waiting
    claim(tally.results[Result.WAITING] - tally.resolved_own == waiting, "each waiting record gets one final result", tally.results, tally.resolved, waiting)


def check_rest(run: Run, life: Life, first: dict[Any, int]) -> None:
    """Everything has been read, decided, told, written and committed."""
    check_accounts(life)
    for tp, records in run.history.records.items():
        claim(life.consumer.positions[tp] == len(records), "all is read", tp)
        claim(run.broker.committed.get(tp, 0) == len(records), "all is committed", tp, run.broker.committed.get(tp), len(records))
    for topic in {tp.topic for tp in run.history.records}:
        count = sum(len(records) - first.get(tp, 0) for tp, records in run.history.records.items() if tp.topic == topic)
        claim(life.tally.read[topic] == count, "each record read has one result", topic, life.tally.read[topic], count)
    for monitor in life.monitors:
        claim(monitor.active_count == 0, "no session is left open", [s for s in monitor.sessions if s.end is None])
        claim(monitor.untold == {s for s in monitor.sessions if s.told_end is None}, "what is shown as active has no end that is told", monitor.untold)
        claim(monitor.waiting.count == 0, "nothing waits for ever")
        claim(not any(s.start_pending or s.end_pending for s in monitor.sessions), "all is told")
        ended = sum(s.end is not None for s in monitor.sessions)
        claim(ended == len(monitor.sessions), "all have ended")
    claim(life.busy_workers() == 0, "no emission is under way")


def check_written_again(run: Run, began: int) -> None:
    """Of two records of a key, compaction keeps the later one; if that is a stray, the other one has to be there again, behind it."""
    for name in CHANGELOGS:
        for partition in {tp.partition for tp in run.history.records}:
            content = run.broker.recovered(name, partition).content
            claim(run.broker.content_if_compacted(name, partition, began - 1_000) == content, "compaction of what a worker has found takes away nothing that counts", name)


def check_forgotten(run: Run, life: Life) -> None:
    for monitor in life.monitors:
        claim(not monitor.sessions, "a day later nothing is remembered", list(monitor.sessions))
    for name in CHANGELOGS:
        for partition in {tp.partition for tp in run.history.records}:
            content = run.broker.recovered(name, partition).content
            claim(not content, "a day later nothing is kept", name, [parse_key(key) for key in content])


def _letters(run: Run) -> set[tuple[str, int, int]]:
    values = [_decode(record.value or b"") for record in run.broker.told("dead_letter")]
    return {(value["topic"], value["partition"], value["offset"]) for value in values}


def _told(run: Run, topic: str) -> Iterator[dict[str, Any]]:
    for record in run.broker.told(topic):
        value = _decode(record.value or b"")
        claim(record.key == value["variant_id"].encode(), "records are keyed by variant", record)
        yield value


def check_told(run: Run, verdicts: Verdicts, shape: Shape) -> None:
    ends: dict[str, dict[str, Any]] = {}
    starts: dict[str, dict[str, Any]] = {}
    decided: dict[str, list[int]] = {}
    for record in _told(run, "monitoring_record"):
        session = record["session_id"]
        if record["kind"] == "started":
            claim(starts.setdefault(session, record) == record, "a start is repeated word for word", record)
            continue
        known = ends.setdefault(session, record)
        run.repeated_ends += known is not record
        decided.setdefault(session, []).append(_us(record["decided_at"]))
        _check_repetition(known, record)
    for session, decided_at in run.pinned.items():
        told = decided.get(session, [])  # who has lost the session may tell of its kill, too, whenever it comes to it
        claim(decided_at in (told if shape.strays else told[-1:]), "an end that is durable is told word for word", session, decided_at, told)
    kills: dict[str, dict[str, Any]] = {}
    for kill in _told(run, "variant_killed"):
        known = kills.setdefault(kill["session_id"], kill)
        claim({**known, "decided_at": 0} == {**kill, "decided_at": 0}, "a kill is repeated word for word", known, kill)
        end = ends.get(kill["session_id"])
        claim(end is not None and end["kind"] == "killed", "who is killed has ended so", kill, end)
    claim({session for session, end in ends.items() if end["kind"] == "killed"} == set(kills), "who has ended so is killed")
    run.kills = len(kills)
    run.outcomes.update(end["kind"] for end in ends.values())
    fates = {str(fate.session_id): fate for fate in verdicts.fates.values()}
    claim(set(starts) == set(ends) == set(fates), "each session that was posted starts and ends, and no other", set(starts) ^ set(ends), set(fates) ^ set(ends))
    for session, fate in fates.items():
        claim(ends[session]["kind"] != "stopped" or (fate.variant_id, fate.post_id) in verdicts.stoppable, "a stop that comes when the time is over ends nothing", fate)
        claim(ends[session]["kind"] != "timed_out" or (fate.variant_id, fate.post_id) not in verdicts.stopped, "a stop is not lost", fate)
        if not ((fate.variant_id, fate.post_id) in verdicts.undecided or shape.anonymous or ends[session]["kind"] == "stopped"):
            _check_fate(fate, starts[session], ends[session], kills.get(session))
    if not shape.anonymous:
        letters = _letters(run)
        claim(verdicts.dead <= letters, "what cannot be used is in the dead letters", verdicts.dead - letters)
        claim(letters <= verdicts.dead | verdicts.may_be_dead, "nothing else is", letters - verdicts.dead - verdicts.may_be_dead)
    else:
        claim(run.history.bad <= _letters(run), "what cannot be used is in the dead letters", run.history.bad - _letters(run))


def _check_repetition(known: dict[str, Any], record: dict[str, Any]) -> None:
    claim(known == record, "an end is repeated word for word, the moment of the decision too", known, record)


def _us(moment: str) -> int:
    return (datetime.fromisoformat(moment) - EPOCH) // timedelta(microseconds=1)


def _check_fate(fate: Fate, start: dict[str, Any], end: dict[str, Any], kill: dict[str, Any] | None) -> None:
    claim(start["started_at"] == end["started_at"] and _us(start["started_at"]) == fate.posted_at, "it started when it was posted", start, fate)
    claim(start["persona_id"] == end["persona_id"] == fate.persona_id, "the first post counts", start, fate)
    claim(end["kind"] == fate.outcome, "it ends as it has to", end, fate)
    claim(_us(end["ended_at"]) == fate.ended_at, "it ends when it has to", end, fate)
    claim(end["kill_reason"] == fate.reason, "it ends for the right reason", end, fate)
    claim((end["final_view_count"], end["final_interaction_count"]) == (fate.views, fate.interactions), "its counts are right", end, fate)
    claim(end["monitoring_metadata"]["counts"] == fate.counts, "its counts per kind are right", end, fate)
    claim(end["final_engagement_rate"] == fate.rate, "its rate is right", end, fate)
    claim((kill is not None) == (fate.outcome == "killed"), "who must be killed is, and nobody else", kill, fate)
    if kill is not None:
        claim((kill["deciding_event"]["partition"], kill["deciding_event"]["offset"]) == fate.decided_by, "the right event decides", kill, fate)
        claim(kill["reason"] == fate.reason and kill["counts"] == fate.counts, "the kill says why", kill, fate)
        claim(kill["time_to_kill_seconds"] == (fate.ended_at - fate.posted_at) / 1e6, "the kill says how soon", kill, fate)

"""Records that are passed over: how many of them retention has removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from faust.types import TP

from models.errors import Retry, Stop
from streams import origins
from streams.origins import LOOK_SECONDS, MISSING_ANSWERS, Origins, _compare

HERE, THERE = TP("interaction", 0), TP("variant_posted", 1)


class Consumer:
    """Knows where partitions begin, or does not answer; ``meanwhile`` happens as it is asked."""

    def __init__(self, starts: dict[TP, int]) -> None:
        self.starts, self.answers = starts, True
        self.asked: list[set[TP]] = []
        self.meanwhile = lambda: None

    async def earliest_offsets(self, *tps: TP) -> Mapping[TP, int]:
        self.asked.append(set(tps))
        self.meanwhile()
        if not self.answers:
            raise KafkaConnectionError
        return {tp: self.starts[tp] for tp in tps}


class Run:
    """A monitor that owns both partitions, and has read both up to offset 100."""

    def __init__(self, **starts: int) -> None:
        self.consumer = Consumer({HERE: starts.get("here", 0), THERE: starts.get("there", 0)})
        self.lost: list[tuple[str, int]] = []
        app: Any = SimpleNamespace(consumer=self.consumer)
        table: Any = SimpleNamespace(key=lambda _name: b"", forget=lambda: None)
        self.origins = Origins(app, [HERE.topic, THERE.topic], [], table, None, identities=None, partitions=2, lost=lambda *lost: self.lost.append(lost))  # type: ignore[arg-type]
        self.own()

    def own(self) -> None:
        """As after a takeover."""
        self.origins._next = {HERE: 100, THERE: 100}

    async def look(self) -> list[tuple[str, int]]:
        """Return what was told of since the last look."""
        self.lost.clear()
        assert await self.origins.look() == LOOK_SECONDS
        return self.lost


async def test_many_gaps_are_one_question_to_kafka() -> None:
    """With a producer of transactions nearly every fetch leaves one."""
    run = Run()
    for first in range(101, 301, 2):
        run.origins.fetched(HERE, first, first)
        run.origins.fetched(THERE, first, first)
    assert await run.look() == []
    assert run.consumer.asked == [{HERE, THERE}]
    await run.look()
    assert len(run.consumer.asked) == 1


@pytest.mark.parametrize(("start", "lost"), [(100, 0), (101, 1), (110, 10), (115, 10), (120, 10), (121, 11), (500, 15)])
async def test_what_lies_before_a_partitions_beginning_is_lost(start: int, lost: int) -> None:
    """Of each gap only as much as was passed over, and of each partition by its own beginning."""
    run = Run(here=start, there=100)
    for tp in (HERE, THERE):
        run.origins.fetched(tp, 110, 119)
        run.origins.fetched(tp, 125, 130)
    assert await run.look() == ([(HERE.topic, lost)] if lost else [])
    assert await run.look() == []


async def test_a_gap_waits_for_kafka() -> None:
    """And one that is noted as Kafka is asked, for the next look: the answer may be older."""
    run = Run(here=110)
    run.origins.fetched(HERE, 110, 119)
    run.consumer.answers = False
    with pytest.raises(Retry, match="Kafka did not say where the partitions of interaction begin: KafkaConnectionError"):
        await run.look()
    run.consumer.answers, run.consumer.meanwhile = True, lambda: run.origins.fetched(THERE, 103, 119)
    assert await run.look() == [(HERE.topic, 10)]
    run.consumer.meanwhile, run.consumer.starts[THERE] = lambda: None, 103
    assert await run.look() == [(THERE.topic, 3)]
    assert run.consumer.asked == [{HERE}, {HERE}, {THERE}]


async def test_a_gap_of_the_next_assignment_is_not_mistaken_for_one_of_the_last() -> None:
    """Partitions may be taken away as Kafka is asked."""
    run = Run(here=110)
    run.origins.fetched(HERE, 110, 119)

    def rebalance() -> None:
        run.origins.forget()
        run.own()
        run.origins.fetched(THERE, 103, 119)

    run.consumer.meanwhile, run.consumer.starts[THERE] = rebalance, 103
    assert await run.look() == [(HERE.topic, 10)]
    run.consumer.meanwhile = lambda: None
    assert await run.look() == [(THERE.topic, 3)]
    run.origins.fetched(HERE, 105, 119)
    run.origins.forget()
    assert await run.look() == []


@pytest.mark.parametrize("unknown_for", [0, 3, 1_000])
async def test_a_takeover_waits_some_time_for_topics_that_were_made_just_now(monkeypatch: pytest.MonkeyPatch, unknown_for: int) -> None:
    """A broker that is making hundreds of partitions does not know all of them at once; one that leaves a topic out again and again is believed."""
    monkeypatch.setattr(origins, "ASK_AGAIN_SECONDS", 0)
    run, asked = Run(), 0

    async def identities(names: Sequence[str]) -> dict[str, Any]:
        nonlocal asked
        asked += 1
        return dict.fromkeys(names[: 1 if asked <= unknown_for else None])

    run.origins._identities = identities  # type: ignore[assignment]
    assert len(await run.origins._told()) == (1 if unknown_for == 1_000 else 2)
    assert asked == min(unknown_for + 1, MISSING_ANSWERS)


@pytest.mark.parametrize(
    ("noted", "position", "start", "is_said"),
    [
        ({"interaction": "id"}, None, 5, True),
        ({"interaction": "id"}, None, 0, False),  # nothing was removed
        ({"interaction": "id"}, 3, 5, False),  # counted
        (None, None, 5, False),  # a new group
    ],
)
def test_a_group_whose_positions_are_gone_cannot_tell_what_was_lost(noted: Any, position: int | None, start: int, caplog: pytest.LogCaptureFixture, *, is_said: bool) -> None:
    """And says so; where the group has read nothing yet, there is nothing to say."""
    run = Run()
    run.origins._app.conf = SimpleNamespace(id="app")
    places = [TP(topic, 0) for topic in (HERE.topic, THERE.topic)]
    run.origins._look_for_positions({0: noted}, {places[0]: position, places[1]: None}, {places[0]: start, places[1]: 0})
    assert ("Kafka has forgotten how far consumer group app had read partition 0" in caplog.text) is is_said


def test_a_state_that_was_made_from_other_topics_is_none_of_ours() -> None:
    """As with another topic prefix and the same consumer group: its sessions would be ended on topics that they were never posted to."""
    ids = {"b.variant_posted": "1", "b.interaction": "2"}
    _compare({}, ids)
    _compare(ids, ids)
    with pytest.raises(Stop, match=r"made from other topics \(a\.interaction, a\.variant_posted\): with another EARLY_KILL_TOPIC_PREFIX"):
        _compare({"a.variant_posted": "1", "a.interaction": "2"}, ids)

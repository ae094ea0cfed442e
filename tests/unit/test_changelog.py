"""An owner of a changelog partition: it claims it, says whose each record is, and notices when somebody else writes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from streams.changelog import Changelog, Changelogs, Overtaken, claim
from streams.ports import Place
from streams.tables import CLAIM, Recovered

Row = tuple[bytes, bytes | None, int]


@dataclass
class Sent:
    place: Place
    course: object
    arrives: bool = True


@dataclass
class PartitionLog:
    """A log of one partition; the test says which sends are not acknowledged, and whether they have arrived all the same."""

    rows: list[Row] = field(default_factory=list)
    failing: list[bool] = field(default_factory=list)
    course_now: object = field(default_factory=object)
    forgets_places: bool = False
    owners: dict[int, list[tuple[str, bytes]]] = field(default_factory=dict)

    def write(self, *rows: Row) -> None:
        """Write as somebody else."""
        self.rows += rows

    async def send(self, topic: str, key: bytes | None, value: bytes | None, partition: int | None = None) -> Sent:
        raise NotImplementedError

    async def send_all(
        self,
        topic: str,  # noqa: ARG002 - the log's signature
        partition: int,  # noqa: ARG002 - likewise
        records: Iterable[tuple[bytes, bytes | None]],
        headers: Sequence[tuple[str, bytes]] = (),
        on: object | None = None,
    ) -> Sent | None:
        await asyncio.sleep(0)
        first, course = len(self.rows), self.course_now
        if on is not None and on is not course:
            return None
        arrived = self.failing.pop(0) if self.failing else None
        if arrived is not False:
            self.rows += [(key, value, int(headers[0][1])) for key, value in records]
            self.owners |= {offset: list(headers[1:]) for offset in range(first, len(self.rows))}
        if arrived is not None:
            self.course_now = object()
        return Sent(Place(first, len(self.rows)), course, arrived is None)

    async def delivered(self, sent: Sent) -> bool:
        return sent.arrives

    async def read(self, topic: str, partition: int, first: int, end: int) -> list[Any]:
        assert (topic, partition) == ("engagement", 2)
        return [
            SimpleNamespace(offset=offset, key=key, value=value, timestamp=0, headers=[("g", b"%d" % generation), *self.owners.get(offset, [])])
            for offset, (key, value, generation) in enumerate(self.rows)
        ][first:end]

    def course(self, sent: Sent) -> object:
        return sent.course

    def place(self, sent: Sent) -> Place | None:
        return None if self.forgets_places else sent.place


def changelog(log: PartitionLog, recovered: Recovered | None = None) -> Changelog:
    return Changelog(log, "engagement", 2, recovered)


async def write(target: Changelog, *records: tuple[bytes, bytes | None]) -> bool:
    return await target.delivered(await target.send(records))


async def test_an_owner_begins_with_a_claim_one_generation_further() -> None:
    """Its own records bear the same generation, tombstones too."""
    log = PartitionLog([(b"a", b"1", 6)])
    owned = changelog(log, Recovered({b"a": b"1"}, furthest=6, end=1))
    await owned.claim()
    assert await write(owned, (b"a", b"2"), (b"b", None))
    assert log.rows[1:] == [(CLAIM, None, 7), (b"a", b"2", 7), (b"b", None, 7)]


class BatchedLog(PartitionLog):
    """One that lets others have their turn between two batches, here of one record each."""

    async def send_all(
        self, topic: str, partition: int, records: Iterable[tuple[bytes, bytes | None]], headers: Sequence[tuple[str, bytes]] = (), on: object | None = None
    ) -> Sent | None:
        places = []
        for one in records:
            sent = await super().send_all(topic, partition, [one], headers, on)
            assert sent is not None
            places.append(sent.place)
            await asyncio.sleep(0)
        return Sent(Place(places[0].first, places[-1].end), self.course_now)


async def test_an_owner_that_sends_twice_at_once_does_not_take_itself_for_another() -> None:
    """As when a flush deletes what is forgotten, in one batch, while ends of sessions are written, in several."""
    log = BatchedLog()
    owned = changelog(log)
    await owned.claim()
    states: list[tuple[bytes, bytes | None]] = [(b"%d" % number, b"state") for number in range(5)]
    assert await asyncio.gather(write(owned, *states), write(owned, (b"old", None)), write(owned, *states)) == [True] * 3
    assert [key for key, _, _ in log.rows[1:]] == [key for key, _ in [*states, (b"old", None), *states]]


async def test_the_first_owner_of_all_claims_the_first_generation() -> None:
    """An empty changelog ends at 0."""
    log = PartitionLog()
    await changelog(log).claim()
    assert log.rows == [(CLAIM, None, 1)]


async def test_what_has_arrived_since_the_end_was_asked_for_is_read_before_the_claim_counts() -> None:
    """One record more than was found is enough; the claim that stands behind it is followed by another one."""
    log = PartitionLog([(b"a", b"1", 6), (b"a", b"2", 6)])
    owned = changelog(log, Recovered({b"a": b"1"}, furthest=6, end=1))
    await owned.claim()
    assert log.rows[2:] == [(CLAIM, None, 7), (CLAIM, None, 8)]
    assert owned.hand_over() == {b"a": b"2"}
    assert await write(owned, (b"a", b"3"))
    assert log.rows[4:] == [(b"a", b"3", 8)]


async def test_of_two_that_claim_at_once_the_later_one_owns() -> None:
    """It has seen the claim of the other, which is overtaken with the next record it writes."""
    log = PartitionLog()
    first, second = changelog(log), changelog(log)
    await asyncio.gather(first.claim(), second.claim())
    assert await write(second, (b"a", b"2"))
    with pytest.raises(Overtaken):
        await write(first, (b"a", b"1"))
    found = Recovered({})
    found.apply(await log.read("engagement", 2, 0, 99))
    assert found.content == {b"a": b"2"}


async def test_what_strays_hide_is_written_again_with_the_claim() -> None:
    """And what they would bring back is deleted."""
    log = PartitionLog([(b"x", b"", 0)] * 9)
    hidden = {b"a": log.rows[0], b"b": log.rows[0]}
    await changelog(log, Recovered({b"a": b"1", b"c": b"1"}, furthest=6, end=9, hidden=hidden)).claim()  # type: ignore[arg-type]
    assert log.rows[9:] == [(CLAIM, None, 7), (b"a", b"1", 7), (b"b", None, 7)]


async def test_an_owner_notices_who_writes_in_between() -> None:
    """Before it believes that its own record is durable: also when the other one's is within a batch, or the first after the claim."""
    log = PartitionLog()
    owned = changelog(log)
    await owned.claim()
    assert await write(owned, (b"a", b"1"))
    log.write((b"a", b"stray", 0))
    with pytest.raises(Overtaken, match="where offset 2 was next and 3 came"):
        await write(owned, (b"a", b"2"))


async def test_a_stray_within_a_batch_is_noticed() -> None:
    """Its first record stands where it should, its last does not."""
    log = PartitionLog()
    owned = changelog(log)
    await owned.claim()
    ticket = await owned.send([(b"a", b"1"), (b"b", b"1")])
    ticket.sent.place = Place(1, 4)
    with pytest.raises(Overtaken):
        await owned.delivered(ticket)


async def test_acknowledgements_may_be_asked_for_in_any_order() -> None:
    """A latch does not wait for a flush."""
    log = PartitionLog()
    owned = changelog(log)
    await owned.claim()
    tickets = [await owned.send([(b"a", b"%d" % number)]) for number in range(3)]
    assert [await owned.delivered(ticket) for ticket in reversed(tickets)] == [True] * 3


@pytest.mark.parametrize("arrived", [True, False])
async def test_after_a_failure_records_may_stand_anywhere_again(arrived: bool) -> None:
    """What failed may have arrived or not; from the first one on that arrives after it, nobody may get in between."""
    log = PartitionLog()
    owned = changelog(log)
    await owned.claim()
    log.failing = [arrived]
    assert not await write(owned, (b"a", b"1"))
    assert await write(owned, (b"a", b"1"))
    assert await write(owned, (b"a", b"2"))
    log.write((b"a", b"stray", 0))
    with pytest.raises(Overtaken):
        await write(owned, (b"a", b"3"))


async def test_a_producer_that_is_made_anew_begins_with_a_claim_one_generation_further() -> None:
    """What the failed one had handed to the network counts for nothing, if it arrives behind that."""
    log = PartitionLog()
    owned = changelog(log)
    await owned.claim()
    log.failing = [False]
    assert not await write(owned, (b"a", b"older"))
    assert await write(owned, (b"a", b"newer"))
    assert log.rows == [(CLAIM, None, 1), (CLAIM, None, 2), (b"a", b"newer", 2)]
    log.write((b"a", b"older", 1))
    found = Recovered({})
    found.apply(await log.read("engagement", 2, 0, 99))
    assert found.content == {b"a": b"newer"}


@pytest.mark.parametrize("arrived", [True, False])
async def test_such_a_claim_may_fail_too(arrived: bool) -> None:
    """It is claimed again, and its owner knows itself, whether the claim before has arrived or not."""
    log = PartitionLog()
    owned = changelog(log)
    await owned.claim()
    log.failing = [False, arrived]
    assert not await write(owned, (b"a", b"1"))
    assert await write(owned, (b"a", b"1"))
    assert log.rows == [(CLAIM, None, 1), *[(CLAIM, None, 2)] * (1 + arrived), (b"a", b"1", 2)]


async def test_two_owners_that_claim_anew_at_once_know_each_other() -> None:
    """Both may claim the same generation: one that has lost the partition, and does not know, and the one that has it now."""
    log = PartitionLog()
    lingering = changelog(log)
    await lingering.claim()
    now = changelog(log, Recovered({}, furthest=1, end=1))
    await now.claim()
    log.failing = [False]
    assert not await write(lingering, (b"a", b"1"))
    with pytest.raises(Overtaken):
        await write(lingering, (b"a", b"1"))


@pytest.mark.parametrize("when", ["its claim is sent", "what stands before it is read"])
async def test_whoever_lets_go_while_it_claims_anew_takes_no_generation(monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """It may be the next owner's by now, and what is sent in it would count."""
    log = PartitionLog()
    owned = changelog(log)
    await owned.claim()
    log.failing = [False]
    assert not await write(owned, (b"a", b"older"))
    name = "delivered" if when == "its claim is sent" else "read"
    act = getattr(log, name)

    async def act_and_revoke(*given: Any) -> Any:
        owned.is_let_go = True
        return await act(*given)

    monkeypatch.setattr(log, name, act_and_revoke)
    assert await owned.send([(b"a", b"older")]) is None
    assert log.rows[1:] == [(CLAIM, None, 2)]


async def test_a_record_of_somebody_else_is_noticed_where_nothing_is_written() -> None:
    """Before compaction takes what it hides. What is on its way, or was written since the end was asked for, is no reason."""
    log = PartitionLog()
    owned = changelog(log)
    owned.look(7)  # nothing is claimed yet
    await owned.claim()
    ticket = await owned.send([(b"a", b"1")])
    owned.look(2)
    assert await owned.delivered(ticket)
    owned.look(1)
    owned.look(2)
    log.write((b"a", b"stray", 0))
    with pytest.raises(Overtaken, match="where offset 2 was next"):
        owned.look(3)
    owned.is_let_go = True
    owned.look(3)


@pytest.mark.parametrize("arrived", [True, False])
@pytest.mark.parametrize("generation", [0, 2])
async def test_who_writes_around_a_failure_is_noticed_too(arrived: bool, generation: int) -> None:
    """What stands there is read: an owner's own records are no danger, those of earlier and later ones are."""
    log = PartitionLog()
    owned = changelog(log)
    await owned.claim()
    log.failing = [arrived]
    assert not await write(owned, (b"a", b"1"))
    log.write((CLAIM, None, generation))
    with pytest.raises(Overtaken):
        await write(owned, (b"a", b"1"))


@pytest.mark.parametrize(("arrived", "claims"), [(True, 3), (False, 1)])
async def test_a_claim_that_may_have_arrived_is_followed_by_others(arrived: bool, claims: int) -> None:
    """Whose record stands there is not known before it is read."""
    log = PartitionLog(failing=[arrived])
    await changelog(log).claim()
    assert [row[0] for row in log.rows] == [CLAIM] * claims


async def test_where_the_brokers_do_not_say_nothing_is_concluded() -> None:
    """They forget after a repetition."""
    log = PartitionLog([(b"x", b"", 0)], forgets_places=True)
    owned = changelog(log)
    await owned.claim()
    assert await write(owned, (b"a", b"1"))


async def test_whoever_has_let_go_is_not_overtaken_and_overtakes_nobody() -> None:
    """The next owner writes: so it should be. What was on its way has arrived, and nothing comes behind the claim."""
    log = PartitionLog()
    owned = changelog(log)
    await owned.claim()
    ticket = await owned.send([(b"a", b"1")])
    rows = [*log.rows, (CLAIM, None, 2)]
    log.write(rows[-1])
    owned.is_let_go = True
    assert ticket is not None
    assert await owned.delivered(ticket)
    assert await owned.write([(b"a", b"2")])
    assert log.rows == rows


async def test_whoever_lets_go_while_it_claims_claims_no_more() -> None:
    """A claim that is not acknowledged is repeated only for as long as the partition is to come."""
    log = PartitionLog(failing=[False, False, False])
    owned = changelog(log)
    owned.is_let_go = True
    await owned.claim()
    assert log.rows == []
    assert len(log.failing) == 2


async def test_a_partition_is_claimed_whole_or_not_at_all() -> None:
    """Who claims the sessions while another is still claiming the rest overtakes it."""
    logs = [PartitionLog() for _ in range(3)]
    await claim(Changelogs(*map(changelog, logs)))
    assert [len(log.rows) for log in logs] == [2, 1, 1]
    ours, theirs = Changelogs(*map(changelog, logs)), changelog(logs[0])

    async def claim_late(late: Changelog = ours.waiting) -> None:
        await Changelog.claim(late)
        await theirs.claim()

    ours.waiting.claim = claim_late  # type: ignore[method-assign]
    with pytest.raises(Overtaken):
        await claim(ours)

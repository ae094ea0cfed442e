"""One partition at work: what is sent when, and what is done only after what."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from models.duplicates import TAIL
from models.monitor import Limits, PartitionMonitor
from models.policy import Defaults
from models.state import decode_session, decode_waiters
from streams import partition
from streams.changelog import Changelog, Changelogs
from streams.partition import FOLD_SLICE, SLICE, SLICES, PartitionWorker, _slices
from streams.ports import Tables
from tests.idle import NAMES

T_MS = 1_700_000_000_000


@dataclass
class HeldLog:
    """A log whose acknowledgements the test gives, topic by topic."""

    held: set[str] = field(default_factory=set)
    failing: dict[str, int] = field(default_factory=dict)
    sent: list[tuple[str, bytes | None, bytes | None]] = field(default_factory=list)
    waiting: list[tuple[str, asyncio.Future[bool]]] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)

    async def send(self, topic: str, key: bytes | None, value: bytes | None, partition: int | None = None) -> asyncio.Future[bool]:  # noqa: ARG002 - the log's signature
        self.sent.append((topic, key, value))
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if topic in self.held:
            self.waiting.append((topic, future))
        else:
            fails = self.failing.get(topic, 0)
            self.failing[topic] = max(0, fails - 1)
            future.set_result(not fails)
        return future

    async def send_all(
        self,
        topic: str,
        partition: int,
        records: Iterable[tuple[bytes, bytes | None]],
        headers: Sequence[tuple[str, bytes]] = (),
        on: object | None = None,  # noqa: ARG002 - the log's signature
    ) -> asyncio.Future[bool]:
        assert headers, "each record of a changelog says whose it is"
        arrivals = [await self.send(topic, key, value, partition) for key, value in records]
        self.batches.append(len(arrivals))
        return asyncio.ensure_future(_all(arrivals))

    async def delivered(self, sent: asyncio.Future[bool]) -> bool:
        return await sent

    def course(self, _sent: object) -> object:
        return self

    def place(self, _sent: object) -> None:
        return None

    async def read(self, topic: str, partition: int, first: int, end: int) -> list[Any]:
        raise NotImplementedError

    def release(self, topic: str) -> None:
        self.held.discard(topic)
        for name, future in self.waiting:
            if name == topic and not future.done():
                future.set_result(True)

    def topics(self) -> list[str]:
        return [topic for topic, _, _ in self.sent]

    def values(self, topic: str) -> list[Any]:
        return [value and json.loads(value) for name, _, value in self.sent if name == topic]

    def last(self, topic: str) -> dict[bytes | None, bytes]:
        return {key: value for name, key, value in self.sent if name == topic and value is not None}


async def _all(arrivals: list[asyncio.Future[bool]]) -> bool:
    return all([await arrival for arrival in arrivals])


class FakeTable:
    def __init__(self, name: str) -> None:
        self.changelog_topic_name = name

    def key(self, *parts: str | int, at: float | None = None) -> bytes:
        return json.dumps([parts, at is not None]).encode()


@dataclass
class Chunk:
    is_done: bool = False

    def ack(self) -> None:
        self.is_done = True


@dataclass(frozen=True)
class Record:
    offset: int
    value: bytes
    key: bytes = b"v"
    timestamp: int = T_MS


class World:
    """A worker with its log and what its observer has seen."""

    def __init__(self, monitor: PartitionMonitor | None = None, turn: asyncio.Lock | None = None) -> None:
        self.log = HeldLog()
        self.seen: list[tuple[str, Any]] = []
        names = ("folded", "resolved", "started", "ended", "evaluated", "flushed")
        observer: Any = SimpleNamespace(**{name: lambda *args, name=name, **options: self.seen.append((name, (*args, *options.values()))) for name in names})
        self.worker = PartitionWorker(
            monitor or PartitionMonitor(0, Limits(grace=0)),
            log=self.log,
            tables=Tables(FakeTable("engagement"), FakeTable("event_id"), FakeTable("waiting")),
            changelogs=Changelogs(*(Changelog(self.log, name, 0) for name in ("engagement", "event_id", "waiting"))),
            topics=NAMES,
            defaults=Defaults(),
            observer=observer,
            clock=lambda: T_MS * 1_000 + 5_000,
            turn=turn or asyncio.Lock(),
        )

    async def fold(self, topic: str, *values: bytes, first: int = 0) -> Chunk:
        chunk = Chunk()
        await self.worker.fold(topic, [Record(first + number, value) for number, value in enumerate(values)], chunk)
        return chunk

    def shown(self) -> list[bool]:
        """Whether sessions are active, as callers are told."""
        return [session.view(0).is_active for session in self.worker.monitor.sessions]


def post(post_id: str = "q") -> bytes:
    return json.dumps({"variant_id": "v", "persona_id": "p", "post_id": post_id, "min_interactions": 1}).encode()


def see(kind: str = "view", count: int = 1, post_id: str | None = "q", event_id: str | None = None) -> bytes:
    return json.dumps({"variant_id": "v", "kind": kind, "count": count, "post_id": post_id, "event_id": event_id}).encode()


STOP = b'{"variant_id":"v","action":"stop"}'


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_kill_waits_for_its_own_state_and_for_no_flush() -> None:
    """Latency: nothing else has to be durable."""
    world = World()
    await world.fold("variant_posted", post())
    await world.fold("interaction", see("like"), see(count=100), see(post_id="other"))
    await settle()
    assert world.log.topics() == ["monitoring_record", "engagement", "variant_killed", "monitoring_record"]
    assert world.log.values("variant_killed")[0]["deciding_event"]["offset"] == 1
    assert ("evaluated", (0.005,)) in world.seen


async def test_other_work_gets_its_turn_after_each_slice_of_any_partition() -> None:
    """A kill under way has to wait for one slice at a time, however many partitions have records to fold."""
    turn, turns = asyncio.Lock(), [0]
    worlds = [World(turn=turn), World(turn=turn)]
    folded: list[int] = []
    for world in worlds:
        world.worker._observer.folded = lambda *_: folded.append(turns[0])  # type: ignore[method-assign]

    async def others() -> None:
        while True:
            turns[0] += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    await asyncio.gather(*(world.fold("interaction", *[see(post_id="other")] * (2 * FOLD_SLICE + 1)) for world in worlds))
    other.cancel()
    assert len(folded) == 6
    assert len(set(folded)) == 6


async def arriving(monitor: PartitionMonitor, world: World) -> asyncio.Task[Chunk]:
    """Let a post come that twenty interactions wait for, and the next post of the same variant."""
    await world.fold("interaction", *[see(), see(post_id="r")] * 10)
    await world.worker.flush()
    folding = asyncio.create_task(world.fold("variant_posted", post(), post("r")))
    while monitor.arriving is None:
        await asyncio.sleep(0)
    return folding


async def test_a_session_that_much_waited_for_lets_other_work_have_its_turn() -> None:
    """A million may wait. What comes behind it comes after it; time stands still for its partition meanwhile, or it would pass what it waits for."""
    monitor = PartitionMonitor(0, Limits(grace=0), at_once=2)
    world = World(monitor)
    folding = await arriving(monitor, world)
    turns = 0
    while not folding.done():
        if monitor.arriving is not None:
            await world.worker.tick(2**62, 0)
            await world.worker.push_out(100)
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 2 * (10 // 2 - 1)
    assert monitor.waiting.count == 0
    assert [session.counts.views for session in monitor.sessions] == [10, 10]
    assert [seen for name, seen in world.seen if name == "resolved"] == [("counted", 10, False)] * 2
    await world.worker.tick(2**62, 0)
    assert [session.end is not None for session in monitor.sessions] == [True, True]


async def test_who_is_stopped_while_a_session_arrives_leaves_it_to_the_next() -> None:
    """All of it still waits there, and its post is not done."""
    monitor = PartitionMonitor(0, Limits(grace=0), at_once=2)
    world = World(monitor)
    folding = await arriving(monitor, world)
    sent = len(world.log.sent)
    await world.worker.flush()
    world.worker.close()
    chunk = await folding
    await world.worker.flush()
    assert (chunk.is_done, monitor.waiting.count, len(monitor.sessions)) == (False, 20, 0)
    assert len(world.log.sent) == sent


async def test_ends_that_come_while_one_becomes_durable_do_so_together() -> None:
    """In one more write, so that ten kills take no longer than two."""
    world = World()
    names = [b"v%d" % number for number in range(10)]

    async def fold(topic: str, first: int, *values: tuple[bytes, bytes]) -> None:
        await world.worker.fold(topic, [Record(first + number, value.replace(b'"v"', b'"%s"' % name), name) for number, (name, value) in enumerate(values)], Chunk())
        await settle()

    await fold("variant_posted", 0, *((name, post()) for name in names))
    world.log.held.add("engagement")
    for number, name in enumerate(names):
        await fold("interaction", 2 * number, (name, see("like")), (name, see(count=100)))
    assert world.log.batches == [1]
    world.log.release("engagement")
    await settle()
    assert world.log.batches == [1, 9]
    assert world.log.topics().count("variant_killed") == 10


@pytest.mark.parametrize("end", ["kill", "kill of records without post_id", "stop"])
async def test_an_end_is_durable_before_anybody_is_told(end: str) -> None:
    """It is in the state that was acknowledged."""
    world = World()
    await world.fold("variant_posted", post())
    await settle()
    world.log.held.add("engagement")
    if end == "stop":
        await world.fold("monitoring_control", STOP)
    else:
        post_id = "q" if end == "kill" else None
        await world.fold("interaction", see("like", post_id=post_id), see(count=100, post_id=post_id))
    await settle()
    assert world.log.topics() == ["monitoring_record", "engagement"]
    assert world.shown() == [True]
    assert world.worker.monitor.untold == set(world.worker.monitor.sessions)
    assert all(decode_session(state, lambda *_: None).end for state in world.log.last("engagement").values())
    world.log.release("engagement")
    await settle()
    assert [value["kind"] for value in world.log.values("monitoring_record")] == ["started", "stopped" if end == "stop" else "killed"]
    assert world.shown() == [False]
    assert not world.worker.monitor.untold


async def test_an_end_waits_for_one_slice_of_a_flush() -> None:
    """The next slices are sent behind it."""
    world = World()
    values = [post().replace(b'"v"', b'"v%d"' % number) for number in range(3 * SLICE)]
    await world.worker.fold("variant_posted", [Record(number, value, b"v%d" % number) for number, value in enumerate(values)], Chunk())
    await settle()
    world.log.held.add("engagement")
    flush = asyncio.create_task(world.worker.flush())
    await settle()
    await world.worker.fold("interaction", [Record(0, see("like").replace(b'"v"', b'"v7"'), b"v7"), Record(1, see(count=100).replace(b'"v"', b'"v7"'), b"v7")], Chunk())
    await settle()
    assert world.log.batches == [SLICE, 1]
    world.log.release("engagement")
    await flush
    assert world.log.batches == [SLICE, 1, SLICE, SLICE]


@pytest.mark.parametrize(("slices", "sizes"), [(SLICES, [SLICE] * 3), (2, [SLICE * 3 // 2] * 2)], ids=["few", "very many"])
async def test_waiting_interactions_are_packed_slice_by_slice(monkeypatch: pytest.MonkeyPatch, slices: int, sizes: list[int]) -> None:
    """Packing all of very many before the first is sent would keep everything else waiting. Those go in larger slices, as sessions do."""
    monkeypatch.setattr(partition, "SLICES", slices)
    packed: list[int] = []
    monkeypatch.setattr(partition, "encode_waiters", lambda waiters: packed.extend(waiter.offset for waiter in waiters) or b"packed")
    world = World()
    records = [Record(number, see().replace(b'"v"', b'"v%d"' % number), b"v%d" % number) for number in range(3 * SLICE)]
    await world.worker.fold("interaction", records, Chunk())
    world.log.held.add("waiting")
    flush = asyncio.create_task(world.worker.flush())
    await settle()
    assert len(packed) == sizes[0]
    world.log.release("waiting")
    await flush
    assert (packed, world.log.batches) == ([record.offset for record in records], sizes)


def test_a_long_flush_goes_in_larger_slices() -> None:
    """Each waits for an acknowledgement, so with very many sessions small ones would take too long."""
    assert [len(part) for part in _slices([0] * 250)] == [100, 100, 50]
    assert {len(part) for part in _slices([0] * 20_000)} == {400}
    assert {len(part) for part in _slices([0] * 1_000_000)} == {500}


async def test_a_chunk_is_done_once_its_states_are_acknowledged() -> None:
    """And not when they are merely sent."""
    world = World()
    world.log.held.add("engagement")
    chunk = await world.fold("variant_posted", post())
    flush = asyncio.create_task(world.worker.flush())
    await settle()
    assert not chunk.is_done
    world.log.release("engagement")
    await flush
    assert chunk.is_done


async def test_a_chunk_is_done_once_its_dead_letters_are_acknowledged() -> None:
    """A letter that failed is sent again first."""
    world = World()
    world.log.held.add("dead_letter")
    chunk = await world.fold("interaction", b"junk")
    flush = asyncio.create_task(world.worker.flush())
    await settle()
    assert not chunk.is_done
    world.log.release("dead_letter")
    await flush
    assert chunk.is_done
    world.log.failing["dead_letter"] = 2
    await world.fold("interaction", b"junk", first=1)
    await world.worker.flush()
    assert [value["offset"] for value in world.log.values("dead_letter")] == [0, 1, 1, 1]


async def test_what_is_not_acknowledged_is_sent_again() -> None:
    """States as they are by then; emissions word for word."""
    world = World()
    world.log.failing |= {"engagement": 1, "monitoring_record": 1, "waiting": 1}
    chunk = await world.fold("variant_posted", post())
    await world.fold("interaction", see(post_id="other"))
    await settle()
    await world.worker.flush()
    assert chunk.is_done
    starts = world.log.values("monitoring_record")
    assert len(starts) == 2
    assert starts[0] == starts[1]
    assert [world.log.topics().count(topic) for topic in ("engagement", "waiting")] == [2, 2]


async def test_the_state_says_what_has_not_been_told() -> None:
    """Once it is acknowledged, the next flush says so."""
    world = World()
    world.log.held.add("monitoring_record")
    await world.fold("variant_posted", post())
    await world.worker.flush()
    (state,) = world.log.last("engagement").values()
    assert decode_session(state, lambda *_: None).start_pending
    world.log.release("monitoring_record")
    await settle()
    await world.worker.flush()
    (state,) = world.log.last("engagement").values()
    assert not decode_session(state, lambda *_: None).start_pending


async def test_segments_of_event_ids_are_durable_before_the_state_that_counts_on_them() -> None:
    """A state never names what may be missing."""
    world = World()
    await world.fold("variant_posted", post())
    await world.fold("interaction", *(see(event_id=f"e{number}") for number in range(TAIL + 1)))
    await settle()
    world.log.sent.clear()
    world.log.held.add("event_id")
    flush = asyncio.create_task(world.worker.flush())
    await settle()
    assert world.log.topics() == ["event_id"]
    world.log.release("event_id")
    await flush
    assert world.log.topics() == ["event_id", "engagement"]


async def test_it_is_known_how_many_event_ids_are_remembered() -> None:
    """As of the last flush, as memory hangs on it; with its end a session lets go of its own, and a restored one brings them along."""
    world = World()
    monitor = world.worker.monitor
    await world.fold("variant_posted", post(), post("r"))
    await world.fold("interaction", *[see(event_id=f"e{number}") for number in range(3 * TAIL)], see(post_id="r", event_id="e"))
    assert monitor.event_ids == 0
    await world.worker.flush()
    await world.worker.flush()
    assert monitor.event_ids == 3 * TAIL + 1
    written = {key: value for name, key, value in world.log.sent if name == "event_id"}
    again = PartitionMonitor(0)
    again.restore([decode_session(value, lambda *_: next(iter(written.values()))) for value in world.log.last("engagement").values()], [])
    assert again.event_ids == 3 * TAIL + 1
    await world.fold("monitoring_control", b'{"variant_id":"v","action":"stop","post_id":"q"}')
    await settle()
    await world.worker.flush()
    await world.worker.flush()
    assert monitor.event_ids == 1


async def test_a_newer_session_of_the_variant_waits_for_the_flush() -> None:
    """What the older one took of records without ``post_id`` is durable before the next record is folded."""
    world = World()
    await world.fold("variant_posted", post("q"))
    await world.fold("interaction", see(post_id=None))
    world.log.held.add("engagement")
    second = asyncio.create_task(world.fold("variant_posted", post("r"), first=1))
    third = asyncio.create_task(world.fold("interaction", see(post_id=None), first=1))
    await settle()
    assert world.worker.monitor.position == 0
    world.log.release("engagement")
    await asyncio.gather(second, third)
    assert world.worker.monitor.position == 1
    states = [decode_session(state, lambda *_: None) for state in world.log.last("engagement").values()]
    assert {state.post_id: (state.applied, state.floor) for state in states} == {"q": (0, -1), "r": (0, 0)}


async def test_a_letter_of_a_waiting_record_is_there_before_it_leaves_its_segment() -> None:
    """It is given up in the middle of a flush: that flush may not delete what the letter is still to tell."""
    world = World()
    await world.fold("interaction", see(), see(post_id="other"))
    await world.worker.flush()
    await world.fold("interaction", b"junk", first=2)
    world.log.held.add("dead_letter")
    flush = asyncio.create_task(world.worker.flush())
    await settle()
    await world.worker.tick(T_MS * 1_000 + 600_000_000, 0)
    world.log.release("dead_letter")
    await flush
    assert len(world.log.last("waiting")) == 1
    (segment,) = world.log.last("waiting").values()
    assert [waiter.offset for waiter in decode_waiters(segment, 0)] == [0, 1]
    await world.worker.flush()
    assert world.log.topics()[-3:] == ["dead_letter", "dead_letter", "waiting"]
    assert world.log.sent[-1][2] is None


async def test_room_is_made_with_dead_letters() -> None:
    """As many as asked for."""
    world = World()
    await world.fold("interaction", see(), see(), see())
    await world.worker.push_out(2)
    await world.worker.flush()
    assert [value["reason"] for value in world.log.values("dead_letter")] == ["no post", "no post"]
    assert [args for name, args in world.seen if name == "resolved"] == [("dead_letter", 2, False)]


@pytest.mark.parametrize("is_being_flushed", [False, True])
async def test_a_kill_waits_for_dead_letters_of_its_variant(*, is_being_flushed: bool) -> None:
    """Its state says that all up to some offset is applied. One that was given up before that would be taken for applied after a crash, and not be told of at all."""
    world = World()
    await world.fold("interaction", see(), see("like"), see(count=100))
    await world.worker.flush()
    world.log.held.add("dead_letter")
    await world.worker.push_out(1)
    flush = asyncio.create_task(world.worker.flush()) if is_being_flushed else None
    await settle()
    await world.fold("variant_posted", post())
    await settle()
    assert world.log.topics().count("dead_letter") == 1
    assert "engagement" not in world.log.topics()
    world.log.release("dead_letter")
    await settle()
    assert "variant_killed" in world.log.topics()
    await (flush or world.worker.flush())
    assert world.log.topics().count("dead_letter") == 1


async def test_a_kill_does_not_wait_for_dead_letters_of_others() -> None:
    """There may be hundreds."""
    world = World()
    await world.fold("variant_posted", post())
    world.log.held.add("dead_letter")
    await world.worker.fold("interaction", [Record(0, b"junk", key=b"w")], Chunk())  # type: ignore[arg-type]
    flush = asyncio.create_task(world.worker.flush())
    await settle()
    await world.fold("interaction", see("like"), see(count=100), first=1)
    await settle()
    assert "variant_killed" in world.log.topics()
    world.log.release("dead_letter")
    await flush


async def test_making_much_room_lets_other_work_have_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million may wait."""
    monkeypatch.setattr(partition, "PUSHED_OUT_AT_ONCE", 2)
    world, turns = World(), 0
    await world.fold("interaction", *[see()] * 9)
    pushing = asyncio.create_task(world.worker.push_out(8))
    while not pushing.done():
        await asyncio.sleep(0)
        turns += 1
    assert (world.worker.monitor.waiting.count, turns > 3) == (1, True)


async def test_a_resumed_worker_tells_what_is_pending_and_drops_what_nobody_counts_on() -> None:
    """Its states are durable already."""
    before = World()
    before.log.held.add("monitoring_record")
    await before.fold("variant_posted", post())
    await before.fold("monitoring_control", STOP)
    await settle()
    await before.worker.flush()
    before.worker.close()
    monitor = PartitionMonitor(0)
    monitor.restore([decode_session(state, lambda *_: None) for state in before.log.last("engagement").values()], [])
    world = World(monitor)
    world.worker.resume([b"unused"])
    await settle()
    assert [value["kind"] for value in world.log.values("monitoring_record")] == ["started", "stopped"]
    assert world.log.topics()[0] == "monitoring_record"
    await world.worker.flush()
    assert ("event_id", b"unused", None) in world.log.sent


async def test_a_closed_worker_acknowledges_nothing_more() -> None:
    """The partition is somebody else's."""
    world = World()
    world.log.held |= {"engagement", "monitoring_record"}
    chunk = await world.fold("variant_posted", post())
    flush = asyncio.create_task(world.worker.flush())
    await settle()
    world.worker.close()
    world.log.release("engagement")
    await flush
    late = await world.fold("interaction", see(), see())
    await world.worker.flush()
    assert not chunk.is_done
    assert not late.is_done
    await settle()
    assert world.log.topics().count("monitoring_record") == 1


async def test_a_drained_worker_has_nothing_left_to_repeat() -> None:
    """Everything told, written and done."""
    world = World()
    chunk = await world.fold("variant_posted", post())
    other = await world.fold("monitoring_control", STOP)
    await world.worker.drain()
    assert chunk.is_done
    assert other.is_done
    (state,) = world.log.last("engagement").values()
    session = decode_session(state, lambda *_: None)
    assert (session.start_pending, session.end_pending, session.end is not None) == (False, False, True)


async def a_day_later() -> World:
    """A world whose session has ended, was told, and has just been forgotten; nothing of that is written yet."""
    world = World()
    await world.fold("variant_posted", post())
    after = T_MS * 1_000 + 600_000_000 + 86_400_000_000 + 1
    await world.worker.tick(after, 0)
    await world.worker.drain()
    await world.worker.tick(after, after)
    return world


async def test_a_day_later_the_state_is_deleted() -> None:
    """With all that belongs to it."""
    world = await a_day_later()
    await world.worker.flush()
    assert world.log.sent[-1][0] == "engagement"
    assert world.log.sent[-1][2] is None


async def test_a_post_that_comes_again_as_its_session_is_forgotten_keeps_its_new_state() -> None:
    """Both have the same key: what the old one leaves must not be deleted behind what the new one is."""
    world = await a_day_later()
    await world.fold("variant_posted", post(), first=1)
    sent = len(world.log.sent)
    await world.worker.drain()
    assert [value is None for topic, _, value in world.log.sent[sent:] if topic == "engagement"] == [False]

"""A load generator, to run as a process of its own: so many interactions a second, and variants that have to be killed among them.

    .venv/bin/python -m benchmarks.feed '{"kafka": "127.0.0.1:9092", "rate": 20000, "seconds": 30}'

Most interactions go to variants that live; each has an ``event_id``, a ``post_id`` and an ``occurred_at``, and all of them count.
Bad variants get 334 views at once and then ten likes; the tenth decides. Records are put into batches of ``TICK_SECONDS`` each,
before the start unless there are too many, for that is what lets one Python process send 100,000 a second beside what it measures.
With ``turn_over_seconds`` every living variant is replaced after that time, so sessions start and time out all the while.

Prints ``ready`` when the load begins and then one line of JSON: whether it kept the rate, and append time, partition and offset of
each deciding interaction.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import logging
import statistics
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import chain, count
from typing import Any

from aiokafka import AIOKafkaProducer

from models.moments import format_moment
from streams.topics import partition_for

TICK_SECONDS = 0.005
LEAD_SECONDS = 1.0
"""A variant is posted so long before its first interaction."""
GROUP = 10
"""Bad variants that get their interactions at the same time, in turns."""
VIEWS, LIKES = 334, 10
LIKE_EVERY = 16
"""One interaction with a living variant in so many is a like: 6.7 % of its views, over any line."""
BUILT_AHEAD = 4_000_000
"""So many interactions at most are built before the start; a longer load is built as it goes."""
KEPT_SHARE, KEPT_LATE_SECONDS = 0.99, 0.05
"""The rate was kept if so much of it was sent and 99 of 100 batches were at most so late."""
DECIDES = "-decides"
"""Ends the event id of each deciding interaction."""
POST_ID = "0b54a3c8-6f0e-4d53-9a71-2f4f0f6c1d11"


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked for.

    Attributes:
        rate: Interactions a second, bad variants' included.
        bad_per_second: Variants a second that have to be killed; their interactions take at most nine tenths of the rate.
        living: Variants that live at any time.
        turn_over_seconds: After so long each living variant is replaced by a new one; 0 for never.
        busy_partitions: Only the first so many get any records; 0 for all.
    """

    kafka: str
    rate: float
    seconds: float
    posted: str = "variant_posted"
    interaction: str = "interaction"
    partitions: int = 4
    bad_per_second: float = 40.0
    living: int = 1_000
    turn_over_seconds: float = 0.0
    busy_partitions: int = 0
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    @property
    def per_second_bad(self) -> float:
        """Bad variants a second as they fit into the rate."""
        return min(self.bad_per_second, 0.9 * self.rate / (LIKES + 1))

    @property
    def bad(self) -> int:
        """How many bad variants there are."""
        return max(GROUP, int(self.per_second_bad * self.seconds) // GROUP * GROUP)

    @property
    def bad_interactions(self) -> int:
        """How many interactions they get together."""
        return self.bad * (LIKES + 1)

    @property
    def living_interactions(self) -> int:
        """How many interactions the living ones get together."""
        return max(0, int(self.rate * self.seconds) - self.bad_interactions)


Event = tuple[float, str, bytes, bool]
"""When it is due (seconds from the start), whose it is, its value, and whether it decides."""


def posting(variant: str, timeout_minutes: float, posted_at: str | None) -> bytes:
    """Return the value of a ``variant_posted``; without ``posted_at`` its append time will do."""
    return json.dumps({"variant_id": variant, "persona_id": "bench", "post_id": POST_ID, "timeout_minutes": timeout_minutes, "posted_at": posted_at}).encode()


def interaction(variant: str, kind: str, event_id: str, moment: str, times: int = 1) -> bytes:
    """Return the value of an ``interaction``."""
    counted = f',"count":{times}' if times > 1 else ""
    return f'{{"variant_id":"{variant}","post_id":"{POST_ID}","kind":"{kind}"{counted},"occurred_at":"{moment}","event_id":"{event_id}"}}'.encode()


def bad_events(load: Load, moment: Callable[[], str]) -> Iterator[Event]:
    """Yield the interactions of bad variants, ten variants at a time."""
    spacing = load.seconds / load.bad_interactions
    number = 0
    for first in range(0, load.bad, GROUP):
        names = [bad_name(load, index) for index in range(first, first + GROUP)]
        for step in range(LIKES + 1):
            for name in names:
                if step == 0:
                    value = interaction(name, "view", f"{name}-view", moment(), VIEWS)
                else:
                    value = interaction(name, "like", f"{name}{DECIDES if step == LIKES else f'-{step}'}", moment())
                yield number * spacing, name, value, step == LIKES
                number += 1


def living_events(load: Load, moment: Callable[[], str]) -> Iterator[Event]:
    """Yield the interactions with living variants, spread evenly over time and variants."""
    total, turn = load.living_interactions, load.turn_over_seconds
    if total == 0:
        return
    spacing = load.seconds / total
    for number in range(total):
        due, slot = number * spacing, number % load.living
        name = living_name(load, slot, int((due + slot * turn / load.living) / turn) if turn else 0)
        kind = "like" if (number // load.living) % LIKE_EVERY == LIKE_EVERY - 1 else "view"
        yield due, name, interaction(name, kind, f"{load.run}-{number}", moment()), False


def bad_name(load: Load, index: int) -> str:
    """Return the name of a variant that has to be killed."""
    return _named(f"{load.run}-bad-{index:06}", load.partitions, load.busy_partitions)


def living_name(load: Load, slot: int, generation: int) -> str:
    """Return the name of the living variant that has a place for the time of a generation."""
    return _named(f"{load.run}-{slot:06}-{generation:04}", load.partitions, load.busy_partitions)


@lru_cache(maxsize=1_000_000)
def _named(stem: str, partitions: int, busy: int) -> str:
    """Return a name that falls to one of the busy partitions."""
    names = chain([stem], (f"{stem}-{salt:x}" for salt in count()))
    return next(name for name in names if busy == 0 or partition_for(name, partitions) < busy)


def postings(load: Load, posted_at: str | None) -> Iterator[tuple[float, str, bytes]]:
    """Yield (when, variant, value) of each ``variant_posted``, in order; those due before 0 have to be there at the start."""
    timeout = (load.turn_over_seconds + LEAD_SECONDS + 2) / 60 if load.turn_over_seconds else 600.0
    return heapq.merge(_living_postings(load, timeout, posted_at), _bad_postings(load, posted_at))


def _living_postings(load: Load, timeout_minutes: float, posted_at: str | None) -> Iterator[tuple[float, str, bytes]]:
    turn = load.turn_over_seconds
    generation = 0
    while generation == 0 or turn:
        for slot in range(load.living - 1, -1, -1):
            due = generation * turn - slot * turn / load.living - LEAD_SECONDS
            if due >= load.seconds:
                return
            name = living_name(load, slot, generation)
            yield due, name, posting(name, timeout_minutes, posted_at)
        generation += 1


def _bad_postings(load: Load, posted_at: str | None) -> Iterator[tuple[float, str, bytes]]:
    for index in range(load.bad):
        name = bad_name(load, index)
        yield index // GROUP * GROUP * load.seconds / load.bad - LEAD_SECONDS, name, posting(name, 600.0, posted_at)


@dataclass(slots=True)
class Batch:
    """What goes to one partition at one tick, and which of it decides: variant to position."""

    builder: Any
    decides: dict[str, int] = field(default_factory=dict)
    count: int = 0


def batches(load: Load, new_builder: Callable[[], Any], moment: Callable[[], str]) -> Iterator[list[tuple[int, Batch]]]:
    """Yield what is due at each tick, as (partition, batch), in order."""
    of = lru_cache(maxsize=1_000_000)(lambda variant: partition_for(variant, load.partitions))
    ticks = int(load.seconds / TICK_SECONDS) + 1
    events = heapq.merge(bad_events(load, moment), living_events(load, moment))
    ahead = next(events, None)
    for tick in range(1, ticks + 1):
        until = tick * TICK_SECONDS
        found: dict[int, Batch] = {}
        while ahead is not None and (ahead[0] < until or tick == ticks):
            _, variant, value, decides = ahead
            batch = found.setdefault(of(variant), Batch(new_builder()))
            if batch.builder.append(timestamp=None, key=variant.encode(), value=value) is None:
                raise SystemExit("a batch is full: too many interactions for one tick")
            if decides:
                batch.decides[variant] = batch.count
            batch.count += 1
            ahead = next(events, None)
        yield list(found.items())


class Sender:
    """Sends a load on time, and keeps what became of it."""

    def __init__(self, load: Load, producer: AIOKafkaProducer) -> None:
        self.load, self.producer = load, producer
        self.late: list[float] = []
        self.sent = self.posted = self.acknowledged = 0
        self.deciding: dict[str, tuple[int, int, int]] = {}
        self.failed: BaseException | None = None

    async def post(self, variant: str, value: bytes) -> None:
        """Send a ``variant_posted``."""
        (await self.producer.send(self.load.posted, value, key=variant.encode())).add_done_callback(self._noted)
        self.posted += 1

    def _noted(self, future: asyncio.Future[Any]) -> None:
        self.failed = self.failed or future.exception()

    async def send(self, partition: int, batch: Batch) -> None:
        """Send a batch; its append time and offset are noted when they are known."""
        future = await self.producer.send_batch(batch.builder, self.load.interaction, partition=partition)
        self.sent += batch.count
        count, decides = batch.count, batch.decides

        def acknowledged(future: asyncio.Future[Any]) -> None:
            self._noted(future)
            if self.failed is None:
                metadata = future.result()
                self.acknowledged += count
                for variant, position in decides.items():
                    self.deciding[variant] = (metadata.timestamp, partition, metadata.offset + position)

        future.add_done_callback(acknowledged)


async def generate(load: Load, on_ready: Callable[[], None]) -> dict[str, object]:
    """Send a load; return what became of it."""
    producer = AIOKafkaProducer(bootstrap_servers=load.kafka, acks="all", max_batch_size=1 << 20, max_request_size=16 << 20)
    await producer.start()
    sender = Sender(load, producer)
    is_built_ahead = load.rate * load.seconds <= BUILT_AHEAD and not load.turn_over_seconds
    now = [""]

    def moment() -> str:
        return now[0]

    def tell_time() -> None:
        now[0] = format_moment(time.time_ns() // 1_000)

    tell_time()
    posts = postings(load, moment() if is_built_ahead else None)
    post = next(posts, None)
    while post is not None and post[0] <= 0:
        await sender.post(post[1], post[2])
        post = next(posts, None)
    await producer.flush()
    tell_time()
    planned: Any = batches(load, producer.create_batch, moment)
    if is_built_ahead:
        planned = list(planned)
    on_ready()
    loop = asyncio.get_running_loop()
    began = loop.time() + LEAD_SECONDS
    due, tick = 0.0, 0
    tell_time()
    for tick, parts in enumerate(planned):
        due = began + tick * TICK_SECONDS
        while post is not None and began + post[0] <= loop.time() + TICK_SECONDS:
            await sender.post(post[1], post[2])
            post = next(posts, None)
        if (wait := due - loop.time()) > 0:
            await asyncio.sleep(wait)
        sender.late.append(loop.time() - due)
        tell_time()
        for partition, batch in parts:
            await sender.send(partition, batch)
        if sender.failed is not None:
            raise SystemExit(f"Kafka did not take a batch: {sender.failed!r}")
    took = max(loop.time(), due) - began
    await producer.flush()
    await producer.stop()
    return _report(sender, took)


def _report(sender: Sender, took: float) -> dict[str, object]:
    load = sender.load
    if sender.acknowledged != sender.sent or len(sender.deciding) != load.bad:
        raise SystemExit(f"{sender.sent} interactions were sent, {sender.acknowledged} acknowledged; {len(sender.deciding)} of {load.bad} decide")
    late = statistics.quantiles(sender.late, n=100, method="inclusive")[98] if len(sender.late) > 1 else 0.0
    rate = sender.sent / max(took, load.seconds)
    return {
        "asked_rate": load.rate,
        "rate": round(rate, 1),
        "is_kept": rate >= KEPT_SHARE * load.rate and late <= KEPT_LATE_SECONDS,
        "late_p99_ms": round(1_000 * late, 1),
        "late_max_ms": round(1_000 * max(sender.late), 1),
        "interactions": sender.sent,
        "posted": sender.posted,
        "deciding": sender.deciding,
    }


async def start(load: Load) -> asyncio.subprocess.Process:
    """Start a process that sends ``load``; returns once the load begins.

    Raises:
        SystemExit: It ended instead.
    """
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "benchmarks.feed", json.dumps(asdict(load)), stdout=asyncio.subprocess.PIPE, limit=1 << 26)
    if process.stdout is None or await process.stdout.readline() != b"ready\n":
        raise SystemExit("the load generator ended before it began")
    return process


async def result(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """Wait for the end of a load and return what became of it.

    Raises:
        SystemExit: It failed.
    """
    out, _ = await process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"the load generator failed with exit code {process.returncode}")
    found: dict[str, Any] = json.loads(out)
    return found


def main() -> None:
    """Send what the one argument asks for."""

    def ready() -> None:
        sys.stdout.write("ready\n")
        sys.stdout.flush()

    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it tells of every retry on a topic that was made just now
    load = Load(**json.loads(sys.argv[1]))
    sys.stdout.write(json.dumps(asyncio.run(generate(load, ready))) + "\n")


if __name__ == "__main__":
    main()

"""A backlog to work off: events that lie on Kafka before anybody reads them, and what is the right result of them.

Pure but for ``preload``. Event ``number`` belongs to variant ``number % variants``. Every variant is posted once; its events lie, evenly spread, in one
10-minute window of event time aligned to the epoch, so that who counts in tumbling windows of 10 minutes and who counts a session get the same numbers. One variant
in ``BAD_EVERY`` is bad: at its tenth interaction, the 400th event, it is below half of the expected rate and to be killed, and its counts freeze. The others stay above.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaProducer

from models.moments import format_moment
from streams.topics import partition_for

WINDOW_SECONDS = 600
KINDS = ("like", "reply", "repost", "quote", "share", "click", "save")
ACTS_EVERY = 16
"""One event in so many is an interaction: 6.7 % of the views, above the expected 6 %."""
BAD_ACTS_EVERY = 40
"""The same for a bad variant: 2.6 % of the views, below the line."""
BAD_EVERY = 100
MIN_INTERACTIONS = 10
KILL_RATE = 0.5 * 0.06
"""The line: the contract's default threshold and expected rate."""
POST_ID = "post"
BATCH_BYTES = 1 << 18
IN_FLIGHT = 32
"""Batches sent and not yet acknowledged, at most."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What a variant has come to in its window."""

    views: int
    interactions: int
    was_killed: bool


@dataclass(frozen=True, slots=True)
class Backlog:
    """So many events, spread over so many variants.

    Attributes:
        events: Number of interactions (views among them).
        variants: Number of variants, each posted once.
        window_start: Start of the window that all events lie in, in seconds since the epoch: a multiple of 600.
        partitions: Of each topic.
        timeout_minutes: Of each posting; long, so that nothing times out while it is measured.
        prefix: Of the names of the topics and of the variants.
    """

    events: int
    variants: int = 1_000
    window_start: int = field(default_factory=lambda: (int(time.time()) // WINDOW_SECONDS - 1) * WINDOW_SECONDS)
    partitions: int = 4
    timeout_minutes: float = 600
    prefix: str = ""

    def variant_id(self, variant: int) -> str:
        """Name variant ``variant``, in ``range(variants)``."""
        return f"{self.prefix}variant-{variant}"

    def kind_of(self, number: int) -> str:
        """Return the kind of event ``number``."""
        turn, variant = divmod(number, self.variants)
        every = BAD_ACTS_EVERY if variant % BAD_EVERY == 0 else ACTS_EVERY
        return KINDS[turn // every % len(KINDS)] if turn % every == every - 1 else "view"

    def posts(self) -> Iterator[tuple[int, bytes]]:
        """Yield (variant, value) of all ``variant_posted``."""
        posted_at = format_moment(self.window_start * 1_000_000)
        for variant in range(self.variants):
            post = {"variant_id": self.variant_id(variant), "persona_id": f"persona-{variant % 10}", "post_id": POST_ID, "posted_at": posted_at}
            yield variant, json.dumps(post | {"timeout_minutes": self.timeout_minutes}, separators=(",", ":")).encode()

    def interactions(self) -> Iterator[tuple[int, bytes]]:
        """Yield (variant, value) of all ``interaction``, in the order of their event time."""
        names = [self.variant_id(variant).encode() for variant in range(self.variants)]
        ten_minutes = format_moment(self.window_start * 1_000_000)[:15].encode()  # an aligned window shares all but the last digit of the minute
        length = WINDOW_SECONDS * 1_000_000
        for number in range(self.events):
            variant = number % self.variants
            seconds, fraction = divmod(number * length // self.events, 1_000_000)
            minute, second = divmod(seconds, 60)
            yield (
                variant,
                b'{"variant_id":"%b","post_id":"post","kind":"%b","count":1,"occurred_at":"%b%d:%02d.%06dZ","event_id":"event-%09d"}'
                % (names[variant], self.kind_of(number).encode(), ten_minutes, minute, second, fraction, number),
            )

    def expected(self) -> dict[str, Counts]:
        """Return what the rule of the contract, asked after each event, makes of every variant that has events, by name."""
        known: dict[tuple[int, bool], Counts] = {}  # there are few different ones
        found = {}
        for variant in range(min(self.variants, self.events)):
            events = (self.events - variant + self.variants - 1) // self.variants
            alike = events, variant % BAD_EVERY == 0
            if alike not in known:
                known[alike] = judged(self.kind_of(turn * self.variants + variant) for turn in range(events))
            found[self.variant_id(variant)] = known[alike]
        return found


def judged(kinds: Iterator[str]) -> Counts:
    """Count a variant's events until the rule kills it, if it does."""
    interactions = views = 0
    for kind in kinds:
        views += kind == "view"
        interactions += kind != "view"
        if interactions >= MIN_INTERACTIONS and views > 0 and interactions / views < KILL_RATE:
            return Counts(views, interactions, was_killed=True)
    return Counts(views, interactions, was_killed=False)


async def preload(bootstrap: str, backlog: Backlog, *, posts: bool = True) -> None:
    """Append the backlog to ``<prefix>variant_posted`` (unless not ``posts``), then to ``<prefix>interaction``; both exist. Some 200,000 events a second."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_batch_size=BATCH_BYTES, enable_idempotence=True)
    await producer.start()
    keys = [backlog.variant_id(variant).encode() for variant in range(backlog.variants)]
    partitions = [partition_for(key.decode(), backlog.partitions) for key in keys]
    try:
        if posts:
            await _append(producer, f"{backlog.prefix}variant_posted", backlog.posts(), keys, partitions)
        await _append(producer, f"{backlog.prefix}interaction", backlog.interactions(), keys, partitions)
    finally:
        await producer.stop()


async def _append(producer: AIOKafkaProducer, topic: str, values: Iterator[tuple[int, bytes]], keys: list[bytes], partitions: list[int]) -> None:
    """Append by whole batches, which is some ten times as fast as record by record."""
    under_way: deque[Any] = deque()
    batches = {partition: producer.create_batch() for partition in set(partitions)}
    for variant, value in values:
        partition = partitions[variant]
        if batches[partition].append(key=keys[variant], value=value, timestamp=None) is None:
            under_way.append(await producer.send_batch(batches[partition], topic, partition=partition))
            batches[partition] = producer.create_batch()
            batches[partition].append(key=keys[variant], value=value, timestamp=None)
            if len(under_way) > IN_FLIGHT:
                await under_way.popleft()
    for partition, batch in batches.items():
        if batch.record_count():
            under_way.append(await producer.send_batch(batch, topic, partition=partition))
    for sent in under_way:
        await sent

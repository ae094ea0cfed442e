"""The load generator of the benchmarks sends what it says: so much, in order, and of each variant what decides as it should."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from itertools import islice, pairwise
from typing import Any

import pytest

from benchmarks import feed
from models.errors import Reject
from models.events import parse_interaction, parse_variant_posted
from models.policy import Defaults
from streams.topics import partition_for

NOW = 1_700_000_000_000_000
MOMENT = "2023-11-14T22:13:20.000000Z"
LOAD = feed.Load(kafka="", rate=2_000, seconds=3, living=50, run="test")


class Builder:
    """Collects what is appended to a batch."""

    def __init__(self) -> None:
        self.records: list[tuple[bytes, bytes]] = []

    def append(self, *, timestamp: None, key: bytes, value: bytes) -> int:  # noqa: ARG002 - Kafka's signature
        self.records.append((key, value))
        return 1


def test_a_load_has_as_many_interactions_as_its_rate_asks_for():
    """Bad and living variants' together, each exactly once, and each usable."""
    events = [*feed.bad_events(LOAD, lambda: MOMENT), *feed.living_events(LOAD, lambda: MOMENT)]
    assert len(events) == 6_000
    ids = {parse_interaction(value, name.encode(), NOW).event_id for _, name, value, _ in events}
    assert len(ids) == len(events)


def test_the_tenth_like_of_each_bad_variant_decides_and_no_other():
    """334 views, nine likes, and the one that brings it below the line."""
    kinds: dict[str, list[tuple[str, int, bool]]] = defaultdict(list)
    for _, name, value, decides in feed.bad_events(LOAD, lambda: MOMENT):
        event = json.loads(value)
        kinds[name].append((event["kind"], event.get("count", 1), decides))
    assert len(kinds) == LOAD.bad == 120
    assert all(found == [("view", 334, False), *[("like", 1, False)] * 9, ("like", 1, True)] for found in kinds.values())


def test_living_variants_stay_above_the_line():
    """Once there are enough interactions to decide, they are at least 3 % of the views."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for _, name, value, _ in islice(feed.living_events(feed.Load(kafka="", rate=20_000, seconds=10, living=50, run="test"), lambda: MOMENT), 60_000):
        counts[name][json.loads(value)["kind"]] += 1
        if counts[name]["like"] >= 10:
            assert counts[name]["like"] / counts[name]["view"] >= 0.03


@pytest.mark.parametrize("turn_over", [0.0, 1.0])
def test_every_variant_is_posted_a_second_before_its_first_interaction(turn_over: float):
    """Postings come in order; none is missing, also when living variants are replaced all the time."""
    load = feed.Load(kafka="", rate=2_000, seconds=3, living=50, run="test", turn_over_seconds=turn_over)
    posted = {}
    for due, name, value in feed.postings(load, None):
        parse_variant_posted(value, name.encode(), NOW, Defaults())
        assert name not in posted
        posted[name] = due
    assert all(before <= after for before, after in pairwise(posted.values()))
    for due, name, _, _ in [*feed.bad_events(load, lambda: MOMENT), *feed.living_events(load, lambda: MOMENT)]:
        assert posted[name] <= due - feed.LEAD_SECONDS + 1e-6


def test_batches_hold_everything_in_order_and_know_what_decides():
    """No event is lost on the way into batches; the position of each deciding one is right."""
    found: list[bytes] = []
    decides = []
    for parts in feed.batches(LOAD, Builder, lambda: MOMENT):
        for partition, batch in parts:
            records: list[tuple[bytes, bytes]] = batch.builder.records
            assert batch.count == len(records)
            assert {partition_for(key.decode(), 4) for key, _ in records} == {partition}
            found += [value for _, value in records]
            decides += [(variant, records[position]) for variant, position in batch.decides.items()]
    assert Counter(found) == Counter(value for _, _, value, _ in [*feed.bad_events(LOAD, lambda: MOMENT), *feed.living_events(LOAD, lambda: MOMENT)])
    assert len(decides) == LOAD.bad
    assert all(key == variant.encode() and json.loads(value)["event_id"].endswith(feed.DECIDES) for variant, (key, value) in decides)


def test_a_load_can_fall_to_one_partition_alone():
    """All its variants hash to it."""
    load = feed.Load(kafka="", rate=400, seconds=1, living=20, run="test", busy_partitions=1)
    assert {partition_for(name, 4) for _, name, _ in feed.postings(load, None)} == {0}


def test_a_bad_event_would_be_noticed():
    """The check above is one: an interaction of another variant than its key is refused."""
    value: Any = feed.interaction("one", "view", "1", MOMENT)
    with pytest.raises(Reject):
        parse_interaction(value, b"other", NOW)

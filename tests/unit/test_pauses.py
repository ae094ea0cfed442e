"""How long a process stands still, as the on-call sees it."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from streams.metrics import Metrics
from streams.pauses import BEAT_SECONDS, BUCKETS, TURN_SECONDS, Durations, Pauses


@pytest.fixture
async def pauses() -> AsyncIterator[Pauses]:
    watched = Pauses()
    watched.start()
    yield watched
    watched.stop()


async def test_a_blocked_event_loop_is_seen(pauses: Pauses):
    """Whatever keeps the event loop from its timers shows, but for the time between two looks."""
    await asyncio.sleep(2 * BEAT_SECONDS)
    time.sleep(0.15)  # noqa: ASYNC251 - the offence itself
    await asyncio.sleep(BEAT_SECONDS)
    assert 0.15 - BEAT_SECONDS <= pauses.longest()["event_loop"] < 5


async def test_collections_are_timed_by_generation(pauses: Pauses):
    """A full collection counts as one of the oldest generation, and no other."""
    young, old = sum(pauses.collections[0].counts), sum(pauses.collections[2].counts)
    gc.collect(2)
    assert sum(pauses.collections[2].counts) == old + 1
    gc.collect(0)
    assert sum(pauses.collections[0].counts) >= young + 1
    assert pauses.longest()["gc"] > 0


async def test_after_the_stop_nothing_is_watched():
    """A worker that leaves takes its callback along; starting twice is starting once."""
    before = len(gc.callbacks)
    watched = Pauses()
    watched.start()
    watched.start()
    assert len(gc.callbacks) == before + 1
    watched.stop()
    watched.stop()
    assert len(gc.callbacks) == before


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, 0), (BUCKETS[0], 0), (0.2, BUCKETS.index(0.2)), (0.2001, BUCKETS.index(0.5)), (BUCKETS[-1], len(BUCKETS) - 1), (5.1, len(BUCKETS))]
)
def test_a_bound_belongs_to_its_bucket(seconds: float, bucket: int):
    """Bounds are inclusive, as Prometheus reads ``le``."""
    durations = Durations()
    durations.add(seconds, now=1.0)
    assert durations.counts.index(1) == bucket
    assert durations.total == seconds


@pytest.mark.parametrize(
    ("later", "remembered"),
    [(0.0, True), (TURN_SECONDS - 0.1, True), (TURN_SECONDS, True), (2 * TURN_SECONDS - 0.1, True), (2 * TURN_SECONDS, False), (1_000 * TURN_SECONDS, False)],
)
def test_the_longest_is_remembered_for_half_a_minute_and_forgotten_after_a_whole_one(later: float, remembered: bool):
    """Whoever asks every half minute misses none, and an old one does not stay for ever."""
    durations = Durations()
    durations.add(3.0, now=100.0)
    assert durations.longest(100.0 + later) == (3.0 if remembered else 0.0)


def test_the_longest_outlives_shorter_ones_after_it():
    """Shorter pauses do not hide it, also not over a turn."""
    durations = Durations()
    durations.add(3.0, now=100.0)
    for second in range(1, 55):
        durations.add(0.01, now=100.0 + second)
    assert durations.longest(155.0) == 3.0
    assert durations.longest(100.0 + 2 * TURN_SECONDS + 1) == 0.01


def test_prometheus_is_told():
    """Histograms are cumulative and complete from the start; the gauge says where."""
    metrics, watched = Metrics(), Pauses(clock=lambda: 10.0)
    metrics.watch_pauses(watched)
    watched.event_loop.add(0.3, now=10.0)
    watched.event_loop.add(0.002, now=10.0)
    watched.collections[2].add(0.07, now=10.0)
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
        if "pause" in sample.name
    }
    assert found["performance_monitor_event_loop_pause_seconds_bucket", "0.2"] == 1
    assert found["performance_monitor_event_loop_pause_seconds_bucket", "0.5"] == 2
    assert found["performance_monitor_event_loop_pause_seconds_bucket", "+Inf"] == 2
    assert found["performance_monitor_event_loop_pause_seconds_count",] == 2
    assert found["performance_monitor_event_loop_pause_seconds_sum",] == 0.302
    assert found["performance_monitor_gc_pause_seconds_bucket", "2", "0.1"] == 1
    assert found["performance_monitor_gc_pause_seconds_count", "0"] == 0
    assert found["performance_monitor_longest_pause_seconds", "event_loop"] == 0.3
    assert found["performance_monitor_longest_pause_seconds", "gc"] == 0.07

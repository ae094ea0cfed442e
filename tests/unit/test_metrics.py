"""What a worker tells Prometheus."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from models.session import Result
from streams.metrics import Metrics


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by (name, sorted labels), as a scraper reads it."""
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return found


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("performance_monitor_sessions_started_total", ()),
        ("performance_monitor_sessions_active", ()),
        ("performance_monitor_event_ids", ()),
        ("performance_monitor_variants_killed_total", (("reason", "below_threshold"),)),
        ("performance_monitor_session_duration_seconds_count", (("outcome", "killed"),)),
        ("performance_monitor_session_duration_seconds_count", (("outcome", "timed_out"),)),
        ("performance_monitor_session_duration_seconds_count", (("outcome", "stopped"),)),
        ("performance_monitor_engagement_rate_at_kill_count", ()),
        ("performance_monitor_evaluation_latency_seconds_count", ()),
        *(("performance_monitor_events_total", (("result", result),)) for result in Result),
    ],
)
def test_the_contracts_metrics_are_there_from_the_start(name: str, labels: tuple[tuple[str, str], ...]) -> None:
    """A scraper finds each metric of the contract, at zero, before anything has happened."""
    assert samples(Metrics())[name, labels] == 0


def test_the_results_add_up_to_the_records_read() -> None:
    """A waiting record is counted as waiting until it gets its final result, and then once as that."""
    metrics, waiting = Metrics(), [3]
    metrics.watch_waiting(lambda: waiting[0])
    metrics.count(Result.COUNTED, 5)
    metrics.count(Result.DEAD_LETTER)

    def total() -> float:
        return sum(value for (name, _), value in samples(metrics).items() if name == "performance_monitor_events_total")

    assert total() == 9
    waiting[0] = 1
    metrics.count(Result.COUNTED)
    metrics.count(Result.LATE)
    assert total() == 9
    assert samples(metrics)["performance_monitor_events_total", (("result", "counted"),)] == 6


def test_restored_waiting_records_are_counted_apart() -> None:
    """What an earlier process read does not enter the sum of this one."""
    metrics = Metrics()
    metrics.restored_waiting(Result.COUNTED, 2)
    found = samples(metrics)
    assert found["performance_monitor_restored_waiting_total", (("result", "counted"),)] == 2
    assert found["performance_monitor_events_total", (("result", "counted"),)] == 0


def test_an_unknown_result_is_refused() -> None:
    """A typing error in a result cannot make a new series."""
    with pytest.raises(KeyError):
        Metrics().count("conted")  # type: ignore[arg-type]


def test_a_kill_is_counted_by_reason_with_its_rate_and_duration() -> None:
    """A kill shows in the counter by reason, in the duration by outcome and in the rate's histogram."""
    metrics = Metrics()
    metrics.ended("killed", "below_threshold", 61.0, 0.02)
    metrics.evaluated(0.004)
    found = samples(metrics)
    assert found["performance_monitor_variants_killed_total", (("reason", "below_threshold"),)] == 1
    assert found["performance_monitor_session_duration_seconds_sum", (("outcome", "killed"),)] == 61
    assert found["performance_monitor_engagement_rate_at_kill_sum", ()] == 0.02
    assert found["performance_monitor_evaluation_latency_seconds_count", ()] == 1


def test_other_ends_are_no_kills() -> None:
    """A time-out without a view has a duration, but no rate and no kill."""
    metrics = Metrics()
    metrics.ended("timed_out", "", 600.0, None)
    found = samples(metrics)
    assert found["performance_monitor_variants_killed_total", (("reason", "below_threshold"),)] == 0
    assert found["performance_monitor_engagement_rate_at_kill_count", ()] == 0
    assert found["performance_monitor_session_duration_seconds_count", (("outcome", "timed_out"),)] == 1


def test_gauges_are_asked_for_at_each_scrape() -> None:
    """Active sessions and lag are read when scraped, never stored."""
    metrics, active = Metrics(), [0]
    metrics.watch_active(lambda: active[0])
    metrics.watch_event_ids(lambda: 300)
    metrics.watch_lag(lambda: {("interaction", 3): 17})
    active[0] = 12
    found = samples(metrics)
    assert found["performance_monitor_sessions_active", ()] == 12
    assert found["performance_monitor_event_ids", ()] == 300
    assert found["performance_monitor_consumer_lag", (("partition", "3"), ("topic", "interaction"))] == 17


def test_flushes_batches_and_requests_are_counted() -> None:
    """The operational metrics carry what they were told."""
    metrics = Metrics()
    metrics.read("interaction", 7)
    metrics.flushed(0.2, {"engagement": 4})
    metrics.sank(3, 0.1, {"ended": 2, "repeated": 1})
    metrics.postgresql(is_up=True)
    metrics.answered("/health", "GET", 200)
    found = samples(metrics)
    assert found["performance_monitor_records_read_total", (("topic", "interaction"),)] == 7
    assert found["performance_monitor_table_writes_total", (("table", "engagement"),)] == 4
    assert found["performance_monitor_sink_records_total", (("result", "ended"),)] == 2
    assert found["performance_monitor_sink_batch_records_sum", ()] == 3
    assert found["performance_monitor_postgresql_up", ()] == 1
    assert found["performance_monitor_http_requests_total", (("method", "GET"), ("route", "/health"), ("status", "200"))] == 1


def test_two_workers_in_one_process_do_not_mix() -> None:
    """Each worker has a registry of its own."""
    one, other = Metrics(), Metrics()
    one.started()
    assert samples(other)["performance_monitor_sessions_started_total", ()] == 0

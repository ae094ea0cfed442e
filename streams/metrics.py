"""What a worker tells Prometheus: every metric's name, unit and meaning. No ids in labels, ever.

Source:
    CONTRACT.md, section 6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from models.session import Result
from streams.pauses import BUCKETS, Durations, Pauses

CONTENT_TYPE = CONTENT_TYPE_LATEST
"""Media type of ``Metrics.render``: Prometheus text format."""

_PREFIX = "performance_monitor"
_SESSION_SECONDS = (1, 5, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 10_800, 43_200, 86_400, 604_800, 2_592_000)
_RATES = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.25, 0.5)
_LATENCY_SECONDS = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 60)
_WORK_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_CALL_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BATCH_RECORDS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500)


disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for each counter, which nobody asks for


def _nothing() -> int:
    return 0


def _no_lag() -> Mapping[tuple[str, int], int]:
    return {}


class _Live(Collector):
    """The numbers that are asked for at each scrape rather than kept: results of events, sessions, lag."""

    def __init__(self, results: Mapping[Result, int], restored: Mapping[Result, int]) -> None:
        self.results = results
        self.restored = restored
        self.waiting: Callable[[], int] = _nothing
        self.active: Callable[[], int] = _nothing
        self.event_ids: Callable[[], int] = _nothing
        self.lag: Callable[[], Mapping[tuple[str, int], int]] = _no_lag

    def collect(self) -> Iterator[Metric]:
        events = CounterMetricFamily(
            f"{_PREFIX}_events",
            "Records of variant_posted, interaction and monitoring_control that this process read, by what became of them; "
            "`waiting` is how many of them wait now, so the sum is the number of records read.",
            labels=["result"],
        )
        for result in Result:
            events.add_metric([result.value], self.waiting() if result is Result.WAITING else self.results[result])
        yield events
        restored = CounterMetricFamily(
            f"{_PREFIX}_restored_waiting", "Waiting records that an earlier process had read and this one restored, by what became of them here.", labels=["result"]
        )
        for result in Result:
            if result is not Result.WAITING:
                restored.add_metric([result.value], self.restored[result])
        yield restored
        yield GaugeMetricFamily(f"{_PREFIX}_sessions_active", "Sessions that this worker monitors now.", value=self.active())
        yield GaugeMetricFamily(f"{_PREFIX}_event_ids", "Event ids that active sessions remember here, as of the last flush, in 12 to 170 bytes each.", value=self.event_ids())
        lag = GaugeMetricFamily(
            f"{_PREFIX}_consumer_lag", "Records between the last one that a monitor has folded, or a sink written, and the partition's end.", labels=["topic", "partition"]
        )
        for (topic, partition), records in sorted(self.lag().items()):
            lag.add_metric([topic, str(partition)], records)
        yield lag


class _Paused(Collector):
    """How long the process stood still, as ``Pauses`` has it."""

    def __init__(self, pauses: Pauses) -> None:
        self._pauses = pauses

    def collect(self) -> Iterator[Metric]:
        late = HistogramMetricFamily(f"{_PREFIX}_event_loop_pause_seconds", "How late the event loop came to a timer: what anything else had to wait for its turn.", labels=[])
        _add(late, [], self._pauses.event_loop)
        yield late
        collections = HistogramMetricFamily(f"{_PREFIX}_gc_pause_seconds", "Garbage collections, during which nothing else runs, by generation.", labels=["generation"])
        for generation, durations in enumerate(self._pauses.collections):
            _add(collections, [str(generation)], durations)
        yield collections
        longest = GaugeMetricFamily(f"{_PREFIX}_longest_pause_seconds", "Longest pause of the last half minute to minute, by where it was.", labels=["where"])
        for where, seconds in self._pauses.longest().items():
            longest.add_metric([where], seconds)
        yield longest


def _add(family: HistogramMetricFamily, labels: list[str], durations: Durations) -> None:
    bounds = [*map(str, BUCKETS), "+Inf"]
    family.add_metric(labels, list(zip(bounds, accumulate(durations.counts), strict=True)), durations.total)


class Metrics:
    """One worker's metrics, in a registry of their own, so that two workers in one process (tests) do not mix.

    Call it from one thread. Everything on the hot path is a dictionary addition; sum up per chunk before calling.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._results = dict.fromkeys(Result, 0)
        self._restored = dict.fromkeys(Result, 0)
        self._live = _Live(self._results, self._restored)
        self.registry.register(self._live)
        ProcessCollector(registry=self.registry)
        self._started = self._counter("sessions_started", "Sessions that started.")
        self._killed = self._counter("variants_killed", "Sessions that ended in a kill, by reason.", "reason")
        self._duration = self._histogram("session_duration_seconds", "Event time from posted_at to ended_at, by outcome.", _SESSION_SECONDS, "outcome")
        self._rate = self._histogram("engagement_rate_at_kill", "Interactions per view at the deciding event of a kill.", _RATES)
        self._latency = self._histogram("evaluation_latency_seconds", "Append time of a kill's deciding event to the kill's acknowledgement by Kafka.", _LATENCY_SECONDS)
        self._read = self._counter("records_read", "Records read, by topic; the internal ones too.", "topic")
        self._lost = self._counter("records_lost", "Records that retention removed before they were read, by topic.", "topic")
        self._flush = self._histogram("flush_duration_seconds", "Writing changed state: from the first table write to the source records' acknowledgement.", _WORK_SECONDS)
        self._table_writes = self._counter("table_writes", "States written to windowed tables, and so changelog records.", "table")
        self._sink_batch = self._histogram("sink_batch_records", "Monitoring records the sink wrote in one transaction.", _BATCH_RECORDS)
        self._sink_duration = self._histogram("sink_batch_duration_seconds", "One transaction of the sink, retries included.", _WORK_SECONDS)
        self._sink_records = self._counter("sink_records", "Monitoring records by what the database made of them.", "result")
        self._call = self._histogram("outbound_call_duration_seconds", "Attempts at calls to another system, by result.", _CALL_SECONDS, "result")
        self._calls = Gauge(
            f"{_PREFIX}_outbound_calls", "Calls to another system that are to be made (pending) or were given up, over all sinks.", ["state"], registry=self.registry
        )
        self._oldest_call = Gauge(f"{_PREFIX}_outbound_oldest_seconds", "Since when the oldest pending call is to be made, over all sinks.", registry=self.registry)
        self._stalled = Gauge(
            f"{_PREFIX}_sink_stalled_seconds", "Since when the sink has records in hand and has written none of them; 0 with none in hand.", registry=self.registry
        )
        self._swept = self._counter("posts_swept", "Scheduled posts of killed variants that the sink found runnable, and cancelled.")
        self._postgresql_up = Gauge(f"{_PREFIX}_postgresql_up", "1 if PostgreSQL answered the last time it was asked, else 0.", registry=self.registry)
        self._requests = self._counter("http_requests", "HTTP requests answered, by route and status.", "route", "method", "status")
        for reason in ("below_threshold",):
            self._killed.labels(reason)  # there from the start, so that rate() sees the first kill
        self._sink_records.labels("dead_letter")  # likewise
        for outcome in ("killed", "timed_out", "stopped"):
            self._duration.labels(outcome)
        for result in ("confirmed", "failed", "given_up"):
            self._call.labels(result)
        self.outbound_backlog(0, 0, 0.0)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"{_PREFIX}_{name}", meaning, labels, registry=self.registry)

    def _histogram(self, name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"{_PREFIX}_{name}", meaning, labels, buckets=buckets, registry=self.registry)

    def watch_waiting(self, waiting: Callable[[], int]) -> None:
        """Ask ``waiting`` at each scrape how many records that *this process* read have no final result yet.

        One that left with its partition stays among them: it was read here, and gets its result elsewhere.
        """
        self._live.waiting = waiting

    def watch_event_ids(self, event_ids: Callable[[], int]) -> None:
        """Ask ``event_ids`` at each scrape how many are remembered here."""
        self._live.event_ids = event_ids

    def watch_active(self, active: Callable[[], int]) -> None:
        """Ask ``active`` at each scrape how many sessions are monitored here."""
        self._live.active = active

    def watch_lag(self, lag: Callable[[], Mapping[tuple[str, int], int]]) -> None:
        """Ask ``lag`` at each scrape for the records still unread, by (topic, partition)."""
        self._live.lag = lag

    def watch_pauses(self, pauses: Pauses) -> None:
        """Ask ``pauses`` at each scrape how long this process has stood still; to be called once."""
        self.registry.register(_Paused(pauses))

    def count(self, result: Result, n: int = 1) -> None:
        """Count ``n`` records read by this process that got the final ``result`` (never ``waiting``).

        Raises:
            KeyError: There is no such result.
        """
        self._results[result] += n

    def restored_waiting(self, result: Result, n: int = 1) -> None:
        """Count ``n`` waiting records that were restored, not read here, and now got their final ``result``."""
        self._restored[result] += n

    def started(self, n: int = 1) -> None:
        """Count ``n`` sessions that started."""
        self._started.inc(n)

    def ended(self, outcome: str, reason_label: str, duration_seconds: float, rate: float | None) -> None:
        """Count a session's end.

        Args:
            outcome: ``killed``, ``timed_out`` or ``stopped``.
            reason_label: For a kill, its reason as a label (``below_threshold``); else ignored.
            duration_seconds: Event time from ``posted_at`` to ``ended_at``.
            rate: Engagement rate at the end; None if nobody viewed.
        """
        self._duration.labels(outcome).observe(duration_seconds)
        if outcome == "killed":
            self._killed.labels(reason_label).inc()
            if rate is not None:
                self._rate.observe(rate)

    def evaluated(self, latency_seconds: float) -> None:
        """Note how long a kill took from its deciding event's append time to its own acknowledgement."""
        self._latency.observe(latency_seconds)

    def read(self, topic: str, n: int = 1) -> None:
        """Count ``n`` records read from ``topic``."""
        self._read.labels(topic).inc(n)

    def lost(self, topic: str, n: int) -> None:
        """Count ``n`` records of ``topic`` that are gone and were never read."""
        self._lost.labels(topic).inc(n)

    def flushed(self, duration_seconds: float, table_writes: Mapping[str, int]) -> None:
        """Note one flush: how long it took, and how many states it wrote to each table."""
        self._flush.observe(duration_seconds)
        for table, n in table_writes.items():
            self._table_writes.labels(table).inc(n)

    def sank(self, records: int, duration_seconds: float, results: Mapping[str, int]) -> None:
        """Note one batch of the sink: its size, how long it took, and how many records had which result."""
        self._sink_batch.observe(records)
        self._sink_duration.observe(duration_seconds)
        for result, n in results.items():
            self._sink_records.labels(result).inc(n)

    def called(self, result: str, duration_seconds: float) -> None:
        """Count an attempt at an outbound call: ``confirmed``, ``failed`` (and tried again) or ``given_up``."""
        self._call.labels("given_up" if result == "refused" else result).observe(duration_seconds)

    def outbound_backlog(self, pending: int, given_up: int, oldest_seconds: float) -> None:
        """Note how many outbound calls there are, and the age of the oldest that is pending."""
        self._calls.labels("pending").set(pending)
        self._calls.labels("given_up").set(given_up)
        self._oldest_call.set(oldest_seconds)

    def watch_stalled(self, stalled: Callable[[], float]) -> None:
        """Ask ``stalled`` at each scrape since when, in seconds, the sink has got nowhere with the records it has in hand."""
        self._stalled.set_function(stalled)

    def swept(self, posts: int) -> None:
        """Count posts of killed variants that had become runnable."""
        self._swept.inc(posts)

    def postgresql(self, *, is_up: bool) -> None:
        """Note whether PostgreSQL answered just now."""
        self._postgresql_up.set(1 if is_up else 0)

    def answered(self, route: str, method: str, status: int) -> None:
        """Count an HTTP request by its route's pattern (not its path: no ids in labels)."""
        self._requests.labels(route, method, str(status)).inc()

    def render(self) -> bytes:
        """Return all metrics as Prometheus text (``CONTENT_TYPE``)."""
        return generate_latest(self.registry)

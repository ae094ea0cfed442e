"""CPU time of one interaction by stage: unpacking what was fetched, decoding, folding, writing state.

    .venv/bin/python -m benchmarks.cpu_by_stage --events 400000 --rounds 5

The monitor's own functions, on the records of `benchmarks/backlog.py` as a broker sends them, without Kafka, Faust or another thread: so the
numbers hold still, and can be held against the CPU time of a whole monitor (``throughput``). What that takes besides is the socket, the responses' headers, Faust's
bookkeeping for each chunk, commits, and the turns of the event loop. State is written once for each variant and ``--per-flush`` events, which is what a
flush each 0.5 s comes to at 200,000 events a second.

All counts have to be right before a time counts.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import struct
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from aiokafka.consumer.fetcher import READ_UNCOMMITTED, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from benchmarks.backlog import WINDOW_SECONDS, Backlog
from benchmarks.report import Found, alone, row
from models.increments import fold_increments
from models.monitor import Limits, PartitionMonitor
from models.policy import Defaults
from models.session import Result
from models.state import encode_session, seal_event_ids
from streams.batches import bundle, unbundle
from streams.folding import FOLDS
from streams.garbage import NEVER, OLDER, YOUNG
from streams.increments import decode_increments
from streams.partition import FOLD_SLICE
from streams.ports import Incoming

BATCH_BYTES = 1 << 18
STAGES = ("unpack", "decode", "fold", "write")
TOPICS = ("interaction", "monitoring_control", "variant_posted")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--events", type=int, default=400_000, help="interactions (default 400,000)")
    parser.add_argument("--variants", type=int, default=1_000, help="variants they are spread over (default 1,000)")
    parser.add_argument("--per-flush", type=int, default=100_000, help="events between two writings of state (default 100,000)")
    parser.add_argument("--rounds", type=int, default=5, help="times that all is done; the median counts (default 5)")


def as_fetched(backlog: Backlog, values: Iterator[tuple[int, bytes]]) -> list[bytes]:
    """Return record batches of one partition, each as a broker sends it."""
    append_ms = (backlog.window_start + WINDOW_SECONDS) * 1_000
    batches: list[bytes] = []
    first = count = 0
    builder: Any = None

    def close() -> None:
        raw = bytearray(builder.build())
        struct.pack_into(">q", raw, 0, first)
        batches.append(bytes(raw))

    for variant, value in values:
        key = backlog.variant_id(variant).encode()
        if builder is None or builder.append(count, append_ms, key, value, []) is None:
            if builder is not None:
                close()
            first, count = first + count, 0
            builder = DefaultRecordBatchBuilder(2, 0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1, batch_size=BATCH_BYTES)
            builder.append(0, append_ms, key, value, [])
        count += 1
    if builder is not None:
        close()
    return batches


def unpack(raw: bytes, first: int) -> list[Incoming]:
    """Return the records of a batch as the transport hands them on."""
    fetched = PartitionRecords(None, MemoryRecords(raw), [], first, None, None, check_crcs=True, isolation_level=READ_UNCOMMITTED)
    buffer: Any = SimpleNamespace(_records={0: SimpleNamespace(_partition_records=fetched)})
    bundle(buffer)
    return unbundle(list(fetched))


def work_off(backlog: Backlog, posts: Sequence[bytes], batches: Sequence[bytes], per_flush: int) -> dict[str, float]:
    """Return seconds of CPU time by stage."""
    monitor = PartitionMonitor(0, Limits(), *TOPICS)
    now = (backlog.window_start + WINDOW_SECONDS) * 1_000_000
    for raw in posts:
        FOLDS[0](monitor, "variant_posted", unpack(raw, 0), Defaults(), now)
    monitor.take_emissions()
    spent: dict[str, float] = defaultdict(float)
    results: Counter[Result] = Counter()
    clock, unwritten, offset = time.process_time, 0, 0

    def fold_one(record: Incoming, _event: object) -> Result:
        found = FOLDS[1](monitor, "interaction", [record], Defaults(), now)
        return next(iter(found))

    for raw in batches:
        began = clock()
        records = unpack(raw, offset)
        spent["unpack"] += clock() - began
        offset += len(records)
        for start in range(0, len(records), FOLD_SLICE):
            part = records[start : start + FOLD_SLICE]
            began = clock()
            events = decode_increments(part)
            decoded = clock()
            if events is None:
                raise SystemExit("error: these events went the slow way")
            results.update(fold_increments(monitor, part, events, fold_one, now))
            spent["decode"] += decoded - began
            spent["fold"] += clock() - decoded
        monitor.take_emissions()
        unwritten += len(records)
        if unwritten >= per_flush or raw is batches[-1]:
            began, unwritten = clock(), 0
            write(monitor)
            spent["write"] += clock() - began
    check(backlog, monitor, results)
    return spent


def write(monitor: PartitionMonitor) -> None:
    """Make of all that has changed what goes to the changelogs, in batches, as a flush does."""
    sessions, _ = monitor.take_changes()
    builder = DefaultRecordBatchBuilder(2, 0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1, batch_size=1 << 30)
    states = [packed for session in sessions for _, packed in seal_event_ids(session).written]
    states += [encode_session(session) for session in sessions]
    for number, state in enumerate(states):
        builder.append(number, 0, b"key-of-usual-length-00000000", state, [])
    builder.build()


def check(backlog: Backlog, monitor: PartitionMonitor, results: Counter[Result]) -> None:
    """Exit unless all counts are right."""
    expected = backlog.expected()
    found = {session.variant_id: session for session in monitor.sessions}
    for variant, counts in expected.items():
        session = found[variant]
        if (session.counts.views, session.counts.interactions, session.end is not None) != (counts.views, counts.interactions, counts.was_killed):
            raise SystemExit(f"error: wrong counts of {variant}")
    if sum(results.values()) != backlog.events:
        raise SystemExit("error: not every event has a result")


async def run(arguments: argparse.Namespace) -> Found:
    """Measure; return CPU time by stage."""
    backlog = Backlog(arguments.events, arguments.variants, partitions=1)
    posts, batches = as_fetched(backlog, backlog.posts()), as_fetched(backlog, backlog.interactions())
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, OLDER, NEVER)  # as a monitor does
    rounds = [work_off(backlog, posts, batches, arguments.per_flush) for _ in range(arguments.rounds)]
    by_stage = {stage: [spent[stage] / backlog.events * 1e6 for spent in rounds] for stage in STAGES}
    whole = [sum(by_stage[stage][number] for stage in STAGES) for number in range(len(rounds))]
    rows = [
        row(f"{stage} an event", statistics.median(times), "us", note=f"{statistics.median(t / w for t, w in zip(times, whole, strict=True)):.0%}")
        for stage, times in by_stage.items()
    ]
    rows.append(row("all of these", statistics.median(whole), "us"))
    return {"rows": rows, "microseconds": by_stage}


def main() -> None:
    """Run this benchmark alone."""
    alone(__doc__, add_arguments, run)


if __name__ == "__main__":
    main()

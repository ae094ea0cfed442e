"""Samples where a worker's CPU time goes, into the file that ``SAMPLES_TO`` names. Python runs this at its start; see ``benchmarks/profile.py``.

Each line is a moment (seconds of the monotonic clock), a stage and the innermost line's place. A signal comes for every so many seconds of CPU time, and is handled
between two steps of the interpreter, so what C code does counts for the Python function that called it.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from types import FrameType

EACH_CPU_SECONDS = 0.005
FLUSH_EACH = 50
STAGES = (
    ("commit", (":ChunkedConsumer._commit", "streams/ledger.py", "faust/transport/consumer.py:Consumer.commit", "consumer/group_coordinator.py")),
    ("decode", ("streams/increments.py", "streams/usual_moments.py", "models/events.py", "models/moments.py", "models/strict_json.py")),
    (
        "write",
        (
            ":PartitionWorker.flush", ":PartitionWorker._write", ":PartitionWorker._delete", ":PartitionWorker._latch", ":PartitionWorker._tell", ":PartitionWorker._bury",
            ":PartitionMonitor.take_changes", "models/state.py", "streams/codec.py", "streams/changelog.py", "streams/delivery.py", "aiokafka/producer/",
        ),
    ),
    ("fold", ("models/", "streams/folding.py", "streams/partition.py", "streams/observing.py", "streams/monitoring.py")),
    ("fetch", ("aiokafka/consumer/", "aiokafka/record/", "aiokafka/protocol/fetch.py", "streams/batches.py", "streams/pieces.py", "streams/transport.py", "streams/pace.py")),
    ("connections", ("aiokafka/",)),
    ("Faust", ("faust/", "mode/")),
    ("other chores of a monitor", ("streams/",)),
    ("event loop", ("asyncio/", "selectors.py")),
)  # fmt: skip
"""By stage, what files or functions it is known by; a sample counts for the innermost frame that has a stage."""


def stage_of(frame: FrameType | None) -> str:
    """Return the stage that a stack of calls belongs to."""
    while frame is not None:
        code = frame.f_code
        place = f"{code.co_filename}:{code.co_qualname}"
        for stage, known in STAGES:
            if any(part in place for part in known):
                return stage
        frame = frame.f_back
    return "other"


def sample_to(path: Path) -> None:
    """Sample from now on, for as long as the process lives."""
    lines: list[str] = []

    def note(_number: int, frame: FrameType | None) -> None:
        place = f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_qualname}" if frame is not None else ""
        lines.append(f"{time.monotonic():.3f}\t{stage_of(frame)}\t{place}\n")
        if len(lines) >= FLUSH_EACH:
            with path.open("a") as out:
                out.writelines(lines)
            lines.clear()

    signal.signal(signal.SIGPROF, note)
    signal.setitimer(signal.ITIMER_PROF, EACH_CPU_SECONDS, EACH_CPU_SECONDS)


if os.environ.get("SAMPLES_TO"):
    sample_to(Path(os.environ["SAMPLES_TO"]))

"""Processes that stand still for a while, as under a hypervisor that pauses them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

STOPPED = "T"  # proc_pid_stat(5)
LONGEST_SECONDS = 10


@contextmanager
def standing_still(pid: int) -> Iterator[None]:
    """Stop a process; once none of its threads runs, do what is within; then let it go on.

    Only asking is not enough: on a busy machine its threads were seen to go on for 30 ms, in which a broker acknowledges what it should not.

    Raises:
        TimeoutError: It still ran after ten seconds.
    """
    os.kill(pid, signal.SIGSTOP)
    try:
        deadline = time.monotonic() + LONGEST_SECONDS
        while set(_states(pid)) - {STOPPED}:
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {pid} was told to stop and still runs")
            time.sleep(0.001)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _states(pid: int) -> Iterator[str]:
    """What each thread of a process does now."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended meanwhile
            yield (thread / "stat").read_text().rpartition(")")[2].split()[0]

"""``tests/standstill.py``: what is claimed of a broker that stands still is only as good as this."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.standstill import standing_still

COUNTING = """
import pathlib, sys
number = 0
while True:
    number += 1
    pathlib.Path(sys.argv[1]).write_text(str(number))
"""


@pytest.fixture
def counting(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A process that writes to a file all the time, and that file."""
    file = tmp_path / "count"
    with subprocess.Popen([sys.executable, "-c", COUNTING, str(file)]) as process:
        while not file.exists():
            time.sleep(0.01)
        yield process.pid, file
        process.kill()


def test_nothing_is_done_while_it_stands_still(counting: tuple[int, Path]) -> None:
    """From the first moment, and goes on afterwards."""
    pid, file = counting
    for _ in range(20):
        with standing_still(pid):
            before = file.stat().st_mtime_ns
            time.sleep(0.02)
            assert file.stat().st_mtime_ns == before
        deadline = time.monotonic() + 10
        while file.stat().st_mtime_ns == before:
            assert time.monotonic() < deadline
            time.sleep(0.001)

"""``demo`` from the start to the first kill and to Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streams.local.child import free_port

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_demo_shows_a_kill_with_its_why_and_ends_at_ctrl_c(servers_home: Path) -> None:
    """The page's address comes first; the kill's line says which, why, how far below the line, how soon, and what was cleaned up."""
    data_dir = servers_home / "demo"
    ports = [f"--{name}-port={free_port()}" for name in ("kafka", "postgres", "web")]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EARLY_KILL_", "KAFKA_", "DATABASE_URL"))}
    with (servers_home / "demo.err").open("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "streams.cli", "demo", "--data-dir", str(data_dir), *ports],
            env={**kept, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            assert process.stdout is not None
            page, kill = process.stdout.readline(), process.stdout.readline()
        finally:
            process.send_signal(signal.SIGINT)
            started = time.monotonic()
            process.communicate(timeout=60)
        errors.seek(0)
        said = errors.read()
    assert page == f"Watch it live: {ports[2].replace('--web-port=', 'http://127.0.0.1:')}/\n", said
    line = re.fullmatch(
        r"\d\d:\d\d:\d\d  KILLED  [a-z-]+-00-\d+  \|  Below 50% of expected engagement rate  \|  (\d\.\d{3})% against (\d\.\d{3})% \(\d+ of [\d,]+ views\)"
        r"  \|  \d+\.\d s after it was posted  \|  [1-4] scheduled posts? cancelled\n",
        kill,
    )
    assert line is not None, (kill, said)
    assert 0 < float(line[1]) < float(line[2]), kill
    assert process.returncode == 0
    assert "Traceback" not in said
    assert time.monotonic() - started < 20

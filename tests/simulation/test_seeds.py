"""A seed that failed must fail again, wherever it is run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

DIGEST = """
from hashlib import sha256
from tests.simulation.plan import make_plan
from tests.simulation.seeds import FAMILIES, small_numbers
from tests.simulation.simulation import run_plan

with small_numbers():
    runs = [run_plan(make_plan(seed, shape)) for shape in FAMILIES.values() for seed in range(3)]
print(sha256(repr([(sorted(run.history.records.items()), sorted(run.broker.appended.items(), key=lambda log: log[0]), run.diary) for run in runs]).encode()).hexdigest())
"""


def digest(hash_seed: str) -> str:
    """Return what stands for all that was read and written, as a process finds it in which sets have an order of their own."""
    ran = subprocess.run([sys.executable, "-c", DIGEST], check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2], env={**os.environ, "PYTHONHASHSEED": hash_seed})
    return ran.stdout


def test_a_seed_is_the_same_in_every_process() -> None:
    """Every record of every topic, with its moment, and every turn of each life."""
    assert digest("1") == digest("2")

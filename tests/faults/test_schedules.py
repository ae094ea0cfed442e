"""Random schedules of faults on real Kafka and PostgreSQL; a few here, many with ``make faults``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.schedule import Size, run_schedule
from tests.faults.stage import Servers

SEEDS = (3,)
SHORT = Size(variants=100, events=3_000, seconds=8.0)


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_random_faults_do_no_harm(servers: Servers, tmp_path: Path):
    """3,000 events of 100 variants; nothing missed, invented, doubled, wrong or unclean, and faults have bitten."""
    for seed in SEEDS:
        report = await run_schedule(servers, tmp_path / str(seed), seed, SHORT)
        print("\n".join(report.lines()))
        assert not report.wrong, "\n".join(report.lines()[:40])
        assert any(bite for _, bite in report.faults)

"""Random schedules of faults on real Kafka and PostgreSQL; a few here, many with ``make faults``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.schedule import Size, run_schedule
from tests.faults.stage import Servers

SIZE = Size(seconds=15.0)


@pytest.mark.parametrize("seed", [3, 4, 5])
@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_random_faults_do_no_harm(servers: Servers, tmp_path: Path, seed: int):
    """20,000 events of 500 variants, two monitors; nothing missed, invented, doubled, wrong or unclean, and faults have bitten."""
    report = await run_schedule(servers, tmp_path, seed, SIZE)
    print("\n".join(report.lines()))
    assert not report.wrong, "\n".join(report.lines()[:40])
    assert any(bite for _, bite in report.faults)

"""A harness that finds nothing proves nothing: with any one of the safeguards taken out, it has to find a violation."""

from __future__ import annotations

import pytest

from tests.simulation.bites import SEEDS
from tests.simulation.safeguards import SAFEGUARDS, Safeguard
from tests.simulation.seeds import find_without


@pytest.mark.parametrize("safeguard", SAFEGUARDS, ids=lambda safeguard: safeguard.name)
@pytest.mark.timeout(300)
def test_the_simulation_fails(safeguard: Safeguard) -> None:
    """Each safeguard is one that the simulation misses; ``python -m tests.simulation.bites`` writes down how."""
    if find_without(safeguard, SEEDS) is None:
        pytest.fail(f"{safeguard.take_out.__doc__} And nobody has noticed within {SEEDS} seeds.")

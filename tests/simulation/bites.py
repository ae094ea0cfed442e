"""Take each safeguard out, one at a time, and write down what the simulation finds: ``python -m tests.simulation.bites > bites.md``."""

from __future__ import annotations

import sys
import time

from tests.simulation.safeguards import SAFEGUARDS
from tests.simulation.seeds import find_without

SEEDS = 1_000
"""Within so many seeds each one has to be missed."""


def main() -> int:
    """Return 1 if a safeguard can be taken out and nobody notices."""
    missed = 0
    print("| taken out | what then happens | seeds until it is noticed | how |\n|---|---|---|---|")
    cores = []
    for safeguard in SAFEGUARDS:
        began = time.monotonic()
        found = find_without(safeguard, SEEDS, is_shrunk=True)
        claim = (safeguard.take_out.__doc__ or "").strip()
        if found is None:
            missed += 1
            print(f"| {safeguard.name} | {claim} | **not noticed within {SEEDS}** | |")
            continue
        seed, told, core = found
        reason = ":".join(told.split(":")[:2]).removeprefix("Violation: ")
        print(f"| {safeguard.name} | {claim} | {seed + 1} | {reason} |")
        cores.append(f"## {safeguard.name}\n\n```\n{core}\n```\n")
        print(f"{safeguard.name}: seed {seed}, {time.monotonic() - began:.0f} s", file=sys.stderr)
    print("\n" + "\n".join(cores), end="")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

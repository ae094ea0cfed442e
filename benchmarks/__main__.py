"""Run benchmarks one after another and print one table: ``make bench``.

    python -m benchmarks                                        all of them, at their own defaults: an hour or more
    python -m benchmarks throughput --events 300000 --rounds 1  one, with its own options
    python -m benchmarks throughput --rounds 1 kill_latency     two
    python -m benchmarks throughput --help                      what its options are

A benchmark is a module of this folder that has ``add_arguments(parser)`` and ``async run(arguments)``. Everything found is written to one JSON file after each of them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType

from benchmarks.report import Found, add_json, facts, finish, rows_of, table, write_json
from benchmarks.stage import say

FIRST = "throughput"
DEFAULT_JSON = Path("build/bench.json")


@dataclass(frozen=True, slots=True)
class Planned:
    """One benchmark to run, and its arguments."""

    name: str
    module: ModuleType
    arguments: argparse.Namespace


def benchmarks() -> dict[str, ModuleType]:
    """Return all benchmarks by name, in the order that they run in."""
    names = sorted((module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]) if not module.ispkg), key=lambda name: (name != FIRST, name))
    modules = {name: importlib.import_module(f"benchmarks.{name}") for name in names if not name.startswith("_")}
    return {name: module for name, module in modules.items() if hasattr(module, "add_arguments") and hasattr(module, "run")}


def plan(known: dict[str, ModuleType], words: Sequence[str]) -> tuple[argparse.Namespace, list[Planned]]:
    """Sort a command line into this program's own options and the benchmarks, each with those that follow its name. No name means all of them.

    Exits with 2, saying why, where an option does not exist.
    """
    starts = [number for number, word in enumerate(words) if word in known and (number == 0 or words[number - 1] != "--json")]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, epilog=f"benchmarks: {', '.join(known)}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_json(parser, DEFAULT_JSON)
    own = parser.parse_args(words[: starts[0]] if starts else words)
    parts = [list(words[start:end]) for start, end in pairwise([*starts, len(words)])] or [[name] for name in known]
    return own, [Planned(name, known[name], _arguments(name, known[name], rest)) for name, *rest in parts]


def main() -> int:
    """Run what is asked for; return the exit code: 1 if one of them could not be run."""
    own, planned = plan(benchmarks(), sys.argv[1:])
    found: Found = {"machine": facts()}
    failed = False
    for one in planned:
        say(f"== {one.name}")
        began = time.monotonic()
        try:
            found[one.name] = result = finish(one.module.run(one.arguments))
        except SystemExit as problem:
            if not isinstance(problem.code, str):
                raise
            say(problem.code)
            found[one.name], failed = {"failed": problem.code}, True
        except Exception:  # noqa: BLE001 -- the numbers of the others are not to be lost
            traceback.print_exc()
            found[one.name], failed = {"failed": "see the traceback"}, True
        else:
            result["took_seconds"] = round(time.monotonic() - began)
            sys.stdout.write(f"\n{one.name}\n{table(rows_of(result))}")
            sys.stdout.flush()
        write_json(own.json, found)
    sys.stdout.write(f"\non {json.dumps(found['machine'])}\nall of it is in {own.json}\n")
    return int(failed)


def _arguments(name: str, module: ModuleType, words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    module.add_arguments(parser)
    return parser.parse_args(list(words))


if __name__ == "__main__":
    sys.exit(main())

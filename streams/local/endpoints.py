"""Where everything of one `early-kill up` is to be found: what ``endpoints.json`` says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from streams.local.whole import write_whole

FILE = "endpoints.json"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Addresses and processes.

    Attributes:
        kafka: Bootstrap server, ``host:port``.
        database_url: ``postgresql://…``, over TCP.
        web: Base URL of each monitor's HTTP API.
        pids: ``kafka``, ``postgres``, ``monitor-0`` …, ``sink``; the file keeps the old pid of a part that is just being started again.
    """

    kafka: str
    database_url: str
    web: tuple[str, ...]
    pids: Mapping[str, int]

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    def write(self, data_dir: Path) -> None:
        """Put it into the data directory, whole."""
        write_whole(data_dir / FILE, f"{self.to_json()}\n")

"""``python -m streams.local.remove DATA_DIR``: delete a data directory of `early-kill up`, with the database that may live elsewhere."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from models.errors import Stop
from streams.local.postgres import PostgresServer
from streams.local.supervisor import only_one


def remove(data_dir: Path) -> None:
    """Delete it; nothing happens if it isn't there.

    Raises:
        Stop: An `early-kill up` uses it.
    """
    if not data_dir.is_dir():
        return
    with only_one(data_dir.resolve()):
        postgres = PostgresServer(data_dir / "postgres", 0)
        postgres.stop_orphan()
        postgres.remove()
        shutil.rmtree(data_dir)


if __name__ == "__main__":
    try:
        remove(Path(sys.argv[1]))
    except (Stop, OSError) as error:
        sys.exit(f"error: {error}")

"""`early-kill up` with stand-ins for the workers, as a program: DATA_DIR WORKERS [KAFKA_PORT]."""

import asyncio
import sys
from pathlib import Path

from models.errors import EarlyKillError
from streams.local import worker
from streams.local.supervisor import UpOptions, run_up

if __name__ == "__main__":
    worker.PROGRAM = (str(Path(__file__).with_name("fake_worker.py")),)
    ports = {"kafka_port": int(sys.argv[3]) if len(sys.argv) > 3 else 0, "postgres_port": 0, "web_port": 0}
    try:
        asyncio.run(run_up(UpOptions(Path(sys.argv[1]), workers=int(sys.argv[2]), **ports)))
    except EarlyKillError as error:
        sys.exit(f"error: {error}")

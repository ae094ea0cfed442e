"""A worker whose Kafka goes away just after it has looked whether it is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from streams.local.kafka import KafkaServer
from streams.settings import Settings
from streams.store import migrate
from streams.topics import ensure_topics
from tests.faults.proxy import Proxy
from tests.integration.system import ROOT, System, Worker
from tests.ports import LOOPBACK, steady_port

pytestmark = pytest.mark.faults
PAST_THE_LOOK = """
import sys
from streams import app
from streams.settings import Settings
async def found(settings): pass
app._wait_for_kafka = found
sys.exit(app.run_worker(Settings(), sys.argv[1]))
"""


class Late(Worker):
    """A worker that has found Kafka, and then finds nobody."""

    def start(self) -> None:
        with self.log.open("ab") as out:
            self._process = subprocess.Popen([sys.executable, "-c", PAST_THE_LOOK, self._role], cwd=ROOT, env=self._environment, stdout=out, stderr=out)


@pytest.mark.parametrize("role", ["monitor", "sink"])
async def test_it_waits_and_then_works(settings: Settings, kafka: KafkaServer, tmp_path: Path, role: str):
    """Told to leave meanwhile, it leaves; either way it says so in one line, and there is no traceback."""
    migrate(settings)
    await ensure_topics(settings)
    proxy = Proxy(steady_port(), kafka.port)
    worker = Late(settings, role, tmp_path, {"KAFKA_BOOTSTRAP_SERVERS": f"{LOOPBACK}:{proxy.port}"})
    system = System(settings, tmp_path)

    def waits() -> bool:
        return "waiting for Kafka: " in worker.log.read_text()

    try:
        worker.start()
        await system.until(waits, 20)
        assert worker.stop() == 0
        worker.log.unlink()
        worker.start()
        await system.until(waits, 20)
        proxy.start()
        await worker.ready()
        assert worker.stop() == 0
        assert "Traceback" not in worker.log.read_text()
    finally:
        if worker.is_running:
            worker.kill()
        if proxy._thread.is_alive():
            proxy.stop()

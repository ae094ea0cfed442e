"""A worker that cannot do its work says so in one line and ends; one whose servers are away waits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from streams.settings import Settings
from streams.store import migrate
from streams.topics import ensure_topics
from tests.integration.system import ROOT, Worker


def start(settings: Settings, role: str, home: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a worker that is expected to end by itself."""
    environment = Worker(settings, role, home, extra)._environment
    return subprocess.run([sys.executable, "-m", "streams.cli", "worker", "--role", role], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("role", ["monitor", "sink"])
async def test_without_its_topics_a_worker_does_not_start(settings: Settings, tmp_path: Path, role: str):
    """One clear line, exit code 1, no traceback."""
    migrate(settings)
    ended = start(settings, role, tmp_path)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert settings.topic_prefix in ended.stderr.strip().splitlines()[-1]


async def test_a_sink_without_its_schema_does_not_start(settings: Settings, tmp_path: Path):
    """It would take records it can never write."""
    await ensure_topics(settings)
    ended = start(settings, "sink", tmp_path)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "variant_monitoring" in ended.stderr.strip().splitlines()[-1]


async def test_a_taken_port_is_said_in_one_line(settings: Settings, tmp_path: Path):
    """The port of Kafka is surely taken."""
    await ensure_topics(settings)
    port = settings.kafka_bootstrap_servers.rsplit(":", 1)[1]
    ended = start(settings, "monitor", tmp_path, EARLY_KILL_WEB_PORT=port)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert port in ended.stderr.strip().splitlines()[-1]


async def test_a_bind_beyond_loopback_needs_tokens(settings: Settings, tmp_path: Path):
    """An open API is for this machine only."""
    await ensure_topics(settings)
    ended = start(settings, "monitor", tmp_path, EARLY_KILL_WEB_HOST="0.0.0.0")  # noqa: S104 - refused
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "token" in ended.stderr.strip().splitlines()[-1]

"""Real servers for the tests that ask for them: started once a session, lazily; each test gets names of its own on them."""

from __future__ import annotations

import shutil
import signal
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.local.child import free_port
from streams.local.kafka import KafkaServer
from streams.local.postgres import PostgresServer
from streams.settings import Settings
from tests.databases import fresh_database

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background job; the processes under test would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def servers_home() -> Iterator[Path]:
    """A directory that other users may enter too: PostgreSQL is another one when the tests run as root."""
    home = Path(tempfile.mkdtemp(prefix="early-kill-tests-"))
    home.chmod(0o755)
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def kafka(servers_home: Path) -> Iterator[KafkaServer]:
    """The session's Kafka. A test that stops or kills it has to have it running again when it ends."""
    server = KafkaServer(servers_home / "kafka", free_port())
    try:
        server.start()
        server.wait_ready(60)
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def postgres(servers_home: Path) -> Iterator[PostgresServer]:
    """The session's PostgreSQL. A test that stops or kills it has to have it running again when it ends."""
    server = PostgresServer(servers_home / "postgres", free_port(), configuration={"fsync": "off"})
    try:
        server.start()
        server.wait_ready(60)
        yield server
    finally:
        server.remove()


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[str]:
    """URL of a fresh, empty database, owned by the role in it."""
    with fresh_database(postgres) as url:
        yield url


@pytest.fixture(scope="module")
def module_database(postgres: PostgresServer) -> Iterator[str]:
    """As ``database``, shared by the tests of a module."""
    with fresh_database(postgres) as url:
        yield url


@pytest.fixture
def topic_prefix() -> str:
    """A prefix that makes the topics this test's own."""
    return f"t{uuid.uuid4().hex[:12]}-"


@pytest.fixture
def settings(kafka: KafkaServer, database: str, topic_prefix: str) -> Settings:
    """Settings on the real servers, with topics, consumer group and database of this test's own. Topics and schema are not made yet."""
    return Settings.model_validate(
        {
            "kafka_bootstrap_servers": kafka.bootstrap_servers,
            "database_url": database,
            "topic_prefix": topic_prefix,
            "app_id": f"{topic_prefix}app",
            "web_port": free_port(),
        }
    )


@pytest.fixture
def kafka_settings(kafka: KafkaServer, topic_prefix: str) -> Settings:
    """As ``settings``, for tests that need no database."""
    return Settings.model_validate({"kafka_bootstrap_servers": kafka.bootstrap_servers, "topic_prefix": topic_prefix, "app_id": f"{topic_prefix}app", "web_port": free_port()})

"""Real servers for tests that ask for them: started once a process, lazily; each test gets names of its own on them. And whose turn it is, where several processes run tests."""

from __future__ import annotations

import shutil
import signal
import tempfile
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from streams.local.child import free_port
from streams.local.kafka import KafkaServer
from streams.local.postgres import PostgresServer
from streams.settings import Settings
from tests.databases import fresh_database
from tests.turns import Turns

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background job; the processes under test would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)

TURNS = pytest.StashKey[Turns]()
TURNS_HOME = pytest.StashKey[Path]()
SAYS = "says"
"""The property under which a test's words go from its process to the one that reports."""


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process that runs tests where to ask whose turn it is."""
    stash = node.config.stash
    if TURNS_HOME not in stash:
        stash[TURNS_HOME] = Path(tempfile.mkdtemp(prefix="early-kill-turns-"))
    node.workerinput["turns"] = str(stash[TURNS_HOME])


def pytest_configure(config: pytest.Config) -> None:
    """Join the others, where there are any."""
    if hasattr(config, "workerinput"):
        config.stash[TURNS] = Turns(Path(config.workerinput["turns"]))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave no files behind."""
    if TURNS_HOME in config.stash:
        shutil.rmtree(config.stash[TURNS_HOME], ignore_errors=True)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """Wait for a test's turn before its time-out begins."""
    turns = item.config.stash.get(TURNS, None)
    if turns is None:
        return (yield)
    turns.take(alone=_wants_the_machine(item))
    try:
        return (yield)
    finally:
        if not _wants_the_machine(nextitem):
            turns.give_back()


def _wants_the_machine(item: pytest.Item | None) -> bool:
    return item is not None and item.get_closest_marker("alone") is not None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell what tests had to say."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports if getattr(report, "when", None) == "call"]
    said = [value for report in reports for name, value in report.user_properties if name == SAYS]
    if said:
        terminalreporter.section("seen", sep="-")
        for line in said:
            terminalreporter.line(str(line))


@pytest.fixture
def say(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Have a line told at the end of the whole run: what a test has seen this time."""
    return lambda line: record_property(SAYS, line)


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

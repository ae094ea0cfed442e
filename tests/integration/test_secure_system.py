"""A whole system as it stands in a network: TLS, passwords and rights for Kafka, a PostgreSQL role without DDL, tokens; and no secret gets out of it."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import psycopg
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import TopicAuthorizationFailedError
from psycopg.rows import dict_row

from models.errors import Stop
from streams.integration import EventPublisher, KillSubscriber
from streams.kafka_access import kafka_client_options
from streams.local.child import free_port
from streams.local.postgres import PostgresServer
from streams.settings import Settings
from streams.store import migrate
from tests.integration.secure_kafka import SecureKafka
from tests.integration.system import ROOT, Worker
from tests.integration.worker_role import ROLE, superuser, worker_url

P = "/performance-monitor"
PREFIX, APP_ID = "secure.", "secure-app"
MONITOR, SINK, PUBLISHER, SUBSCRIBER, SETUP = (f"early-kill-{name}" for name in ("monitor", "sink", "publisher", "subscriber", "setup"))
PUBLISH = ("publish", "variant-posted", "--variant-id", "v", "--persona-id", "ada", "--post-id", "p", "--timeout-minutes", "30")


@pytest.fixture(scope="module")
def broker(servers_home: Path) -> Iterator[SecureKafka]:
    """A broker with certificates, users and their rights, and the topics, made by who may do that."""
    server = SecureKafka(servers_home / "secure-kafka", free_port(), free_port())
    server.make_certificates()
    try:
        server.start()
        server.wait_ready(60)
        with ThreadPoolExecutor(1) as pool:  # with an event loop of its own
            pool.submit(lambda: asyncio.run(server.allow(PREFIX, APP_ID))).result()
        made = early_kill(variables(server, SETUP), "topics")
        assert (made.returncode, len(made.stdout.splitlines())) == (0, 6), made.stderr
        yield server
    finally:
        server.stop()


def variables(broker: SecureKafka, user: str, **more: str) -> dict[str, str]:
    """What a user has in its environment."""
    return {
        "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SSL_CAFILE": str(broker.cafile),
        "KAFKA_SASL_USERNAME": user,
        "KAFKA_SASL_PASSWORD": broker.passwords[user],
        "EARLY_KILL_TOPIC_PREFIX": PREFIX,
        "EARLY_KILL_APP_ID": APP_ID,
        **more,
    }


def settings_of(broker: SecureKafka, user: str) -> Settings:
    """The same, for the client library."""
    return Settings.model_validate({name.removeprefix("EARLY_KILL_").lower(): value for name, value in variables(broker, user).items()})


def early_kill(given: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("EARLY_KILL_", "KAFKA_", "DATABASE_"))}
    return subprocess.run([sys.executable, "-m", "streams.cli", *arguments], cwd=ROOT, env=inherited | dict(given), capture_output=True, text=True, timeout=60, check=False)


def secret_file(path: Path, content: str) -> str:
    """Only its owner may read it."""
    path.touch(0o600)
    path.write_text(content + "\n")
    return str(path)


async def until(condition: Callable[[], Any], seconds: float = 20) -> Any:
    """Wait for a true value, and return it."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.05)
    return value


class Secured:
    """A monitor and a sink, each with a user of its own; their secrets; and all that could be seen of them from outside."""

    def __init__(self, broker: SecureKafka, postgres: PostgresServer, database: str, home: Path) -> None:
        self.database = database
        self.read, self.operate, self.signing, self.hook, password = (secrets.token_urlsafe(24) for _ in range(5))
        self.secrets = {**broker.passwords, "database": password, "read": self.read, "operate": self.operate, "signing": self.signing, "hook": self.hook}
        self.seen: list[str] = []
        migrate(Settings.model_validate({"database_url": database}))
        url = worker_url(postgres, database, password)
        shared = {
            "EARLY_KILL_LOG_LEVEL": "DEBUG",
            "EARLY_KILL_READ_TOKENS_FILE": secret_file(home / "read-tokens", self.read),
            "EARLY_KILL_OPERATE_TOKENS_FILE": secret_file(home / "operate-tokens", self.operate),
            "EARLY_KILL_OUTBOUND_URL": f"http://127.0.0.1:{free_port()}/{self.hook}",
            "EARLY_KILL_OUTBOUND_SECRET_FILE": secret_file(home / "signing", self.signing),
        }
        settings = Settings.model_validate({"kafka_bootstrap_servers": broker.bootstrap_servers, "database_url": url})
        by_file = {"KAFKA_SASL_PASSWORD": "", "KAFKA_SASL_PASSWORD_FILE": secret_file(home / "kafka-password", broker.passwords[MONITOR])}
        self.monitor = Worker(settings, "monitor", home, variables(broker, MONITOR, **shared, **by_file))
        self.sink = Worker(settings, "sink", home, variables(broker, SINK, **shared))
        del self.sink._environment["DATABASE_URL"]
        self.sink._environment["DATABASE_URL_FILE"] = secret_file(home / "database-url", url)

    def query(self, statement: str, *parameters: object) -> list[dict[str, Any]]:
        """As the owner of the tables."""
        with psycopg.connect(self.database, autocommit=True, connect_timeout=5, row_factory=dict_row) as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def ended(self, variant: str) -> bool:
        """Whether the variant's session is over, as far as PostgreSQL knows."""
        return bool(self.query("SELECT 1 FROM variant_monitoring WHERE variant_id = %s AND NOT is_active", variant))

    async def ask(self, worker: Worker, method: str, path: str, token: str | None = None, **options: Any) -> tuple[int, str]:
        """Call a worker; what it answers is kept."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with aiohttp.ClientSession() as http, http.request(method, worker.url + path, headers=headers, timeout=aiohttp.ClientTimeout(15), **options) as answer:
            text = await answer.text()
            self.seen.append(f"{dict(answer.headers)} {text}")
            return answer.status, text

    def look_at_processes(self) -> None:
        """As ``ps`` shows them."""
        for process in psutil.process_iter(["cmdline"]):
            self.seen.append(" ".join(process.info["cmdline"] or []))

    def stop(self) -> None:
        """Whatever still runs."""
        for worker in (self.monitor, self.sink):
            if worker.is_running:
                worker.kill()


async def test_a_kill_gets_all_the_way_and_no_secret_gets_out(broker: SecureKafka, postgres: PostgresServer, database: str, tmp_path: Path):
    """With the least rights: publish, decide, record, clean up, hear of it, ask, start, stop, revive, restart; then logs, answers, metrics, tables and ``ps`` are searched."""
    system = Secured(broker, postgres, database, tmp_path)
    try:
        system.sink.start()
        system.monitor.start()
        await asyncio.gather(system.sink.ready(), system.monitor.ready())
        system.query("INSERT INTO variant_pool (variant_id, persona_id) VALUES ('v', 'ada')")
        system.query("INSERT INTO scheduled_post (variant_id, scheduled_for) VALUES ('v', now() + interval '1 day')")
        published = early_kill(variables(broker, PUBLISHER), *PUBLISH)
        assert published.returncode == 0, published.stderr
        async with KillSubscriber(settings_of(broker, SUBSCRIBER), group_id="kills-test", from_beginning=True) as kills:
            async with EventPublisher(settings_of(broker, PUBLISHER)) as publisher:
                for kind, count in [("view", 334), *[("like", 1)] * 10]:
                    await publisher.publish_interaction(variant_id="v", post_id="p", kind=kind, count=count)
            async with asyncio.timeout(20):
                assert (await anext(aiter(kills))).variant_id == "v"
        await until(lambda: system.ended("v"))
        assert system.query("SELECT p.status AS pool, s.status AS post FROM variant_pool p JOIN scheduled_post s USING (variant_id)") == [{"pool": "killed", "post": "cancelled"}]
        await call_everything(system)
        system.look_at_processes()
        assert system.monitor.stop() == 0
        system.monitor.start()
        await system.monitor.ready()
        status, text = await system.ask(system.monitor, "GET", f"{P}/status/v", system.read)
        assert (status, json.loads(text)["outcome"]) == (200, "killed")
        await take_a_right_away(system, broker, postgres)
        system.seen += [published.stdout + published.stderr, system.monitor.log.read_text(), system.sink.log.read_text()]
        system.seen += [str(system.query(rows)) for rows in ("TABLE monitoring_audit", "TABLE outbound_call", "TABLE variant_monitoring")]
    finally:
        system.stop()
    assert "Traceback" not in system.monitor.log.read_text() + system.sink.log.read_text()
    assert {name for name, secret in system.secrets.items() if any(secret in text for text in system.seen)} == set()


async def call_everything(system: Secured) -> None:
    """What is allowed is done, what is not is refused."""
    monitor, sink, read, operate = system.monitor, system.sink, system.read, system.operate
    new = {"variant_id": "w", "persona_id": "ada", "post_id": "p", "expected_engagement_rate": 0.06}
    for worker in (monitor, sink):
        assert [(await system.ask(worker, "GET", path))[0] for path in ("/health", "/ready", "/metrics")] == [200, 401, 401]
        assert (await system.ask(worker, "GET", f"/metrics?token={read}"))[0] == 401
        assert (await system.ask(worker, "GET", "/metrics", f"{read}x"))[0] == 401
        assert (await system.ask(worker, "GET", "/ready", read))[0] == 200
        assert "performance_monitor_" in (await system.ask(worker, "GET", "/metrics", operate))[1]
    assert (await system.ask(monitor, "GET", f"{P}/status/v", read))[0] == 200
    assert (await system.ask(monitor, "POST", f"{P}/revive/v", read))[0] == 403
    assert (await system.ask(monitor, "POST", f"{P}/start-monitoring", operate, json={**new, "kill_threshold": "x"}))[0] == 422
    assert (await system.ask(monitor, "POST", f"{P}/start-monitoring", operate, json=new))[0] == 201
    assert (await system.ask(monitor, "POST", f"{P}/stop/w", operate))[0] == 200
    assert (await system.ask(monitor, "POST", f"{P}/revive/v", operate))[0] == 200
    assert (await system.ask(monitor, "POST", f"{P}/revive/v", operate))[0] == 409
    assert system.query("SELECT status FROM variant_pool") == [{"status": "active"}]
    await until(lambda: system.ended("w"))


async def take_a_right_away(system: Secured, broker: SecureKafka, postgres: PostgresServer) -> None:
    """The sink says so in its last line, and ends; the monitor goes on."""
    with superuser(postgres, system.database) as connection:
        connection.execute(f"REVOKE INSERT ON variant_monitoring FROM {ROLE}")
    async with EventPublisher(settings_of(broker, PUBLISHER)) as publisher:
        await publisher.publish_variant_posted(variant_id="x", persona_id="ada", post_id="p")
    assert await asyncio.to_thread(system.sink.wait, 20) == 1
    assert "stopped: PostgreSQL: permission denied for table variant_monitoring" in system.sink.log.read_text().splitlines()[-1]
    async with asyncio.timeout(10):
        while (await system.ask(system.monitor, "GET", "/ready", system.read))[0] != 200:  # a busy machine may be late with its probe
            await asyncio.sleep(0.2)


@pytest.mark.parametrize(
    ("user", "arguments", "changes", "says"),
    [
        (
            MONITOR,
            ("worker", "--role", "monitor", "--web-port", "0"),
            {"KAFKA_SASL_PASSWORD": "wrong-word"},
            "does not let user early-kill-monitor in (KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD)",
        ),
        (MONITOR, ("worker", "--role", "monitor", "--web-port", "0"), {"KAFKA_SSL_CAFILE": ""}, "shows a certificate that is not trusted (KAFKA_SSL_CAFILE)"),
        (SETUP, ("topics",), {"KAFKA_SASL_MECHANISM": "SCRAM-SHA-256"}, "does not take KAFKA_SASL_MECHANISM=SCRAM-SHA-256"),
        (PUBLISHER, PUBLISH, {"KAFKA_SASL_PASSWORD": "wrong-word"}, "does not let user early-kill-publisher in"),
        (SUBSCRIBER, ("kills", "--timeout", "20"), {"KAFKA_SSL_CAFILE": ""}, "certificate that is not trusted"),
        (SUBSCRIBER, ("dead-letters",), {"KAFKA_SASL_USERNAME": "nobody"}, "does not let user nobody in"),
        (PUBLISHER, PUBLISH, {"KAFKA_BOOTSTRAP_SERVERS": "localhost"}, "not valid for 'localhost'"),
        (PUBLISHER, ("topics",), {}, "does not let user early-kill-publisher see topic"),
        (SUBSCRIBER, ("kills", "--group", "mine", "--timeout", "20"), {}, "Kafka does not allow reading secure.variant_killed in group mine"),
        (SUBSCRIBER, PUBLISH, {}, "does not let user early-kill-subscriber write to any topic"),
    ],
)
def test_who_is_turned_away_is_told_why_in_one_line(broker: SecureKafka, user: str, arguments: tuple[str, ...], changes: dict[str, str], says: str):
    """Wrong password, mechanism, name, authority, or a right that is missing: exit code 1, at once, instead of trying for ever."""
    if "KAFKA_BOOTSTRAP_SERVERS" in changes:
        changes = {"KAFKA_BOOTSTRAP_SERVERS": f"{changes['KAFKA_BOOTSTRAP_SERVERS']}:{broker.port}"}
    began = time.monotonic()
    ended = early_kill(variables(broker, user, **changes), *arguments)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert says in ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert time.monotonic() - began < 15
    assert "wrong-word" not in ended.stderr
    assert broker.passwords[user] not in ended.stderr


async def test_programs_are_told_that_they_will_never_get_in(broker: SecureKafka):
    """``Stop``, not ``Retry``."""
    settings = settings_of(broker, PUBLISHER).model_copy(update={"kafka_sasl_username": "nobody"})
    for client in (EventPublisher(settings), KillSubscriber(settings)):
        with pytest.raises(Stop, match="does not let user nobody in"):
            await client.start()


@pytest.mark.parametrize("user", [PUBLISHER, SINK, SUBSCRIBER])
@pytest.mark.parametrize("topic", ["variant_killed", "monitoring_record"])
async def test_only_a_monitor_can_tell_of_a_kill(broker: SecureKafka, user: str, topic: str):
    """Whoever else tries is refused by Kafka."""
    async with AIOKafkaProducer(**kafka_client_options(settings_of(broker, user))) as producer:
        with pytest.raises(TopicAuthorizationFailedError):
            await producer.send_and_wait(topic, b"{}", key=b"v")

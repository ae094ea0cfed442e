"""Kafka and PostgreSQL whose clients come through proxies that can misbehave."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from streams.local.kafka import KafkaServer
from streams.local.postgres import PostgresServer
from tests.faults.proxy import Proxy
from tests.ports import LOOPBACK, steady_port


class ProxiedKafka(KafkaServer):
    """A broker with a second listener, which sends its clients to a proxy; ``port`` leads to it directly."""

    def __init__(self, home: Path, port: int, inner_port: int, proxy_port: int) -> None:
        super().__init__(home, port)
        self.inner_port, self.proxy_port = inner_port, proxy_port

    def _properties(self, controller_port: int) -> str:
        more = {
            "listeners": f",PROXIED://{LOOPBACK}:{self.inner_port}",
            "advertised.listeners": f",PROXIED://{LOOPBACK}:{self.proxy_port}",
            "listener.security.protocol.map": ",PROXIED:PLAINTEXT",
        }
        lines = [line + more.get(line.partition("=")[0], "") for line in super()._properties(controller_port).splitlines()]
        return "\n".join([*lines, "inter.broker.listener.name=PLAINTEXT", ""])


@dataclass(slots=True)
class Servers:
    """Kafka and PostgreSQL, and the proxies before them; used by many runs."""

    kafka: ProxiedKafka
    postgres: PostgresServer
    kafka_proxy: Proxy
    postgres_proxy: Proxy

    def heal(self) -> None:
        """Bring back whatever is away; blocks until it is there."""
        for proxy in (self.kafka_proxy, self.postgres_proxy):
            proxy.pass_on()
        for server in (self.kafka, self.postgres):
            if server.pid is None:
                server.start()
            server.wait_ready(60)


@contextlib.contextmanager
def serving(home: Path) -> Iterator[Servers]:
    """Start both servers and their proxies below ``home``."""
    kafka_proxy, postgres_proxy = Proxy(steady_port(), steady_port()), Proxy(steady_port(), steady_port())
    kafka = ProxiedKafka(home / "kafka", steady_port(), kafka_proxy.target, kafka_proxy.port)
    postgres = PostgresServer(home / "postgres", postgres_proxy.target, configuration={"fsync": "off"})
    try:
        kafka.start()
        postgres.start()
        kafka_proxy.start()
        postgres_proxy.start()
        kafka.wait_ready(60)
        postgres.wait_ready(60)
        yield Servers(kafka, postgres, kafka_proxy, postgres_proxy)
    finally:
        kafka.stop()
        postgres.remove()
        for proxy in (kafka_proxy, postgres_proxy):
            if proxy._thread.is_alive():
                proxy.stop()

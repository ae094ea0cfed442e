"""The embedded broker: carries on after clean and unclean ends."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from models.errors import Stop
from streams.kafka_access import kafka_client_options
from streams.local.child import free_port
from streams.local.kafka import KafkaServer
from streams.settings import Settings
from streams.topics import ensure_topics


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KafkaServer]:
    """A broker of this test's own, not started yet, in a directory whose name needs care."""
    server = KafkaServer(tmp_path / "a, b = ü", free_port())
    yield server
    server.stop()


async def append(settings: Settings, value: bytes) -> None:
    """One acknowledged record."""
    async with AIOKafkaProducer(**kafka_client_options(settings), acks="all") as producer:
        await producer.send_and_wait("interaction", value, partition=0)


async def read(settings: Settings, count: int) -> list[bytes]:
    """The first ``count`` values."""
    async with AIOKafkaConsumer("interaction", **kafka_client_options(settings), auto_offset_reset="earliest") as consumer:
        return [(await consumer.getone()).value for _ in range(count)]


async def test_acknowledged_records_survive_a_clean_stop_and_a_kill(server: KafkaServer):
    """On the same directory, on another port too; a kill costs a few seconds more, for the old registration to expire."""
    server.start()
    server.wait_ready()
    settings = Settings.model_validate({"kafka_bootstrap_servers": server.bootstrap_servers})
    await ensure_topics(settings)
    await append(settings, b"1")

    server.stop()
    assert server.pid is None
    server.port = free_port()
    settings = Settings.model_validate({"kafka_bootstrap_servers": server.bootstrap_servers})
    server.start()
    server.wait_ready()
    await append(settings, b"2")

    server.kill()
    began = time.monotonic()
    server.start()
    server.wait_ready()
    assert time.monotonic() - began < 20
    assert await ensure_topics(settings) == []
    assert await read(settings, 2) == [b"1", b"2"]


def test_a_start_takes_over_from_an_orphan_on_the_same_directory(server: KafkaServer):
    """What a killed supervisor left does not hold the port for ever."""
    server.start()
    server.wait_ready()
    again = KafkaServer(server.home, server.port)
    again.start()
    again.wait_ready()
    assert server.pid is None
    assert again.pid is not None
    again.stop()


def test_a_port_that_is_taken_is_told_before_anything_is_started(server: KafkaServer):
    """In one line, with the port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", server.port))
        taken.listen()
        with pytest.raises(Stop, match=f"port {server.port} for Kafka cannot be used: Address already in use"):
            server.start()
    assert server.pid is None

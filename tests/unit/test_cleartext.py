"""What a worker says at its start of connections that others could listen to."""

from __future__ import annotations

import pytest

from models.errors import Stop
from streams.cleartext import cleartext
from streams.settings import Settings

TLS = {"kafka_security_protocol": "SASL_SSL", "kafka_sasl_username": "me"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, []),
        ({"kafka_bootstrap_servers": "localhost:9092, [::1]:9092,127.0.0.9:1"}, []),
        ({"kafka_bootstrap_servers": "kafka-1:9092,127.0.0.1:9092"}, ["Kafka at kafka-1:9092 is spoken to unencrypted, as EARLY_KILL_ALLOW_INSECURE says"]),
        ({"kafka_bootstrap_servers": "kafka-1"}, ["Kafka at kafka-1 is"]),
        ({"kafka_bootstrap_servers": "kafka-1:9092", **TLS}, []),
        ({"kafka_bootstrap_servers": "kafka-1:9092", **TLS, "kafka_security_protocol": "SASL_PLAINTEXT"}, ["Kafka at kafka-1:9092 is spoken to unencrypted"]),
        ({"kafka_sasl_username": "me", "kafka_ssl_cafile": "/ca"}, ["KAFKA_SASL_USERNAME is set and not used", "KAFKA_SSL_CAFILE is set and not used"]),
        ({"database_url": "postgresql://db/x"}, ["PostgreSQL at db may be spoken to unencrypted: add sslmode=verify-full"]),
        ({"database_url": "postgresql://db/x?sslmode=prefer"}, ["PostgreSQL at db may"]),
        ({"database_url": "postgresql://db/x?sslmode=verify-full"}, []),
        ({"database_url": "postgresql://localhost,127.0.0.1/x"}, []),
        ({"database_url": "postgresql:///x?host=/var/run/postgresql"}, []),
    ],
)
def test_each_open_connection_to_another_machine_has_a_line(changes: dict[str, str], says: list[str]):
    """And credentials that stay unused have one, for they were meant to protect something."""
    lines = cleartext(Settings.model_validate({"allow_insecure": True, **changes}))
    assert len(lines) == len(says)
    for line, part in zip(lines, says, strict=True):
        assert part in line


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SASL_PLAINTEXT"])
def test_kafka_on_another_machine_is_not_spoken_to_without_tls_unless_that_is_allowed(protocol: str):
    """In one line that says what to do."""
    with pytest.raises(Stop, match=r"^Kafka at kafka-1:9092 would be spoken to unencrypted: set KAFKA_SECURITY_PROTOCOL to SASL_SSL or SSL, or EARLY_KILL_ALLOW_INSECURE=true"):
        cleartext(Settings.model_validate({"kafka_bootstrap_servers": "127.0.0.1:9092,kafka-1:9092", "kafka_security_protocol": protocol}))


def test_a_line_holds_no_password():
    """It goes to the log."""
    assert "hidden" not in " ".join(cleartext(Settings.model_validate({"database_url": "postgresql://me:hidden@db/x"})))

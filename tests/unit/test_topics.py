"""Names, configuration and client options of the topics, without Kafka."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from models.errors import Stop
from streams import topics
from streams.kafka_access import kafka_client_options
from streams.settings import Settings
from streams.topics import DAY_MS, RETENTION_DAYS, partition_for, topic_configuration, topic_name


def settings(**changes: object) -> Settings:
    """Settings that no environment and no file has a say in, beyond ``changes``."""
    return Settings.model_validate(changes)


def test_the_prefix_stands_before_every_name():
    """Two installations can share a Kafka."""
    assert topic_name(settings(topic_prefix="eu."), "interaction") == "eu.interaction"


def test_an_unknown_topic_has_no_name():
    """A misspelt topic is an error where it is written, not a new topic."""
    with pytest.raises(KeyError):
        topic_name(settings(), "interactions")


def test_every_topic_stamps_records_when_they_are_appended():
    """Decisions rest on append times, so no producer may choose them."""
    assert {topic_configuration(settings(), topic)["message.timestamp.type"] for topic in RETENTION_DAYS} == {"LogAppendTime"}


def test_kills_are_kept_a_week_and_dead_letters_two():
    """Subscribers and people may be away that long."""
    assert int(topic_configuration(settings(), "variant_killed")["retention.ms"]) >= 7 * DAY_MS
    assert int(topic_configuration(settings(), "dead_letter")["retention.ms"]) >= 14 * DAY_MS


@pytest.mark.parametrize(("replicas", "in_sync"), [(1, "1"), (2, "1"), (3, "2")])
def test_all_replicas_but_one_have_to_have_a_record(replicas: int, in_sync: str):
    """One broker may be away without a record being lost or refused."""
    assert topic_configuration(settings(replication_factor=replicas), "interaction")["min.insync.replicas"] == in_sync


def test_bootstrap_servers_are_a_list_without_blanks():
    """The list may be written for people."""
    assert kafka_client_options(settings(kafka_bootstrap_servers="a:1, b:2"))["bootstrap_servers"] == ["a:1", "b:2"]


def test_sasl_without_a_password_is_told_at_once():
    """The message names the variables that are missing."""
    with pytest.raises(Stop, match="KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"):
        kafka_client_options(settings(kafka_security_protocol="SASL_SSL", kafka_sasl_username="me"))


def test_sasl_hands_user_and_password_over():
    """Over TLS, with the system's certificates."""
    options = kafka_client_options(settings(kafka_security_protocol="SASL_SSL", kafka_sasl_username="me", kafka_sasl_password="secret"))  # noqa: S106 -- an example
    assert (options["sasl_mechanism"], options["sasl_plain_username"], options["sasl_plain_password"]) == ("SCRAM-SHA-512", "me", "secret")
    assert options["ssl_context"] is not None


def test_a_certificate_file_that_is_missing_is_named():
    """In one line, with the setting it came from."""
    with pytest.raises(Stop, match="KAFKA_SSL_CAFILE=/nowhere"):
        kafka_client_options(settings(kafka_security_protocol="SSL", kafka_ssl_cafile="/nowhere"))


@given(st.text(min_size=1).filter(lambda text: text.isprintable()), st.integers(1, 64))
def test_the_partition_is_the_one_that_producers_choose(variant_id: str, partitions: int):
    """Who asks for a variant's owner asks the right one."""
    assert partition_for(variant_id, partitions) == DefaultPartitioner()(variant_id.encode(), list(range(partitions)), [])


def test_partitions_are_those_of_the_java_client():
    """Values from Apache Kafka's own UtilsTest: murmur2 of "21", "foobar" and "a-little-bit-long-string"."""
    hashes = {"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536}
    for text, hashed in hashes.items():
        assert partition_for(text, 1000) == (hashed & 0x7FFFFFFF) % 1000


class _JustStarted:
    """Stands in for aiokafka's admin client at a broker that knows nobody at first."""

    made: ClassVar[list[_JustStarted]] = []

    def __init__(self, **_: Any) -> None:
        self.is_closed = False
        self.made.append(self)

    async def start(self) -> None:
        """Connect."""

    async def describe_cluster(self) -> dict[str, Any]:
        return {"brokers": [] if len(self.made) < 3 else [{"node_id": 1}]}

    async def close(self) -> None:
        self.is_closed = True


async def test_a_broker_that_does_not_know_itself_yet_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers, but every request to it would fail."""
    monkeypatch.setattr("aiokafka.admin.AIOKafkaAdminClient", _JustStarted)
    _JustStarted.made.clear()
    async with topics._admin(settings()) as admin:
        assert admin is _JustStarted.made[2]
    assert [client.is_closed for client in _JustStarted.made] == [True] * 3

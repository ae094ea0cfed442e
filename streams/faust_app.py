"""How every Faust app of this project is set up; FAUST docs promise more than the defaults keep."""

from __future__ import annotations

from typing import Any

import faust
from faust.auth import SASLCredentials, SSLCredentials
from faust.types import TP
from faust.types.auth import AuthProtocol, SASLMechanism

from streams.kafka_access import kafka_client_options
from streams.patience import WaitingTables, WaitingTransport
from streams.settings import Settings

COMMIT_SECONDS = 0.5
FETCH_BYTES = 512 << 10
"""Most bytes of one partition in an answer, unless its first batch is larger. At full speed several answers are in memory; larger ones make no less work."""
REQUEST_SECONDS = 30.0
"""How long an answer of Kafka may take; Faust's producer would wait 20 minutes."""

NEVER_IDLE_SECONDS = 10 * 365 * 86_400.0
"""After so long without a fetch aiokafka leaves its group, and stays out until somebody fetches: a sink that waits for PostgreSQL, or a worker without a partition, for good."""


class App(faust.App):  # type: ignore[misc]
    """A Faust app that writes no file, and knows whether a rebalance is on.

    Faust takes the end of a recovery for that of the rebalance, also if another one has begun meanwhile, whose partitions nobody knows yet.
    """

    _assigned_in = 0

    def _create_directories(self) -> None:
        """Create none: state lives in changelogs."""

    async def _on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        self._assigned_in = self.rebalancing_count
        await super()._on_partitions_assigned(assigned, generation_id)

    def on_rebalance_end(self) -> None:
        """Note that the rebalance is over, unless partitions are still to come."""
        if self._assigned_in == self.rebalancing_count:
            super().on_rebalance_end()


def create_app(settings: Settings, app_id: str, **options: Any) -> faust.App:
    """Return a Faust app with the chunked transport, at-least-once, no standbys, and nothing of Faust's own on the web.

    Args:
        settings: Where Kafka is, and how long a silent worker keeps its partitions.
        app_id: The consumer group.
        options: More settings of ``faust.App``, or other values for these.
    """
    broker = ";".join(f"kafka://{server.strip()}" for server in settings.kafka_bootstrap_servers.split(","))
    app = App(
        app_id,
        **{
            "broker": broker,
            "broker_credentials": _credentials(settings),
            "store": "memory://",
            "topic_partitions": settings.partitions,
            "topic_replication_factor": settings.replication_factor,
            "topic_disable_leader": True,
            "table_standby_replicas": 0,
            "consumer_auto_offset_reset": "earliest",
            "consumer_max_fetch_size": FETCH_BYTES,
            "broker_session_timeout": settings.session_timeout_seconds,
            "broker_heartbeat_interval": settings.session_timeout_seconds / 3,
            "broker_max_poll_interval": NEVER_IDLE_SECONDS,
            "broker_request_timeout": max(REQUEST_SECONDS, settings.session_timeout_seconds),  # Faust allows no shorter one
            "producer_request_timeout": REQUEST_SECONDS,
            "broker_commit_interval": COMMIT_SECONDS,
            "stream_wait_empty": False,
            "web_enabled": False,
            "TableManager": WaitingTables,
            **options,
        },
    )
    app.transport = app.producer_transport = WaitingTransport(app.conf.broker, app)
    return app


def source_topic(app: faust.App, name: str, partitions: int) -> faust.TopicT:
    """Return a topic whose records reach agents as they are, in chunks."""
    return app.topic(name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", partitions=partitions, internal=False)


def _credentials(settings: Settings) -> SASLCredentials | SSLCredentials | None:
    if settings.kafka_security_protocol == "PLAINTEXT":
        return None
    options = kafka_client_options(settings)
    context = options.get("ssl_context")
    if settings.kafka_security_protocol == "SSL":
        return SSLCredentials(context)
    credentials = SASLCredentials(
        username=options["sasl_plain_username"], password=options["sasl_plain_password"], mechanism=SASLMechanism(options["sasl_mechanism"]), ssl_context=context
    )
    credentials.protocol = AuthProtocol(settings.kafka_security_protocol)
    return credentials

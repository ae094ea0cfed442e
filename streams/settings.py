"""Every setting, read from the environment and from ``.env``; docs/reference.md is generated from here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.errors import Stop
from models.policy import Defaults
from streams.addresses import base_url
from streams.secret_files import read_secret, read_tokens

_SCHEMES = ("postgresql://", "postgresql+psycopg://", "postgres://")
Fraction = Annotated[float, Field(gt=0, le=1)]


def _shared(name: str) -> AliasChoices:
    """A setting that carries its customary name, without the project's prefix."""
    return AliasChoices(name, name.lower())


class Settings(BaseSettings):
    """How this process is to run. Names outside ``KAFKA_…`` and ``DATABASE_URL`` start with ``EARLY_KILL_``."""

    model_config = SettingsConfigDict(env_prefix="EARLY_KILL_", env_file=".env", extra="ignore", frozen=True, populate_by_name=True, hide_input_in_errors=True)

    kafka_bootstrap_servers: str = Field("127.0.0.1:9092", validation_alias=_shared("KAFKA_BOOTSTRAP_SERVERS"), description="Kafka brokers, `host:port[,host:port…]`.")
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", validation_alias=_shared("KAFKA_SECURITY_PROTOCOL"), description="How to talk to Kafka."
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", validation_alias=_shared("KAFKA_SASL_MECHANISM"), description="SASL mechanism, with the SASL protocols."
    )
    kafka_sasl_username: str | None = Field(None, validation_alias=_shared("KAFKA_SASL_USERNAME"), description="SASL user.")
    kafka_sasl_password: SecretStr | None = Field(None, validation_alias=_shared("KAFKA_SASL_PASSWORD"), description="SASL password.")
    kafka_sasl_password_file: Path | None = Field(None, validation_alias=_shared("KAFKA_SASL_PASSWORD_FILE"), description="File that holds it, instead of `KAFKA_SASL_PASSWORD`.")
    kafka_ssl_cafile: Path | None = Field(None, validation_alias=_shared("KAFKA_SSL_CAFILE"), description="CA certificates (PEM) that sign the brokers'; the system's when unset.")
    kafka_ssl_certfile: Path | None = Field(None, validation_alias=_shared("KAFKA_SSL_CERTFILE"), description="Client certificate (PEM), for mutual TLS.")
    kafka_ssl_keyfile: Path | None = Field(None, validation_alias=_shared("KAFKA_SSL_KEYFILE"), description="Key (PEM) of the client certificate.")
    allow_insecure: bool = Field(default=False, description="Let workers speak to Kafka on other machines without TLS; they warn at every start.")
    database_url: SecretStr = Field(
        SecretStr("postgresql://early_kill@127.0.0.1:5432/early_kill"),
        validation_alias=_shared("DATABASE_URL"),
        description="PostgreSQL, `postgresql://…` (also `postgresql+psycopg://…`).",
    )
    database_url_file: Path | None = Field(
        None, validation_alias=_shared("DATABASE_URL_FILE"), description="File that holds it, instead of `DATABASE_URL`; read again for each new connection."
    )

    app_id: str = Field(
        "early-kill",
        pattern=r"^[A-Za-z0-9._-]{1,100}$",
        description="Consumer group, and the prefix of the internal topics. When unset, and there is a topic prefix: the two together.",
    )
    topic_prefix: str = Field("", pattern=r"^[A-Za-z0-9._-]{0,100}$", description="Put before each topic name.")
    partitions: int = Field(4, ge=1, le=10_000, description="Partitions of each topic that `early-kill topics` creates.")
    replication_factor: int = Field(1, ge=1, le=10, description="Replicas of each topic that `early-kill topics` creates.")

    web_host: str = Field("127.0.0.1", description="Address that the HTTP API listens on. Other than loopback only with tokens.")
    web_port: int = Field(6066, ge=0, le=65_535, description="Port that the HTTP API listens on.")
    web_url: str | None = Field(None, description="How the other workers reach this one's API; `http://<web host>:<web port>` when unset.")
    read_tokens: frozenset[SecretStr] = Field(frozenset(), description="Bearer tokens (JSON list) that may read.")
    operate_tokens: frozenset[SecretStr] = Field(frozenset(), description="Bearer tokens (JSON list) that may read, start, stop and revive.")
    read_tokens_file: Path | None = Field(None, description="File with more of the first, one a line; read again when it changes.")
    operate_tokens_file: Path | None = Field(None, description="File with more of the second, likewise.")

    expected_engagement_rate: Fraction = Field(0.06, description="Expected rate of a variant whose event names none.")
    kill_threshold: Fraction = Field(0.5, description="Share of the expected rate below which a variant is killed, unless its event says otherwise.")
    min_interactions: int = Field(10, ge=1, le=1_000_000, description="Interactions before the first decision, unless the event says otherwise.")
    timeout_minutes: Annotated[float, Field(gt=0, le=43_200)] = Field(10, description="Length of the monitoring window, unless the event says otherwise.")

    grace_seconds: float = Field(
        5, ge=0, le=3_600, description="How long after a deadline an interaction may still be appended. The same on every worker, always: it is part of the rule."
    )
    flush_interval_seconds: Annotated[float, Field(ge=0.02, le=10)] = Field(
        0.5, description="Pause between two writes of changed state; up to 4 s where those take long, with very many sessions. Bounds what is repeated after a crash, not latency."
    )
    waiting_minutes: Annotated[float, Field(ge=10, le=43_200)] = Field(10, description="How long an interaction waits for its `variant_posted`.")
    waiting_limit: int = Field(1_000_000, ge=1_000_000, description="Interactions that wait at once in one worker; the oldest are pushed out beyond that.")
    stop_on_bad_input: bool = Field(
        default=False, description="Stop a monitor when at least 10,000 records came within 60 s and 99 % of them cannot be used. They are dead letters either way."
    )
    session_timeout_seconds: Annotated[float, Field(ge=6, le=300)] = Field(6, description="After this long without a heartbeat a worker's partitions go to the others.")
    sink_web_port: int = Field(
        6065, ge=0, le=65_535, description="Port that a sink serves its health, readiness and metrics on, at `EARLY_KILL_WEB_HOST`; `early-kill up` takes a free one when unset."
    )

    outbound_url: SecretStr | None = Field(None, description="Where the sink tells another system of each kill, and of each that is undone, by HTTP POST; off when unset.")
    outbound_secret: SecretStr | None = Field(None, description="Secret that these calls are signed with (HMAC-SHA256), 16 characters or more.")
    outbound_secret_file: Path | None = Field(None, description="File that holds the secret, instead of `EARLY_KILL_OUTBOUND_SECRET`.")
    outbound_allow_http: bool = Field(default=False, description="Allow calls over plain HTTP to other machines than this one.")
    outbound_timeout_seconds: Annotated[float, Field(gt=0, le=60)] = Field(10, description="Longest that one call may take in all.")
    outbound_give_up_hours: Annotated[float, Field(gt=0, le=720)] = Field(
        72, description="After so long without success a call is given up; `early-kill outbound` lists such calls, and tries them again."
    )

    ready_file: Path | None = Field(None, description="File that a worker creates once it is ready; `early-kill up` sets it for its workers.")
    log_format: Literal["console", "json"] = Field("console", description="Log lines for people, or one JSON object a line.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least severe log lines to write.")

    @field_validator(
        "kafka_sasl_password_file",
        "kafka_ssl_cafile",
        "kafka_ssl_certfile",
        "kafka_ssl_keyfile",
        "database_url_file",
        "read_tokens_file",
        "operate_tokens_file",
        "outbound_secret_file",
        mode="before",
    )
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("database_url")
    @classmethod
    def _only_postgresql(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(_SCHEMES):
            raise ValueError("must start with postgresql://")
        return value

    @model_validator(mode="after")
    def _apart(self) -> Self:
        """Let a topic prefix alone keep two systems on one Kafka apart: their groups and states too."""
        if self.topic_prefix and "app_id" not in self.model_fields_set:
            object.__setattr__(self, "app_id", self.topic_prefix + self.app_id)
        return self

    @property
    def sqlalchemy_url(self) -> str:
        """The database URL as SQLAlchemy wants it, with the psycopg 3 driver named. Holds the password: never log it.

        Raises:
            Stop: It is in a file that cannot be used, or given twice.
        """
        url = self.database_url.get_secret_value()
        if self.database_url_file is not None:
            if "database_url" in self.model_fields_set:
                raise Stop("set either DATABASE_URL or DATABASE_URL_FILE")
            url = read_secret(self.database_url_file, "DATABASE_URL_FILE")
            if not url.startswith(_SCHEMES):
                raise Stop("DATABASE_URL_FILE: the URL in it must start with postgresql://")
        return f"postgresql+psycopg://{url.split('://', 1)[1]}"

    @property
    def defaults(self) -> Defaults:
        """What a worker with these settings assumes of a variant that does not say."""
        return Defaults(self.expected_engagement_rate, self.kill_threshold, self.min_interactions, self.timeout_minutes)

    @property
    def kafka_user(self) -> str:
        """Whom the brokers take this client for, as errors name it."""
        return self.kafka_sasl_username or "anonymous"

    @property
    def kafka_password(self) -> str | None:
        """The SASL password, None if there is none. Never log it.

        Raises:
            Stop: It is in a file that cannot be used, or given twice.
        """
        given = None if self.kafka_sasl_password is None else self.kafka_sasl_password.get_secret_value()
        if self.kafka_sasl_password_file is None:
            return given
        if given:
            raise Stop("set either KAFKA_SASL_PASSWORD or KAFKA_SASL_PASSWORD_FILE")
        return read_secret(self.kafka_sasl_password_file, "KAFKA_SASL_PASSWORD_FILE")

    @property
    def api_tokens(self) -> frozenset[str]:
        """All bearer tokens of the API that count now, those in files too. Never log them.

        Raises:
            Stop: A file of tokens cannot be used, or holds none.
        """
        tokens = {token.get_secret_value() for token in self.read_tokens | self.operate_tokens}
        for path, name in ((self.read_tokens_file, "EARLY_KILL_READ_TOKENS_FILE"), (self.operate_tokens_file, "EARLY_KILL_OPERATE_TOKENS_FILE")):
            if path is not None:
                tokens |= read_tokens(path, name)
        return frozenset(tokens)

    @property
    def advertised_url(self) -> str:
        """Where the other workers reach this one's HTTP API."""
        return self.web_url or base_url(self.web_host, self.web_port)

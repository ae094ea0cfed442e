"""How every client reaches Kafka, and why none gets in: away for now, or turned away for good. aiokafka says ``Unable to bootstrap`` of both."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from models.errors import Retry, Stop

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streams.settings import Settings

KNOCK_SECONDS = 5.0
"""How long one broker may take to let a client in."""


def kafka_client_options(settings: Settings) -> dict[str, Any]:
    """Keyword arguments that every aiokafka client takes to reach Kafka as configured. May hold the password: never log them.

    Raises:
        Stop: A certificate or password file cannot be used, or the SASL user or password is missing.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": [server.strip() for server in settings.kafka_bootstrap_servers.split(",")],
        "security_protocol": settings.kafka_security_protocol,
    }
    if settings.kafka_security_protocol.endswith("SSL"):
        options["ssl_context"] = _tls(settings)
    if settings.kafka_security_protocol.startswith("SASL"):
        password = settings.kafka_password
        if not settings.kafka_sasl_username or password is None:
            raise Stop(f"KAFKA_SECURITY_PROTOCOL={settings.kafka_security_protocol} needs KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD")
        options["sasl_mechanism"] = settings.kafka_sasl_mechanism
        options["sasl_plain_username"] = settings.kafka_sasl_username
        options["sasl_plain_password"] = password
    return options


def _tls(settings: Settings) -> ssl.SSLContext:
    """TLS 1.2 or newer; the broker's certificate has to be signed by the given authorities, and to be for the name it is called by."""
    from aiokafka.helpers import create_ssl_context

    files = {"cafile": settings.kafka_ssl_cafile, "certfile": settings.kafka_ssl_certfile, "keyfile": settings.kafka_ssl_keyfile}
    try:
        # With a password, if an empty one, OpenSSL does not ask the terminal for that of an encrypted key.
        context: ssl.SSLContext = create_ssl_context(**{name: str(path) for name, path in files.items() if path}, password="")
    except OSError as error:
        named = ", ".join(f"KAFKA_SSL_{name.upper()}={path}" for name, path in files.items() if path)
        raise Stop(f"cannot use the TLS files {named}: {error}") from None
    return context


async def turned_away(settings: Settings) -> str | None:
    """Knock at the brokers, one after the other.

    Returns:
        Why they will never let this client in, in one line: a certificate that is not trusted, a wrong user, password or mechanism.
        None if one lets it in, or if none says anything that a repetition could not change.

    Raises:
        Stop: As ``kafka_client_options``.
    """
    if settings.kafka_security_protocol == "PLAINTEXT":
        return None
    from aiokafka.conn import collect_hosts

    options = kafka_client_options(settings)
    why = None
    for host, port, _ in collect_hosts(options.pop("bootstrap_servers"), randomize=False):
        refusal = await _knock(host, port, options)
        if refusal == "":
            return None
        if refusal is not None:
            why = why or f"Kafka at {host}:{port} {refusal}"
    return why


async def _knock(host: str, port: int, options: Mapping[str, Any]) -> str | None:
    """Why the client is turned away; empty if it is let in, None if it cannot be said."""
    from aiokafka.conn import create_conn
    from aiokafka.errors import AuthenticationFailedError, IllegalSaslStateError, KafkaError, SaslAuthenticationFailed, UnsupportedSaslMechanismError

    user = options.get("sasl_plain_username")
    try:
        connection = await create_conn(host, port, request_timeout_ms=round(KNOCK_SECONDS * 1000), **options)
    except ssl.SSLCertVerificationError as error:
        return f"shows a certificate that is not trusted (KAFKA_SSL_CAFILE): {error.verify_message}"
    except (SaslAuthenticationFailed, AuthenticationFailedError) as error:
        return f"does not let user {user} in (KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD): {_words(error)}"
    except (UnsupportedSaslMechanismError, IllegalSaslStateError):
        return f"does not take KAFKA_SASL_MECHANISM={options['sasl_mechanism']}"
    except ValueError as error:  # from aiokafka's SCRAM
        return f"does not know the password of user {user} itself: {_words(error)}"
    except (KafkaError, OSError, TimeoutError):
        return None
    await connection.close()
    return ""


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())


async def unreachable(settings: Settings) -> Stop | Retry:
    """Return the error of a client that got no connection: ``Stop`` if it never will."""
    refusal = await turned_away(settings)
    return Retry(f"no Kafka broker answers at {settings.kafka_bootstrap_servers}") if refusal is None else Stop(refusal)

"""What goes over the network without encryption, said at every start of a worker."""

from __future__ import annotations

from models.errors import Stop
from streams.addresses import is_loopback
from streams.database import connection_parameters
from streams.settings import Settings

_ENCRYPTED = ("require", "verify-ca", "verify-full")


def cleartext(settings: Settings) -> list[str]:
    """Return a line for each connection to another machine that others on the way could read or change, and for credentials that stay unused.

    Raises:
        Stop: Kafka on another machine would be spoken to without TLS, which is not allowed; or ``DATABASE_URL`` can't be read.
    """
    lines = []
    protocol = settings.kafka_security_protocol
    servers = [server.strip() for server in settings.kafka_bootstrap_servers.split(",")]
    far = [server for server in servers if not is_loopback(server.rpartition(":")[0] or server)]
    if far and not protocol.endswith("SSL"):
        if not settings.allow_insecure:
            remedy = "set KAFKA_SECURITY_PROTOCOL to SASL_SSL or SSL, or EARLY_KILL_ALLOW_INSECURE=true if the network is yours alone"
            raise Stop(f"Kafka at {', '.join(far)} would be spoken to unencrypted: {remedy}")
        lines.append(f"Kafka at {', '.join(far)} is spoken to unencrypted, as EARLY_KILL_ALLOW_INSECURE says: whoever is on the way can read and change what is sent")
    if settings.kafka_sasl_username and not protocol.startswith("SASL"):
        lines.append(f"KAFKA_SASL_USERNAME is set and not used, KAFKA_SECURITY_PROTOCOL={protocol}")
    if settings.kafka_ssl_cafile is not None and not protocol.endswith("SSL"):
        lines.append(f"KAFKA_SSL_CAFILE is set and not used, KAFKA_SECURITY_PROTOCOL={protocol}")
    database = connection_parameters(settings)
    hosts = [host for host in str(database.get("host") or "").split(",") if host and not host.startswith("/") and not is_loopback(host)]
    if hosts and database.get("sslmode") not in _ENCRYPTED:
        lines.append(f"PostgreSQL at {', '.join(hosts)} may be spoken to unencrypted: add sslmode=verify-full to DATABASE_URL unless the network is yours alone")
    return lines

"""Where outbound calls go, and with which secret they are signed: the settings, checked."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import SecretStr
from yarl import URL

from models.errors import Stop
from streams.addresses import is_loopback
from streams.secret_files import read_secret
from streams.settings import Settings

SECRET_CHARACTERS = 16
"""Least length of a secret."""


@dataclass(frozen=True, slots=True)
class Target:
    """Another system that wants to know of kills.

    Attributes:
        url: Where calls go. Its path and query may be a secret: never log it.
        name: What people, logs and tables see of it: scheme, host and port.
        secret: What calls are signed with.
    """

    url: SecretStr
    name: str
    secret: SecretStr


def target_of(settings: Settings) -> Target | None:
    """Return the configured target; None if there is none.

    Raises:
        Stop: The URL cannot be used, is plain HTTP to another machine without leave, or there is no good secret. The text quotes
            neither URL nor secret.
    """
    if settings.outbound_url is None or not settings.outbound_url.get_secret_value().strip():
        return None
    url = _url(settings.outbound_url.get_secret_value().strip())
    if url.scheme == "http" and not settings.outbound_allow_http and not is_loopback(url.host or ""):
        raise Stop("EARLY_KILL_OUTBOUND_URL is plain HTTP to another machine: use https, or set EARLY_KILL_OUTBOUND_ALLOW_HTTP=true")
    return Target(SecretStr(str(url)), str(url.origin()), _secret(settings))


def _url(given: str) -> URL:
    try:
        url = URL(given)
        port = url.port
    except ValueError:
        raise Stop("EARLY_KILL_OUTBOUND_URL is not a URL") from None
    if url.scheme not in {"http", "https"} or not url.host or not port:
        raise Stop("EARLY_KILL_OUTBOUND_URL must be an http or https URL with a host")
    if url.user is not None or url.password is not None:
        raise Stop("EARLY_KILL_OUTBOUND_URL must not hold a user or password: calls are signed with EARLY_KILL_OUTBOUND_SECRET")
    return url.with_fragment(None)


def _secret(settings: Settings) -> SecretStr:
    given = settings.outbound_secret is not None and bool(settings.outbound_secret.get_secret_value().strip())
    if given == (settings.outbound_secret_file is not None):
        raise Stop("EARLY_KILL_OUTBOUND_URL needs a secret: set either EARLY_KILL_OUTBOUND_SECRET or EARLY_KILL_OUTBOUND_SECRET_FILE")
    if settings.outbound_secret_file is not None:
        secret = read_secret(settings.outbound_secret_file, "EARLY_KILL_OUTBOUND_SECRET_FILE")
    else:
        secret = "" if settings.outbound_secret is None else settings.outbound_secret.get_secret_value().strip()
    if len(secret) < SECRET_CHARACTERS:
        raise Stop(f"the secret for EARLY_KILL_OUTBOUND_URL must have {SECRET_CHARACTERS} characters or more, for example from `openssl rand -hex 32`")
    return SecretStr(secret)

"""The way into PostgreSQL: connections that give up in time, and what each of its errors asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import psycopg
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from models.errors import EarlyKillError, Reject, Retry, Stop
from streams.connecting import Connector
from streams.settings import Settings

CONNECT_TIMEOUT_SECONDS = 5
STATEMENT_TIMEOUT_SECONDS = 5
LOCK_TIMEOUT_SECONDS = 2
IDLE_IN_TRANSACTION_TIMEOUT_SECONDS = 10
PATIENCE_SECONDS = 15
"""Longest that one attempt may take in all: beyond every server-side limit, for a server that answers nothing at all."""

DRIVER_ERRORS = (exc.SQLAlchemyError, psycopg.Error, OSError)
"""What a database call can raise (time-outs are ``OSError`` too). All else is a mistake in this program, and is let through."""

_DIALECT = "postgresql+psycopg://"

# By SQLSTATE, or by its first two characters (the class). All others are transient.
# Source: FAULTS.md, section 3; the classes that it does not name by what a repetition would change.
_STOP = ("28", "3D", "3F", "42")  # authorization, no such database or schema, undefined or forbidden object
_REJECT = ("21", "22", "23", "44", "54", "P0")  # data, constraint, view's check option, over a limit, refused by somebody's trigger
_OWN_UNIQUE = "variant_monitoring_session_id_key"

# A connection that is refused has no SQLSTATE in psycopg. Where ``streams.connecting`` cannot find it out either, the words have to do;
# in another language than English they are not found, and the connection is tried again.
_FATAL = "FATAL"
_STOP_WORDS = ("authentication failed", "no password supplied", "no pg_hba.conf entry", "is not permitted to log in", "permission denied for database")


def connection_parameters(
    settings: Settings, *, statement_timeout_seconds: float = STATEMENT_TIMEOUT_SECONDS, lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS
) -> dict[str, Any]:
    """What libpq is told: all of ``DATABASE_URL`` (it wins), and the limits that keep a connection from hanging.

    Raises:
        Stop: libpq can't read the URL. The text does not quote it, for it may hold a password.
    """
    try:
        given = conninfo_to_dict(settings.sqlalchemy_url.replace("+psycopg", "", 1))
    except psycopg.Error:
        raise Stop("DATABASE_URL is not a PostgreSQL URL (postgresql://user:password@host:port/database, special characters %-encoded)") from None
    limits = {
        "statement_timeout": statement_timeout_seconds,
        "lock_timeout": lock_timeout_seconds,
        "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_TIMEOUT_SECONDS,
    }
    options = " ".join([f"-c {name}={round(seconds * 1000)}" for name, seconds in limits.items()] + ([str(given["options"])] if given.get("options") else []))
    defaults = {
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "application_name": settings.app_id,
        "tcp_user_timeout": 10_000,
        "keepalives_idle": 5,
        "keepalives_interval": 5,
        "keepalives_count": 2,
    }
    return {**defaults, **given, "options": options}


def create_engine(settings: Settings) -> AsyncEngine:
    """Prepare a small pool; nothing connects yet. Close it with ``await engine.dispose()``.

    A ``DATABASE_URL_FILE`` is read again for each connection, so that a password can change without a restart.

    Raises:
        Stop: ``DATABASE_URL`` can't be read.
    """
    parameters, connector = connection_parameters(settings), Connector()

    async def connect() -> psycopg.AsyncConnection[Any]:
        return await connector.connect(parameters if settings.database_url_file is None else connection_parameters(settings))

    return create_async_engine(_DIALECT, async_creator=connect, pool_size=3, max_overflow=2, pool_timeout=5, pool_pre_ping=True, isolation_level="READ COMMITTED")


async def ping(engine: AsyncEngine) -> None:
    """Ask for an answer.

    Raises:
        Retry: PostgreSQL is away for now.
        Stop: It is there, but will never take us.
    """
    with explained():
        async with asyncio.timeout(PATIENCE_SECONDS), engine.connect() as connection:
            await connection.execute(text("SELECT 1"))


async def check_schema(engine: AsyncEngine) -> None:
    """See whether the schema is there, and may be read; errors as ``ping``."""
    with explained():
        async with asyncio.timeout(PATIENCE_SECONDS), engine.connect() as connection:
            await connection.execute(text("SELECT FROM variant_monitoring, variant_pool, scheduled_post, monitoring_audit, outbound_call LIMIT 0"))


def sqlstate(error: BaseException) -> str | None:
    """The five characters that PostgreSQL gave the error, if any."""
    return cast("str | None", getattr(_original(error), "sqlstate", None))


def classify(error: BaseException) -> type[Retry | Stop | Reject]:
    """Say what an error of a database call asks for.

    Returns:
        ``Retry`` for what passes (away, starting, full, read-only, locked, deadlock, timed out, socket errors), ``Stop`` for a wrong
        set-up (password, database, schema, right, table) and for mistakes in this program, ``Reject`` for a row that PostgreSQL refuses.
    """
    original = _original(error)
    if isinstance(original, EarlyKillError):
        return next(kind for kind in (Retry, Stop, Reject) if isinstance(original, kind))
    code = sqlstate(original)
    if code is not None:
        return _by_sqlstate(code, original)
    if isinstance(original, psycopg.OperationalError | psycopg.InterfaceError):
        words = str(original)
        missing = _FATAL in words and "does not exist" in words  # role or database
        return Stop if missing or any(known in words for known in _STOP_WORDS) else Retry
    if isinstance(original, psycopg.DataError):  # refused before it was sent: U+0000, a number out of range
        return Reject
    return Retry if isinstance(original, OSError | TimeoutError | exc.TimeoutError) else Stop


def explain(error: BaseException) -> str:
    """One line for people; without the SQL and its parameters."""
    original = _original(error)
    primary = original.diag.message_primary if isinstance(original, psycopg.Error) else None  # without the place in the SQL, and the row
    line = " ".join((primary or str(original)).split())
    return f"PostgreSQL: {line or type(original).__name__}"


@contextmanager
def explained() -> Iterator[None]:
    """Turn errors of the driver into ``Retry``, ``Stop`` or ``Reject`` with one clear line."""
    try:
        yield
    except EarlyKillError:
        raise
    except DRIVER_ERRORS as error:
        raise classify(error)(explain(error)) from error


def is_storable(*texts: str | None) -> bool:
    """Whether PostgreSQL can hold all of these; no row has a text with U+0000 or a lone surrogate, and asking for one is an error."""
    return not any(given is not None and ("\0" in given or given != given.encode(errors="replace").decode()) for given in texts)


def _original(error: BaseException) -> BaseException:
    return error.orig if isinstance(error, exc.DBAPIError) and error.orig is not None else error


def _by_sqlstate(code: str, error: BaseException) -> type[Retry | Stop | Reject]:
    if code == "23505" and getattr(getattr(error, "diag", None), "constraint_name", None) == _OWN_UNIQUE:
        return Retry  # two wrote one session at the same moment; the second time ON CONFLICT sees the first
    if code.startswith(_STOP):
        return Stop
    return Reject if code.startswith(_REJECT) else Retry

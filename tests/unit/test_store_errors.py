"""What errors of PostgreSQL ask for, and what is said of them."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from psycopg import errors
from sqlalchemy import exc

from models.errors import Reject, Retry, Stop
from streams.database import classify, connection_parameters, explain, explained, is_storable
from streams.settings import Settings
from streams.store import MAX_LIMIT, Store

RETRY = ["08000", "08006", "08P01", "53000", "53100", "53200", "53300", "57P01", "57P02", "57P03", "57014", "40001", "40P01", "55P03", "25006", "25P03", "57P05", "58030", "XX000"]
STOP = ["28000", "28P01", "3D000", "3F000", "42P01", "42703", "42501", "42601"]
REJECT = ["22001", "22003", "22021", "22P02", "22P05", "23502", "23503", "23505", "23514", "44000", "54000", "P0001", "21000"]


@pytest.mark.parametrize(("kind", "code"), [*[(Retry, code) for code in RETRY], *[(Stop, code) for code in STOP], *[(Reject, code) for code in REJECT]])
def test_each_sqlstate_has_one_consequence(kind: type[Exception], code: str):
    """Bare, and wrapped by SQLAlchemy."""
    error = errors.lookup(code)("said so")
    assert classify(error) is kind
    assert classify(exc.DBAPIError("SELECT 1", {}, error)) is kind


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (Retry, psycopg.OperationalError("connection failed: Connection refused")),
        (Retry, psycopg.OperationalError("consuming input failed: server closed the connection unexpectedly")),
        (Retry, psycopg.OperationalError("failed to resolve host 'db': Name or service not known")),
        (Retry, psycopg.OperationalError("connection failed: FATAL:  sorry, too many clients already")),
        (Retry, psycopg.OperationalError("connection failed: FATAL:  the database system is starting up")),
        (Retry, psycopg.InterfaceError("the connection is closed")),
        (Retry, errors.ConnectionTimeout("connection timeout expired")),
        (Retry, ConnectionResetError("reset")),
        (Retry, TimeoutError()),
        (Retry, exc.TimeoutError("QueuePool limit")),
        (Stop, psycopg.OperationalError('connection failed: FATAL:  password authentication failed for user "x"')),
        (Stop, psycopg.OperationalError('connection failed: FATAL:  role "x" does not exist')),
        (Stop, psycopg.OperationalError('connection failed: FATAL:  database "x" does not exist')),
        (Stop, psycopg.OperationalError("connection failed: fe_sendauth: no password supplied")),
        (Stop, psycopg.OperationalError('connection failed: FATAL:  no pg_hba.conf entry for host "1.2.3.4"')),
        (Reject, psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")),
        (Stop, psycopg.ProgrammingError("the query has 1 placeholder but 2 parameters were passed")),
        (Stop, exc.InvalidRequestError("misused")),
        (Stop, ValueError("a bug")),
        (Retry, Retry("already sorted")),
        (Stop, Stop("already sorted")),
        (Reject, Reject("already sorted")),
    ],
)
def test_errors_without_sqlstate_are_sorted_too(kind: type[Exception], error: Exception):
    """Refused connections carry none in psycopg, nor do sockets."""
    assert classify(error) is kind


def test_a_line_for_people_is_one_line_without_sql():
    """SQLAlchemy would add the statement and its parameters."""
    error = exc.OperationalError("SELECT secret", {"p": "secret"}, psycopg.OperationalError("connection failed:\n\tIs the server running?\n"))
    assert explain(error) == "PostgreSQL: connection failed: Is the server running?"
    assert explain(TimeoutError()) == "PostgreSQL: TimeoutError"


def test_a_driver_error_becomes_one_of_ours():
    """And ours stays what it is; a bug stays a bug."""
    with pytest.raises(Retry, match="PostgreSQL: gone"), explained():
        raise psycopg.OperationalError("gone")
    with pytest.raises(Reject, match="mine"), explained():
        raise Reject("mine")
    with pytest.raises(KeyError), explained():
        raise KeyError("bug")


def parameters(url: str) -> dict[str, object]:
    """What libpq would be told."""
    return connection_parameters(Settings.model_validate({"database_url": url}))


def test_connections_give_up_in_time():
    """Every wait has its bound; the URL's own parameters win."""
    given = parameters("postgresql+psycopg://u:p%40ss@db:5/name?connect_timeout=9&options=-c%20search_path%3Dx&sslmode=verify-full")
    assert given["options"] == "-c statement_timeout=5000 -c lock_timeout=2000 -c idle_in_transaction_session_timeout=10000 -c search_path=x"
    assert {name: given[name] for name in ("user", "password", "host", "port", "dbname", "connect_timeout", "sslmode", "tcp_user_timeout", "application_name")} == {
        "user": "u",
        "password": "p@ss",
        "host": "db",
        "port": "5",
        "dbname": "name",
        "connect_timeout": "9",
        "sslmode": "verify-full",
        "tcp_user_timeout": 10_000,
        "application_name": "early-kill",
    }


@pytest.mark.parametrize("url", ["postgresql://u:se%zzcret@db/x", "postgresql://u:secret@db/x?nonsense=1"])
def test_a_url_that_cannot_be_read_is_not_quoted(url: str):
    """It may hold a password."""
    with pytest.raises(Stop, match="DATABASE_URL is not a PostgreSQL URL") as caught:
        parameters(url)
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": MAX_LIMIT + 1}, "limit"),
        ({"outcome": "dead"}, "outcome"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_with_its_field(arguments: dict[str, object], field: str):
    """Before PostgreSQL is asked: there is none here."""
    with pytest.raises(Reject) as caught:
        asyncio.run(Store(None).sessions(**arguments))  # type: ignore[arg-type]
    assert caught.value.field == field


@pytest.mark.parametrize(("text", "answer"), [("v", True), ("\0", False), ("a\ud800", False), ("\U0001f600?", True), (None, True)])
def test_ids_that_no_row_can_have_are_known_beforehand(text: str | None, answer: bool):
    """PostgreSQL would refuse the question."""
    assert is_storable(text) is answer

"""A database for one test, on the session's PostgreSQL."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql

from streams.local.postgres import PostgresServer


@contextmanager
def fresh_database(server: PostgresServer) -> Iterator[str]:
    """Yield the URL of an empty database, owned by the role in it; drop it afterwards, whoever is connected still.

    Not WITH (FORCE): that is refused while PostgreSQL's own vacuum is at work there, for its session is a superuser's. A plain DROP asks it to end, and waits.
    """
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server.database_url, autocommit=True, connect_timeout=5) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield server.database_url.rsplit("/", 1)[0] + f"/{name}"
    finally:
        with psycopg.connect(server.database_url, autocommit=True, connect_timeout=5) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'", [name])
            connection.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))

"""The role that deploy/postgres-roles.sql makes, in a test's own database."""

from __future__ import annotations

from pathlib import Path

import psycopg
from psycopg import sql

from streams.local.postgres import PostgresServer

ROLES = Path(__file__).parents[2] / "deploy" / "postgres-roles.sql"
ROLE = "early_kill_worker"


def superuser(postgres: PostgresServer, database: str) -> psycopg.Connection:
    """A connection to a test's database with all rights."""
    return psycopg.connect(f"{postgres.superuser_url.rsplit('/', 1)[0]}/{database.rsplit('/', 1)[1]}", autocommit=True, connect_timeout=5)


def worker_url(postgres: PostgresServer, database: str, password: str) -> str:
    """Carry out deploy/postgres-roles.sql in a migrated database, twice, and return the database's URL for the role."""
    with superuser(postgres, database) as connection:
        for _ in range(2):
            connection.execute(ROLES.read_bytes())
        connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(ROLE), sql.Literal(password)))
    return f"postgresql://{ROLE}:{password}@{database.split('@')[1]}"

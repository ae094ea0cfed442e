"""PostgreSQL 18 on this machine: one cluster under one directory, TCP on the loopback address.

Like the embedded Kafka it trusts who is on this machine: role ``early_kill`` (owner of the database of that name, no superuser) needs no
password, over loopback. The superuser, who could run programs, has a random one, kept in ``<home>/superuser-password`` (mode 0600).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

from models.errors import Stop
from streams.local.child import LOOPBACK, Child, User, end_process, require_free_port
from streams.local.readable import ELSEWHERE, binaries, cluster_directory, server_user

ROLE = "early_kill"
DATABASE = "early_kill"
SUPERUSER = "postgres"
STOP_SECONDS = 5.0
INITDB_SECONDS = 60.0
# Who may come in, first match first. Other roles (tests make some) need their password.
ACCESS = f"""\
host  all  {ROLE}  127.0.0.1/32  trust
host  all  all     127.0.0.1/32  scram-sha-256
"""
CONFIGURATION = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "shared_buffers": "64MB",
    "max_connections": "60",
    "max_wal_size": "256MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class PostgresServer:
    """An embedded server.

    Args:
        home: Its directory; made when missing. What is in it is carried on from.
        port: Port on the loopback address.
        configuration: More parameters of the server, over ``CONFIGURATION``; for example ``{"fsync": "off"}`` for tests.
        log: Where its output goes; ``<home>/postgres.log`` when None.
    """

    def __init__(self, home: Path, port: int, *, configuration: Mapping[str, str] | None = None, log: Path | None = None) -> None:
        self.home = home.resolve()
        self.port = port
        self.configuration = {**CONFIGURATION, **(configuration or {}), "port": str(port)}
        self.child = Child("postgres", self.home / "postgres.pid", log or self.home / "postgres.log", "", death_signal=signal.SIGQUIT)

    @property
    def database_url(self) -> str:
        """The project's database, as its own role."""
        return f"postgresql://{ROLE}@{LOOPBACK}:{self.port}/{DATABASE}"

    @property
    def superuser_url(self) -> str:
        """The same server as superuser, with the password: for tests, never for logs."""
        return f"postgresql://{SUPERUSER}:{self._password_file.read_text().strip()}@{LOOPBACK}:{self.port}/postgres"

    @property
    def pid(self) -> int | None:
        """The postmaster's pid; None when it isn't running."""
        return self.child.pid

    def start(self) -> None:
        """Start the server and return at once; ``wait_ready`` tells when it serves.

        Raises:
            Stop: The port is taken, the package is missing, or the cluster cannot be made or read.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        self.stop_orphan()
        cluster = cluster_directory(self.home)
        self.child.marker = str(cluster)
        require_free_port(self.port, "PostgreSQL")
        user = server_user(cluster)
        programs = binaries(user)
        try:
            if not (cluster / "PG_VERSION").exists():
                self._create(cluster, programs, user)
            _clear_crash(cluster)
        except PermissionError as error:
            raise Stop(f"the database in {cluster} belongs to another user: {error.strerror}") from None
        options = [part for name, value in self.configuration.items() for part in ("-c", f"{name}={value}")]
        self.child.start([programs / "postgres", "-D", cluster, *options], cwd=cluster, user=user, env=_environment())

    def wait_ready(self, timeout: float = 60) -> None:
        """Wait until the project's database can be connected to, making role and database if they are missing.

        Raises:
            Stop: The server ended, or ``timeout`` seconds went by.
        """
        self.child.wait_until(self._answers, timeout)

    def stop(self) -> None:
        """Stop cleanly, ending its sessions; less politely if that takes over 5 s. A second call does nothing."""
        self.child.stop((signal.SIGINT, STOP_SECONDS), (signal.SIGQUIT, STOP_SECONDS))

    def kill(self) -> None:
        """End it and its backends with SIGKILL, as a crash of the machine would."""
        self.child.stop()
        if self.child.marker:
            _end_backends(Path(self.child.marker))

    def stop_orphan(self) -> None:
        """Stop the server that a killed supervisor left running on this directory, if any."""
        if self.child.pid_file.exists():
            self.child.marker = str(cluster_directory(self.home))
            self.child.stop_orphan()

    def remove(self) -> None:
        """Stop it and delete the cluster, wherever it lives."""
        self.stop()
        if self.home.is_dir():
            shutil.rmtree(cluster_directory(self.home), ignore_errors=True)
            (self.home / ELSEWHERE).unlink(missing_ok=True)

    @property
    def _password_file(self) -> Path:
        return self.home / "superuser-password"

    def _create(self, cluster: Path, programs: Path, user: User | None) -> None:
        """Make the cluster in a scratch directory beside it and rename it last, so that a crash leaves none or all of it."""
        cluster.parent.mkdir(parents=True, exist_ok=True)
        password = secrets.token_urlsafe(24)
        descriptor = os.open(self._password_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(password)
        arriving = cluster.with_name(f"{cluster.name}.new")
        shutil.rmtree(arriving, ignore_errors=True)
        arriving.mkdir(mode=0o700)
        with tempfile.NamedTemporaryFile("w", dir=cluster.parent, prefix=".password-") as handed:
            handed.write(password)
            handed.flush()
            owner = (user.uid, user.gid) if user else (-1, -1)
            os.chown(arriving, *owner)
            os.chown(handed.name, *owner)
            initdb: list[str | Path] = [programs / "initdb", "-D", arriving, "-U", SUPERUSER, f"--pwfile={handed.name}", "-A", "scram-sha-256", "-E", "UTF8", "--no-sync"]
            initdb += ["--no-instructions", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
            maker = Child("initdb", self.home / "initdb.pid", self.home / "initdb.log", str(arriving))
            maker.start(initdb, cwd=arriving, user=user, env=_environment())
            with contextlib.suppress(Stop):
                maker.wait_until(lambda: maker.exit_code is not None, INITDB_SECONDS)
            maker.stop()
        if maker.exit_code != 0:
            raise Stop(f"initdb failed (exit code {maker.exit_code}), see {maker.log}: {maker.last_words()}")
        _write_access_rules(arriving / "pg_hba.conf")
        arriving.rename(cluster)  # also over the empty directory that keeps its place elsewhere

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.database_url, connect_timeout=2):
                return True
        except psycopg.OperationalError:
            with contextlib.suppress(psycopg.OperationalError):
                self._ensure_database()
            return False

    def _ensure_database(self) -> None:
        with psycopg.connect(self.superuser_url, connect_timeout=2, autocommit=True) as connection:
            if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [ROLE]).fetchone() is None:
                connection.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEDB").format(sql.Identifier(ROLE)))
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone() is None:
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(DATABASE), sql.Identifier(ROLE)))


def _environment() -> dict[str, str]:
    """The server's environment: nothing of ours that would change what it does (``PGDATA``, ``LC_…``), nor secrets."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _write_access_rules(path: Path) -> None:
    """Through no link: the directory is another user's when root writes here."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW), "w") as file:
        file.write(ACCESS)


def _clear_crash(cluster: Path) -> None:
    """Take away what a crash left: backends without their postmaster, and a pid file whose pid may be somebody else's by now."""
    lock = cluster / "postmaster.pid"
    if lock.exists():
        _end_backends(cluster)
        lock.unlink()


def _end_backends(cluster: Path) -> None:
    """Kill what still works in the cluster's directory; every process of a server does."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name() == "postgres" and process.cwd() == str(cluster):
                end_process(process)

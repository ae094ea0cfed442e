"""The embedded database server: carries on after clean and unclean ends, also for root in a directory of root's own."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from models.errors import Stop
from streams.local.child import free_port
from streams.local.postgres import PostgresServer

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that everybody may enter."""
    home = Path(tempfile.mkdtemp(prefix="early kill tests, "))
    home.chmod(0o755)
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def server(home: Path) -> Iterator[PostgresServer]:
    """A server of this test's own, not started yet."""
    server = PostgresServer(home / "postgres", free_port())
    yield server
    server.remove()


def run(server: PostgresServer) -> None:
    """Start it and wait."""
    server.start()
    server.wait_ready()


def query(url: str, text: str) -> list[tuple[object, ...]]:
    """The rows of one statement."""
    with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
        cursor = connection.execute(text)  # type: ignore[arg-type] # a test's own literal
        return cursor.fetchall() if cursor.description else []


def test_committed_rows_survive_a_clean_stop_and_a_kill(server: PostgresServer):
    """On the same directory, on another port too."""
    run(server)
    query(server.database_url, "CREATE TABLE t AS SELECT 1 AS n")
    server.stop()
    assert server.pid is None
    server = PostgresServer(server.home, free_port())
    run(server)
    query(server.database_url, "INSERT INTO t VALUES (2)")
    server.kill()
    assert server.pid is None
    run(server)
    assert query(server.database_url, "SELECT n FROM t ORDER BY n") == [(1,), (2,)]
    server.stop()


def test_it_is_version_18_in_utf8(server: PostgresServer):
    """And orders text by code point, on every machine alike."""
    run(server)
    assert query(server.database_url, "SHOW server_version")[0][0].startswith("18.")  # type: ignore[attr-defined]
    assert query(server.database_url, "SHOW server_encoding") == [("UTF8",)]
    assert query(server.database_url, "SELECT 'Z' < 'a' AND 'z' < 'ä'") == [(True,)]


def test_the_projects_role_is_no_superuser(server: PostgresServer):
    """Anybody on this machine may be that role, so it must not run programs."""
    run(server)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        query(server.database_url, "COPY (SELECT 1) TO PROGRAM 'true'")
    assert query(server.superuser_url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == [(True,)]


def test_the_superuser_needs_the_password_that_only_the_owner_can_read(server: PostgresServer):
    """It is random, and in a file of mode 0600."""
    run(server)
    assert (server.home / "superuser-password").stat().st_mode & 0o777 == 0o600
    with pytest.raises(psycopg.OperationalError, match="password"):
        query(f"postgresql://postgres@127.0.0.1:{server.port}/postgres", "SELECT 1")


def test_a_pid_file_that_names_a_stranger_does_not_stop_it(server: PostgresServer):
    """After a crash of the machine the postmaster's pid may be anybody's."""
    run(server)
    server.kill()
    lock = Path(server.child.marker, "postmaster.pid")
    lines = lock.read_text().splitlines()
    lock.write_text("\n".join([str(os.getpid()), *lines[1:], ""]))
    run(server)
    assert query(server.database_url, "SELECT 1") == [(1,)]


def test_a_start_takes_over_from_an_orphan_on_the_same_directory(server: PostgresServer):
    """What a killed supervisor left does not hold the port for ever."""
    run(server)
    again = PostgresServer(server.home, server.port)
    run(again)
    assert server.pid is None
    assert query(again.database_url, "SELECT 1") == [(1,)]
    again.stop()


def test_a_crash_in_the_middle_of_making_the_cluster_is_mended(server: PostgresServer):
    """Half a cluster is thrown away, for it was never used."""
    (server.home / "cluster.new" / "base").mkdir(parents=True)
    run(server)
    assert query(server.database_url, "SELECT 1") == [(1,)]


def test_a_port_that_is_taken_is_told_before_anything_is_started(server: PostgresServer):
    """In one line, with the port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", server.port))
        taken.listen()
        with pytest.raises(Stop, match=f"port {server.port} for PostgreSQL cannot be used: Address already in use"):
            server.start()
    assert server.pid is None


@as_root
def test_root_runs_it_as_somebody_else_in_a_directory_of_roots_own():
    """The cluster lives elsewhere then, is found again, and goes with ``remove``."""
    closed = Path(tempfile.mkdtemp(prefix="early-kill-closed-"))  # mode 0700
    server = PostgresServer(closed / "data" / "postgres", free_port())
    try:
        run(server)
        assert psutil.Process(server.pid).uids().real != 0
        query(server.database_url, "CREATE TABLE t AS SELECT 1 AS n")
        server.kill()
        run(server)
        assert query(server.database_url, "SELECT n FROM t") == [(1,)]
        cluster = Path(server.child.marker)
        assert not cluster.is_relative_to(closed)
        server.remove()
        assert not cluster.exists()
    finally:
        server.remove()
        shutil.rmtree(closed)


@as_root
def test_an_ordinary_user_runs_it_as_themselves(home: Path):
    """The cluster is theirs, in the directory that they named."""
    nobody = pwd.getpwnam("nobody")
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    port = free_port()
    code = f"""
from pathlib import Path
from streams.local.postgres import PostgresServer
server = PostgresServer(Path({str(home)!r}, "postgres"), {port})
server.start(); server.wait_ready()
import psycopg
print(psycopg.connect(server.database_url).execute("SELECT 1").fetchone())
server.stop()
"""
    as_nobody = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": [], "cwd": Path(__file__).parents[2], "capture_output": True, "text": True}
    try:
        subprocess.run([sys.executable, "-c", "import streams.local.postgres"], timeout=60, check=False, **as_nobody).check_returncode()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this Python or this checkout is not readable for others")
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=False, **as_nobody)
    assert done.stdout == "(1,)\n", done.stderr
    assert (home / "postgres" / "cluster").stat().st_uid == nobody.pw_uid

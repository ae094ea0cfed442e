"""Deleting a data directory, with what lives elsewhere."""

import fcntl
import shutil
import tempfile
from pathlib import Path

import pytest

from models.errors import Stop
from streams.local.child import free_port
from streams.local.postgres import PostgresServer
from streams.local.remove import remove


def test_nothing_is_left_of_a_data_directory(tmp_path: Path):
    """Neither the directory, nor a database that root had to put elsewhere, nor a server that still ran."""
    data_dir = Path(tempfile.mkdtemp(dir=tmp_path))  # mode 0700
    server = PostgresServer(data_dir / "postgres", free_port())
    server.start()
    server.wait_ready()
    cluster = Path(server.child.marker)
    remove(data_dir)
    assert not data_dir.exists()
    assert not cluster.exists()
    assert server.pid is None


def test_a_directory_in_use_is_not_deleted(tmp_path: Path):
    """The error names who uses it."""
    with (tmp_path / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711\n")
        lock.flush()
        with pytest.raises(Stop, match=r"another `early-kill up` \(pid 4711\) uses"):
            remove(tmp_path)
    assert tmp_path.exists()


def test_a_directory_that_is_not_there_is_no_error(tmp_path: Path):
    """It is gone, as wanted."""
    remove(tmp_path / "nowhere")
    shutil.rmtree(tmp_path)
    remove(tmp_path)

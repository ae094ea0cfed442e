"""`early-kill up` on real servers: comes up, mends itself, stops, carries on. Workers are stand-ins here."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

CHECKOUT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("up_with_fake_workers.py")
READY_SECONDS = 45.0


class Up:
    """One `up` as a subprocess, and what it says."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.process: subprocess.Popen[str] | None = None

    def start(self, workers: int = 2, *more: str, **environment: str) -> None:
        """Start it; ``wait_ready`` is next."""
        env = {**os.environ, "PYTHONPATH": str(CHECKOUT), **environment}
        command = [sys.executable, str(PROGRAM), str(self.data_dir), str(workers), *more]
        self.process = subprocess.Popen(command, env=env, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def wait_ready(self) -> dict[str, Any]:
        """The endpoints, once they are there."""
        assert self.process is not None
        wait_for((self.data_dir / "endpoints.json").exists, READY_SECONDS, lambda: self.process.poll() is not None)  # type: ignore[union-attr]
        if self.process.poll() is not None:
            pytest.fail(f"up ended: {self.process.communicate()}")
        return self.endpoints()

    def endpoints(self) -> dict[str, Any]:
        """What the file says now."""
        found: dict[str, Any] = json.loads((self.data_dir / "endpoints.json").read_text())
        return found

    def end(self, number: signal.Signals, timeout: float = 20) -> tuple[int, str, str]:
        """Signal it; its exit code, stdout and stderr."""
        assert self.process is not None
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, err


@pytest.fixture
def up() -> Iterator[Up]:
    """A data directory of this test's own."""
    home = Path(tempfile.mkdtemp(prefix="early-kill-up-"))
    home.chmod(0o755)
    up = Up(home / "data")
    yield up
    if up.process is not None and up.process.poll() is None:
        up.end(signal.SIGTERM)
    shutil.rmtree(home, ignore_errors=True)


def wait_for(condition: Callable[[], bool], seconds: float, give_up: Callable[[], bool] = lambda: False) -> float:
    """How long it took until ``condition`` held; fails after ``seconds``."""
    began = time.monotonic()
    while not condition():
        if give_up():
            break
        if time.monotonic() - began > seconds:
            pytest.fail(f"not within {seconds} s")
        time.sleep(0.02)
    return time.monotonic() - began


def is_running(pid: int) -> bool:
    """Whether it works on; a zombie that nobody reaps does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def answers(url: str) -> bool:
    """Whether a monitor's readiness call answers 200."""
    with urllib.request.urlopen(f"{url}/ready", timeout=5) as answer:
        return bool(answer.status == 200)


def reachable(endpoints: Mapping[str, Any]) -> None:
    """Fail unless every part answers."""
    host, port = endpoints["kafka"].split(":")
    socket.create_connection((host, int(port)), timeout=5).close()
    with psycopg.connect(endpoints["database_url"], connect_timeout=5) as connection:
        assert connection.execute("SELECT count(*) FROM variant_monitoring").fetchone() == (0,)
    assert all(answers(url) for url in endpoints["web"])


def test_everything_comes_up_and_goes_within_15_seconds(up: Up):
    """Both times: on a new directory, and on one that was stopped cleanly. Stdout has the endpoints; nothing is left running."""
    for attempt in range(2):
        began = time.monotonic()
        up.start()
        endpoints = up.wait_ready()
        assert attempt == 0 or time.monotonic() - began < 15
        reachable(endpoints)
        assert sorted(endpoints["pids"]) == ["kafka", "monitor-0", "monitor-1", "postgres", "sink"]
        assert len(endpoints["web"]) == 2
        assert all(is_running(pid) for pid in endpoints["pids"].values())
        began = time.monotonic()
        sink_port = psutil.Process(endpoints["pids"]["sink"]).environ()["EARLY_KILL_SINK_WEB_PORT"]
        code, out, said = up.end(signal.SIGTERM if attempt else signal.SIGINT)
        assert f"the sink's metrics: http://127.0.0.1:{sink_port}/metrics" in said
        assert time.monotonic() - began < 15
        assert code == 0
        assert json.loads(out) == endpoints
        assert not any(is_running(pid) for pid in endpoints["pids"].values())
        assert not (up.data_dir / "endpoints.json").exists()


def test_without_monitors_the_rest_runs(up: Up):
    """They may be started by hand."""
    up.start(0)
    endpoints = up.wait_ready()
    assert endpoints["web"] == []
    assert sorted(endpoints["pids"]) == ["kafka", "postgres", "sink"]


def test_every_part_that_is_killed_is_back_within_two_seconds(up: Up):
    """The file tells the new pid by then; the servers answer a little later, with what they had."""
    up.start(1)
    before = up.wait_ready()
    time.sleep(5)  # a part that dies right after its start gets a pause first
    for name, pid in before["pids"].items():
        os.kill(pid, signal.SIGKILL)
        assert wait_for(lambda name=name, pid=pid: up.endpoints()["pids"].get(name, pid) != pid, 2) < 2  # type: ignore[misc]
    wait_for(lambda: holds(lambda: reachable(up.endpoints())), 20)
    after = up.endpoints()
    assert after["kafka"] == before["kafka"]
    assert after["database_url"] == before["database_url"]


def test_of_parts_that_die_at_once_none_is_missing_from_the_file(up: Up):
    """Who looks a pid up meanwhile finds the one it had, until there is a new one."""
    up.start(3)
    before = up.wait_ready()["pids"]
    time.sleep(5)  # a part that dies right after its start gets a pause first
    workers = [name for name in before if name not in ("kafka", "postgres")]
    for name in workers:
        os.kill(before[name], signal.SIGKILL)
    until = time.monotonic() + 2
    pids = before
    while any(pids[name] == before[name] for name in workers):
        assert time.monotonic() < until
        time.sleep(0.002)
        pids = up.endpoints()["pids"]
        assert sorted(pids) == sorted(before)


def test_it_carries_on_after_everything_was_killed(up: Up):
    """Supervisor first, so that nothing can be cleaned up."""
    up.start(1)
    before = up.wait_ready()
    with psycopg.connect(before["database_url"]) as connection:
        connection.execute("INSERT INTO variant_pool (variant_id, persona_id, status) VALUES ('v', 'p', 'active')")
    assert up.process is not None
    up.process.kill()
    for pid in before["pids"].values():
        if is_running(pid):
            os.kill(pid, signal.SIGKILL)
    up.process.communicate()
    (up.data_dir / "endpoints.json").unlink()  # nobody was left to do it, and it would be taken for the next one's
    up.start(1)
    after = up.wait_ready()
    reachable(after)
    with psycopg.connect(after["database_url"]) as connection:
        assert connection.execute("SELECT variant_id FROM variant_pool").fetchall() == [("v",)]


def test_a_second_up_on_the_same_directory_is_refused(up: Up):
    """In one line that names the first; the first runs on."""
    up.start(0)
    endpoints = up.wait_ready()
    assert up.process is not None
    second = Up(up.data_dir)
    second.start(0)
    assert second.process is not None
    _, err = second.process.communicate(timeout=20)
    assert second.process.returncode == 1
    assert err == f"error: another `early-kill up` (pid {up.process.pid}) uses {up.data_dir}\n"
    assert up.endpoints() == endpoints


def test_a_taken_port_is_told_in_one_line(up: Up):
    """And nothing is left running."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        up.start(0, str(port))
        assert up.process is not None
        out, err = up.process.communicate(timeout=20)
    assert (up.process.returncode, out, err) == (1, "", f"error: port {port} for Kafka cannot be used: Address already in use\n")


def test_a_worker_that_says_why_it_cannot_start_ends_it(up: Up):
    """The error quotes the worker; the servers are stopped."""
    up.start(1, FAKE_WORKER="fail")
    assert up.process is not None
    _, err = up.process.communicate(timeout=READY_SECONDS)
    assert up.process.returncode == 1
    assert "sink ended at its start (exit code 1)" in err
    assert err.endswith("error: the schema is of another version than this program\n")
    assert not [process for process in psutil.process_iter() if str(up.data_dir) in " ".join(cmdline(process))]


def test_a_worker_that_does_not_stop_is_killed_in_time(up: Up):
    """All of it is over within 15 s all the same."""
    up.start(1, FAKE_WORKER="stubborn")
    endpoints = up.wait_ready()
    began = time.monotonic()
    code, _, _ = up.end(signal.SIGTERM)
    assert code == 0
    assert time.monotonic() - began < 15
    assert not any(is_running(pid) for pid in endpoints["pids"].values())


@pytest.mark.parametrize("after_seconds", [0.3, 1.5, 3.5])
def test_it_can_be_stopped_while_it_comes_up(up: Up, after_seconds: float):
    """At any moment, leaving nothing behind."""
    up.start(1)
    time.sleep(after_seconds)
    assert up.process is not None
    up.process.send_signal(signal.SIGTERM)
    up.process.communicate(timeout=20)
    assert not [process for process in psutil.process_iter() if str(up.data_dir) in " ".join(cmdline(process))]


def cmdline(process: psutil.Process) -> list[str]:
    """Its command line; empty if it is gone."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def holds(check: Callable[[], None]) -> bool:
    """Whether a check passes."""
    try:
        check()
    except (AssertionError, OSError, psycopg.Error):
        return False
    return True

"""Child processes: started, stopped, found again after a crash."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from models.errors import Stop
from streams.local.child import Child, bound_log, free_port, require_free_port

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


def make(home: Path, name: str = "sleeper") -> Child:
    """A child whose marker is its own."""
    return Child(name, home / f"{name}.pid", home / f"{name}.log", f"marker={home / name}")


def command(child: Child, code: str = "import time; time.sleep(60)") -> list[str]:
    """Python that runs ``code`` and carries the marker."""
    return [sys.executable, "-c", code, child.marker]


def is_running(pid: int) -> bool:
    """Whether a process works on; a zombie that nobody reaps does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_child_runs_until_it_is_stopped(tmp_path: Path):
    """Its pid is remembered meanwhile, and forgotten after."""
    child = make(tmp_path)
    child.start(command(child), cwd=tmp_path)
    pid = child.pid
    assert pid is not None
    assert (tmp_path / "sleeper.pid").read_text() == f"{pid}\n"
    child.stop((signal.SIGTERM, 5))
    assert child.pid is None
    assert child.exit_code == -signal.SIGTERM
    assert not (tmp_path / "sleeper.pid").exists()


def test_what_ignores_the_polite_signal_is_killed(tmp_path: Path):
    """After the seconds that it was given, not later."""
    child = make(tmp_path)
    child.start(command(child, STUBBORN), cwd=tmp_path)
    child.wait_until(lambda: child.last_words() == "up", 5)
    began = time.monotonic()
    child.stop((signal.SIGTERM, 0.3))
    assert child.exit_code == -signal.SIGKILL
    assert time.monotonic() - began < 2


def test_stopping_twice_or_before_the_start_does_nothing(tmp_path: Path):
    """Cleaning up needs no bookkeeping."""
    child = make(tmp_path)
    child.stop()
    child.start(command(child), cwd=tmp_path)
    child.stop()
    child.stop()
    assert child.pid is None


def test_a_child_that_ends_instead_of_getting_ready_is_quoted(tmp_path: Path):
    """The message has its exit code and its last words."""
    child = make(tmp_path)
    child.start(command(child, "import sys; sys.exit('no luck')"), cwd=tmp_path)
    with pytest.raises(Stop, match=r"sleeper ended at its start \(exit code 1\).*no luck"):
        child.wait_until(lambda: False, 10)


def test_a_child_that_takes_too_long_is_told_apart(tmp_path: Path):
    """It is not ready after the time it had."""
    child = make(tmp_path)
    child.start(command(child), cwd=tmp_path)
    try:
        with pytest.raises(Stop, match=r"sleeper is not ready after 0.2 s"):
            child.wait_until(lambda: False, 0.2)
    finally:
        child.stop()


def test_a_program_that_is_missing_is_named(tmp_path: Path):
    """As one line of the log."""
    child = make(tmp_path)
    child.start(["/nowhere/program", child.marker], cwd=tmp_path)
    with pytest.raises(Stop, match="cannot run /nowhere/program: No such file or directory"):
        child.wait_until(lambda: False, 10)


def test_an_orphan_of_an_earlier_run_is_stopped_before_the_next_start(tmp_path: Path):
    """Its pid file leads to it."""
    earlier = make(tmp_path)
    orphan = subprocess.Popen(command(earlier))
    try:
        (tmp_path / "sleeper.pid").write_text(f"{orphan.pid}\n")
        child = make(tmp_path)
        child.start(command(child), cwd=tmp_path)
        assert orphan.wait(5) == -signal.SIGKILL
        child.stop()
    finally:
        orphan.kill()
        orphan.wait()


def test_a_stranger_who_got_the_pid_is_left_alone(tmp_path: Path):
    """A process without the marker is none of ours."""
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", f"marker={tmp_path / 'sleeper-2'}"])
    try:
        (tmp_path / "sleeper.pid").write_text(f"{stranger.pid}\n")
        make(tmp_path).stop_orphan()
        assert stranger.poll() is None
        assert not (tmp_path / "sleeper.pid").exists()
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("text", ["", "x", "-5", "0", "99999999999999999999"])
def test_a_broken_pid_file_is_no_obstacle(tmp_path: Path, text: str):
    """A crash may leave anything."""
    (tmp_path / "sleeper.pid").write_text(text)
    make(tmp_path).stop_orphan()
    assert not (tmp_path / "sleeper.pid").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_a_child_does_not_outlive_a_killed_parent(tmp_path: Path):
    """Also when it was started in a thread that ended long before."""
    code = f"""
import os, signal, sys, threading, time
from pathlib import Path
from streams.local.child import Child
child = Child("sleeper", Path({str(tmp_path)!r}, "sleeper.pid"), Path({str(tmp_path)!r}, "sleeper.log"), "marker")
thread = threading.Thread(target=lambda: child.start([sys.executable, "-c", "import time; time.sleep(60)", "marker"], cwd=Path("/")))
thread.start(); thread.join(); time.sleep(0.3)
print(child.pid, child.exit_code, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False, cwd=Path(__file__).parents[2])
    pid, exit_code = done.stdout.split()
    assert exit_code == "None", "it was alive after its thread had ended"
    until = time.monotonic() + 5
    while is_running(int(pid)) and time.monotonic() < until:
        time.sleep(0.02)
    assert not is_running(int(pid))


def test_a_log_over_the_limit_is_set_aside_under_its_writer(tmp_path: Path):
    """Exactly at the limit it stays; one byte over, the writer goes on in an empty file."""
    log = tmp_path / "x.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"a" * 10)
        bound_log(log, 10)
        assert log.stat().st_size == 10
        writer.write(b"b")
        bound_log(log, 10)
        assert (tmp_path / "x.log.1").read_bytes() == b"a" * 10 + b"b"
        writer.write(b"c")
    assert log.read_bytes() == b"c"


def test_a_port_that_is_taken_is_told_in_one_line():
    """With who wanted it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Stop, match=f"^port {port} for Kafka cannot be used: Address already in use$"):
            require_free_port(port, "Kafka")


def test_a_free_port_can_be_had():
    """And is above the privileged ones."""
    port = free_port()
    require_free_port(port, "anything")
    assert port > 1023

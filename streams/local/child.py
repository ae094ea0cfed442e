"""A program that belongs to a data directory: started on a leash, found again after a crash, stopped for certain."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from models.errors import Stop
from streams.local.whole import write_whole

LOOPBACK = "127.0.0.1"
LOG_LIMIT = 16 * 1024 * 1024  # bytes a log may reach before it is set aside, one generation of it being kept
KILL_WAIT_SECONDS = 5.0
PORT_SECONDS = 1.0

# The leash is tied to the *thread* that starts a child; this one lives as long as the process does.
_starter = ThreadPoolExecutor(1, thread_name_prefix="child-starter")


@dataclass(frozen=True, slots=True)
class User:
    """The user a child runs as."""

    uid: int
    gid: int


@dataclass(slots=True)
class Child:
    """One program and the files that tell about it.

    Attributes:
        name: What people call it: ``kafka``, ``monitor-0``.
        pid_file: Remembers the process over a crash of its supervisor.
        log: Where its output goes.
        marker: One argument of its command line, whole, that no other program's has: tells it from one that got its pid later.
        death_signal: What the kernel sends it when its supervisor dies.
    """

    name: str
    pid_file: Path
    log: Path
    marker: str
    death_signal: signal.Signals = signal.SIGKILL
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def pid(self) -> int | None:
        """The running program's pid; None when it isn't running."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def exit_code(self) -> int | None:
        """How the program ended (negative: by that signal); None while it runs or before it was started."""
        return None if self._process is None else self._process.poll()

    def start(self, command: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str] | None = None, user: User | None = None) -> None:
        """Start the program; what an earlier supervisor left running of it is stopped first.

        Args:
            command: Program and arguments; one of them is ``marker``.
            cwd: Working directory.
            env: Its whole environment; this process's when None.
            user: Who it runs as; this process's user when None.
        """
        self.stop_orphan()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        bound_log(self.log)
        uid, gid = (user.uid, user.gid) if user else (-1, -1)
        tether = Path(__file__).with_name("tether.py")
        argv = [sys.executable, "-I", "-S", str(tether), str(os.getpid()), str(int(self.death_signal)), str(uid), str(gid), "--", *map(str, command)]
        with self.log.open("ab") as log:
            self._process = _starter.submit(
                subprocess.Popen, argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=cwd, env=None if env is None else dict(env), start_new_session=True
            ).result()
        write_whole(self.pid_file, f"{self._process.pid}\n")

    def stop(self, *steps: tuple[signal.Signals, float]) -> None:
        """Ask it to end, less and less politely, and at last make it; returns when it is gone.

        Args:
            steps: Signals, each with the seconds that it gets to take effect. SIGKILL follows by itself.
        """
        process = self._process
        if process is None:
            return
        for number, seconds in (*steps, (signal.SIGKILL, KILL_WAIT_SECONDS)):
            if process.poll() is not None:
                break
            process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
        self.pid_file.unlink(missing_ok=True)

    def stop_orphan(self) -> None:
        """Kill what the pid file names, if it still runs and is ours: its supervisor is gone, so nobody else will."""
        try:
            orphan = psutil.Process(int(self.pid_file.read_text()))
            if self.marker in orphan.cmdline():
                end_process(orphan, self.death_signal)
        except (OSError, ValueError, psutil.NoSuchProcess):
            pass
        except psutil.AccessDenied as error:
            raise Stop(f"{self.name} of an earlier run is still there (pid {error.pid}) and belongs to another user: stop it first") from None
        self.pid_file.unlink(missing_ok=True)

    def last_words(self, lines: int = 3) -> str:
        """The end of its log, on one line, for an error message."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - 8192))
                text = log.read().decode("utf-8", "replace")
        except OSError:
            return ""
        return " | ".join(line.strip() for line in text.splitlines()[-lines:] if line.strip())

    def wait_until(self, is_ready: Callable[[], bool], timeout: float) -> None:
        """Wait until ``is_ready`` says so, asked twenty times a second.

        Raises:
            Stop: It ended instead, or took longer than ``timeout`` seconds; the message has the end of its log.
        """
        until = time.monotonic() + timeout
        while not is_ready():
            if self.pid is None:
                raise Stop(f"{self.name} ended at its start (exit code {self.exit_code}), see {self.log}: {self.last_words()}")
            if time.monotonic() > until:
                raise Stop(f"{self.name} is not ready after {timeout:g} s, see {self.log}: {self.last_words()}")
            time.sleep(0.05)


def end_process(process: psutil.Process, first: signal.Signals = signal.SIGKILL) -> None:
    """End a process that is not our child: ``first``, after 5 s SIGKILL. Returns when it is gone, or a zombie that nobody reaps."""
    for number in (first, signal.SIGKILL):
        process.send_signal(number)
        until = time.monotonic() + KILL_WAIT_SECONDS
        while time.monotonic() < until:
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return
            time.sleep(0.02)


def bound_log(log: Path, limit: int = LOG_LIMIT) -> None:
    """Set a log aside as ``<name>.1`` once it is over ``limit`` bytes, without its writer (who appends) noticing."""
    with contextlib.suppress(OSError):
        if log.stat().st_size > limit:
            log.with_name(f"{log.name}.1").write_bytes(log.read_bytes())
            os.truncate(log, 0)


def require_free_port(port: int, what: str) -> None:
    """Check that nobody listens on ``port`` of the loopback address, with a second's patience: a killed process lets go of its own a little later.

    Raises:
        Stop: Somebody does, or the port cannot be used.
    """
    until = time.monotonic() + PORT_SECONDS
    while (problem := _port_problem(port)) is not None:
        if time.monotonic() > until:
            raise Stop(f"port {port} for {what} cannot be used: {problem}")
        time.sleep(0.05)


def _port_problem(port: int) -> str | None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except (OSError, OverflowError) as error:
            return getattr(error, "strerror", None) or str(error)
    return None


def free_port() -> int:
    """A port of the loopback address that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port

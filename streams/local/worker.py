"""One worker of the project as a child process of `early-kill up`."""

from __future__ import annotations

import http.client
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from streams.addresses import base_url
from streams.local.child import LOOPBACK, Child

READY_FILE_VARIABLE = "EARLY_KILL_READY_FILE"
"""Names the file that a worker creates once it is ready; the same for both roles."""
PROGRAM = ("-m", "streams.cli")
STOP_SECONDS = 7.0
ANSWER_SECONDS = 2.0


class WorkerProcess:
    """``early-kill worker``: a monitor that serves on ``web_port``, or a sink (None).

    Args:
        name: ``monitor-0``, ``sink``.
        run_dir: Holds pid and readiness files.
        log: Where its output goes.
        environment: Its whole environment, but for what is its own: port, URL and readiness file.
        host: Address it is asked for readiness on; part of its URL.
        token: Bearer token to ask with, if the API wants one.
        sink_port: Where a sink serves its health and metrics.
    """

    def __init__(
        self,
        name: str,
        *,
        run_dir: Path,
        log: Path,
        environment: Mapping[str, str],
        web_port: int | None = None,
        host: str = LOOPBACK,
        token: str | None = None,
        sink_port: int | None = None,
    ) -> None:
        self.role: Literal["monitor", "sink"] = "sink" if web_port is None else "monitor"
        self.web_port = web_port
        self.host = host
        self._token = token
        self._ready_file = run_dir / f"{name}.ready"
        self._environment = {**environment, READY_FILE_VARIABLE: str(self._ready_file)}
        if web_port is not None:
            self._environment |= {"EARLY_KILL_WEB_PORT": str(web_port), "EARLY_KILL_WEB_URL": self.url}
        if sink_port is not None:
            self._environment["EARLY_KILL_SINK_WEB_PORT"] = str(sink_port)
        self.sink_port = sink_port
        self.child = Child(name, run_dir / f"{name}.pid", log, marker(run_dir, name))

    @property
    def url(self) -> str:
        """Base URL of its HTTP API."""
        return base_url(self.host, self.web_port)

    @property
    def metrics_url(self) -> str:
        """Where it serves its metrics."""
        return base_url(self.host, self.web_port or self.sink_port) + "/metrics"

    def start(self) -> None:
        """Start it and return at once."""
        self._ready_file.unlink(missing_ok=True)
        command = [sys.executable, "-X", self.child.marker, *PROGRAM, "worker", "--role", self.role]
        if self.web_port is not None:
            command += ["--web-port", str(self.web_port)]
        self.child.start(command, cwd=Path.cwd(), env=self._environment)

    def is_ready(self) -> bool:
        """Whether it says that it does its work: by its file, a monitor over HTTP too, which is asked only then."""
        return self.child.pid is not None and self._ready_file.exists() and (self.role == "sink" or self._answers_ready())

    def stop(self) -> None:
        """Let it finish what it has in hand; kill it if that takes over 7 s."""
        self.child.stop((signal.SIGTERM, STOP_SECONDS))
        self._ready_file.unlink(missing_ok=True)

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would."""
        self.child.stop()

    def _answers_ready(self) -> bool:
        connection = http.client.HTTPConnection(self.host, self.web_port, timeout=ANSWER_SECONDS)
        try:
            connection.request("GET", "/ready", headers={"Authorization": f"Bearer {self._token}"} if self._token else {})
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def marker(run_dir: Path, name: str) -> str:
    """The ``-X`` option that tells this worker of this data directory from all other processes."""
    return f"early_kill_part={run_dir / name}"

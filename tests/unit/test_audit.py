"""The audit of the dependencies in CI."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import distributions
from pathlib import Path
from threading import Thread

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def audit(url: str) -> subprocess.CompletedProcess[str]:
    """Ask the database at this address."""
    return subprocess.run([ROOT / ".ci" / "audit"], env={**os.environ, "OSV_URL": url}, capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def refusing() -> Iterator[str]:
    """A proxy on the way that lets nothing through."""

    class Refuse(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_error(403)

        def log_message(self, *_: object) -> None:
            """Be quiet."""

    server = HTTPServer(("127.0.0.1", 0), Refuse)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("is_there", [False, True])
def test_a_database_that_cannot_be_asked_is_said_and_fails_nothing(is_there: bool):
    """One line. Nobody's network is the project's fault."""
    with refusing() as url:
        run = audit(url if is_there else "http://127.0.0.1:9/")
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (0, "", 1)
    assert run.stderr.startswith("dependencies are not audited, the database of vulnerabilities cannot be reached: ")


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt", "requirements-audit.txt"])
def test_every_dependency_is_pinned_with_hashes(name: str):
    """To one version each, so that what is audited is what is installed; the audit itself too."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    pins = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert pins
    for pin in pins:
        assert re.match(r"[\w.-]+(\[[\w, -]+\])?==[\w.!+]+ ", pin), pin
        assert "--hash=sha256:" in pin, pin
    assert name in (ROOT / ".ci" / "audit").read_text().split()


def test_extras_that_a_dependency_asks_for_are_pinned_too():
    """Pip takes the newest version of ``name[extra]``, which no hash is known of, where only ``name`` is pinned: the set-up fails on the day that one is released."""
    pinned = {pin.name: pin.extras for pin in map(Requirement, re.findall(r"^[\w.-]+(?:\[[\w, -]+\])?(?===)", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE))}
    wanted = [Requirement(text) for dist in distributions() if dist.name in pinned for text in dist.requires or ()]
    asked = [one for one in wanted if one.extras and one.name in pinned and (one.marker is None or one.marker.evaluate({"extra": ""}))]
    assert [str(one) for one in asked if not one.extras <= pinned[one.name]] == []
    assert asked

"""A program that is measured: run to its end, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from models.errors import Stop
from streams.local import tether


async def run_program(command: Sequence[str | Path], *, log: Path, cwd: Path | None = None, seconds: float = 900, environment: Mapping[str, str] | None = None) -> str:
    """Run a program to its end; return what it wrote on stdout.

    Args:
        command: Program and arguments.
        log: Gets what it writes on stderr.
        cwd: Working directory; this process's when None.
        seconds: It is killed when it runs for longer.
        environment: Its whole environment; this process's when None.

    Raises:
        Stop: It failed, or ran for too long; the message has the end of its log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    leash = (sys.executable, "-I", "-S", tether.__file__, os.getpid(), int(signal.SIGKILL), -1, -1, "--")  # it does not outlive this process, however that ends
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *map(str, [*leash, *command]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=cwd,
            env=None if environment is None else dict(environment),
            start_new_session=True,
        )
    written = b""
    problem = ""
    try:
        written, _ = await asyncio.wait_for(process.communicate(), seconds)
    except TimeoutError:
        problem = f"ran for over {seconds:g} s"
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode != 0:
        raise Stop(f"{log.stem} {problem or f'failed (exit code {process.returncode})'}: {_end(log)}")
    return written.decode()


def _end(log: Path) -> str:
    return " | ".join(line for line in log.read_text(errors="replace").splitlines()[-5:] if line.strip())

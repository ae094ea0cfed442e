"""Tests run in several processes (``pytest -n 2``), beside each other but for those that want the whole machine: marked ``alone``."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Turns:
    """Who may run now: any number of tests beside each other, or one that is alone. Processes agree by locks on two files.

    Args:
        directory: Where the files are, the same for all processes. Locks of a process that dies are gone with it.
    """

    def __init__(self, directory: Path) -> None:
        self._gate = os.open(directory / "gate", os.O_CREAT | os.O_RDWR, 0o600)
        self._machine = os.open(directory / "machine", os.O_CREAT | os.O_RDWR, 0o600)
        self._is_alone = False

    def take(self, *, alone: bool) -> None:
        """Wait until this process may run a test. One that has the machine for itself keeps it."""
        if self._is_alone and alone:
            return
        self.give_back()
        fcntl.flock(self._gate, fcntl.LOCK_EX)  # those who come later wait behind one who waits to be alone
        try:
            fcntl.flock(self._machine, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        finally:
            fcntl.flock(self._gate, fcntl.LOCK_UN)
        self._is_alone = alone

    def give_back(self) -> None:
        """Let others have the machine."""
        fcntl.flock(self._machine, fcntl.LOCK_UN)
        self._is_alone = False

"""Secrets that stand in files: what is in them, and that nobody else can read it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from models.errors import Stop

LONGEST_BYTES = 65_536
_OF_OTHERS = 0o027  # to write for the group, or anything at all for the rest; systems that hand secrets out often let a group read


def read_secret(path: Path, name: str) -> str:
    """Return what a file holds, without blanks and line ends around it.

    Args:
        path: The file, of at most 64 KiB.
        name: Of the setting that names it, for errors.

    Raises:
        Stop: It cannot be read, is empty, too long or not UTF-8, or other users may read it or write to it. The text never quotes it.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(LONGEST_BYTES + 1)
    except OSError as error:
        raise Stop(f"{name} cannot be read: {error.strerror}: {path}") from None
    if mode & _OF_OTHERS:
        raise Stop(f"{name}: other users can get at {path} (mode {mode:04o}): chmod 600 it")
    if len(content) > LONGEST_BYTES:
        raise Stop(f"{name}: {path} is longer than {LONGEST_BYTES:,} bytes")
    try:
        secret = content.decode().strip()
    except UnicodeDecodeError:
        raise Stop(f"{name} cannot be read: it is not UTF-8: {path}") from None
    if not secret:
        raise Stop(f"{name}: there is nothing in {path}")
    return secret


def read_tokens(path: Path, name: str) -> frozenset[str]:
    """Return the tokens in a file, one a line; there is one at least. Arguments and errors as ``read_secret``."""
    return frozenset(line.strip() for line in read_secret(path, name).splitlines() if line.strip())

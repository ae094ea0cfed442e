"""The bearer tokens that count right now, as digests: those of the environment, and those in files, which may change."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable
from enum import IntEnum
from pathlib import Path

from models.errors import Stop
from streams.secret_files import read_tokens
from streams.settings import Settings

log = logging.getLogger(__name__)

LOOK_AGAIN_SECONDS = 1.0
"""How long a file of tokens is taken to be what it was."""


class Scope(IntEnum):
    """What a call needs, and what a token grants; a higher one includes the lower."""

    OPEN = 0
    READ = 1
    OPERATE = 2


def digest(token: str) -> bytes:
    """Return what is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


class Tokens:
    """All tokens with their scopes.

    Args:
        settings: Where they are.
        clock: Seconds, monotonic.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._fixed = [
            *_with(Scope.READ, (token.get_secret_value() for token in settings.read_tokens)),
            *_with(Scope.OPERATE, (token.get_secret_value() for token in settings.operate_tokens)),
        ]
        files = ((Scope.READ, settings.read_tokens_file, "EARLY_KILL_READ_TOKENS_FILE"), (Scope.OPERATE, settings.operate_tokens_file, "EARLY_KILL_OPERATE_TOKENS_FILE"))
        self._files = [_TokenFile(scope, path, name) for scope, path, name in files if path is not None]
        self._clock = clock
        self._looked_at = -LOOK_AGAIN_SECONDS

    @property
    def are_configured(self) -> bool:
        """Whether there are any, or a file for some: one that holds none at the moment closes the API, and does not open it."""
        return bool(self._fixed or self._files)

    def known(self) -> list[tuple[Scope, bytes]]:
        """Return each token's scope and digest. Files are looked at once a second; what cannot be used of them grants nothing."""
        now = self._clock()
        if self._files and now - self._looked_at >= LOOK_AGAIN_SECONDS:
            self._looked_at = now
            for file in self._files:
                file.refresh()
        return [*self._fixed, *(token for file in self._files for token in file.tokens)]


class _TokenFile:
    def __init__(self, scope: Scope, path: Path, name: str) -> None:
        self._scope, self._path, self._name = scope, path, name
        self._version: tuple[int, ...] | None = None
        self.tokens: list[tuple[Scope, bytes]] = []

    def refresh(self) -> None:
        """Read it again if it is another one, or has changed."""
        version = self._current_version()
        if version == self._version:
            return
        is_first, self._version = self._version is None, version
        try:
            self.tokens = _with(self._scope, read_tokens(self._path, self._name))
        except Stop as error:
            self.tokens = []
            log.warning("no token of this file counts now: %s", error)
        else:
            if not is_first:
                log.info("%s has changed: %d tokens", self._name, len(self.tokens))

    def _current_version(self) -> tuple[int, ...]:
        try:
            found = self._path.stat()
        except OSError:
            return ()
        return (found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode)


def _with(scope: Scope, tokens: Iterable[str]) -> list[tuple[Scope, bytes]]:
    return [(scope, digest(token)) for token in tokens]

"""Connections to PostgreSQL whose refusals carry the server's SQLSTATE: psycopg passes on its words only, in whatever language those are.

libpq has no call for the code either, but writes it where it traces the protocol. So a connection that was refused is tried once more,
with a trace.
"""

from __future__ import annotations

import asyncio
import os
import re
import select
import time
from collections.abc import Callable, Mapping
from typing import Any

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

LOOK_SECONDS = 2.0
"""How long it may take to find a code out."""
PAUSE_SECONDS = 60.0
"""Shortest time from one look to the next: each costs some KiB that psycopg never gives back."""

_CODE = re.compile(rb'\tB\t\d+\tErrorResponse\t S "[^"]*" V "[^"]*" C "([0-9A-Z]{5})"')
_UNCONNECTED = (pq.ConnStatus.STARTED, pq.ConnStatus.ALLOCATED, pq.ConnStatus.NEEDED, pq.ConnStatus.BAD)


class Connector:
    """Makes connections.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looked_at = float("-inf")

    async def connect(self, parameters: Mapping[str, Any]) -> psycopg.AsyncConnection[Any]:
        """Return a connection.

        Raises:
            psycopg.OperationalError: There is none to be had; with ``sqlstate`` if the server said why and that could be found out.
        """
        try:
            return await psycopg.AsyncConnection.connect(**parameters)
        except psycopg.errors.ConnectionTimeout:
            raise
        except psycopg.OperationalError as error:
            if error.sqlstate is None and self._clock() - self._looked_at >= PAUSE_SECONDS:
                error.sqlstate = await asyncio.to_thread(self._look, make_conninfo(**parameters))
            raise

    def _look(self, conninfo: str) -> str | None:
        """Be refused once more; None if that says nothing, or different things."""
        if not hasattr(os, "memfd_create"):
            return None
        connection = pq.PGconn.connect_start(conninfo.encode())
        trace = os.memfd_create("trace", os.MFD_CLOEXEC)  # in memory only: it holds the handshake
        try:
            if not self._follow(connection, trace):
                return None
            codes = set(_CODE.findall(os.pread(trace, 1 << 20, 0)))
            return codes.pop().decode() if len(codes) == 1 else None
        except (psycopg.Error, OSError, ValueError):
            return None
        finally:
            connection.finish()
            os.close(trace)

    def _follow(self, connection: pq.abc.PGconn, trace: int) -> bool:
        """Connect as far as it goes; say whether the server answered at all."""
        until = time.monotonic() + LOOK_SECONDS
        is_traced = False
        try:
            while (status := connection.connect_poll()) in (pq.PollingStatus.READING, pq.PollingStatus.WRITING):
                if not is_traced and connection.status not in _UNCONNECTED:
                    self._looked_at = self._clock()
                    connection.trace(trace)
                    is_traced = True
                ready = ([connection.socket], []) if status == pq.PollingStatus.READING else ([], [connection.socket])
                if not any(select.select(*ready, [], max(0.0, until - time.monotonic()))):
                    break
        finally:
            if is_traced:
                connection.untrace()
        return is_traced

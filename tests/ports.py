"""Ports for servers that tests start, kill and start again."""

from __future__ import annotations

import random
import socket

LOOPBACK = "127.0.0.1"
FIRST, LAST = 15_000, 30_000

_given: set[int] = set()


def steady_port() -> int:
    """A free port below the range that outgoing connections are given, so that it stays free while its server is dead; nobody else in this process gets it."""
    while True:
        port = random.randint(FIRST, LAST)
        with socket.socket() as probe:
            if port not in _given and probe.connect_ex((LOOPBACK, port)) != 0:
                _given.add(port)
                return port

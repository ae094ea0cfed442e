"""Addresses of servers: which are this machine's own, and how a URL names them."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Say whether ``host``, a name or an address, stands for this machine wherever it is used, so that nothing leaves it."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_every_address(host: str) -> bool:
    """Say whether a server that listens on ``host`` listens on every address of its machine: nobody elsewhere can reach it under this one."""
    try:
        return host == "" or ipaddress.ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        return False


def base_url(host: str, port: int | None) -> str:
    """Return the URL of an HTTP server; an IPv6 address stands in brackets there."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"

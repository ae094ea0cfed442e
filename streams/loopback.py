"""Which addresses are this machine's own, and no other's."""

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

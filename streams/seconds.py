"""Moments of the usual form, ``2019-11-29T12:45:13.822505Z``: their whole seconds are remembered, for neighbours share them."""

from __future__ import annotations

from models.errors import Reject
from models.moments import parse_moment

USUAL_LENGTH = len("2019-11-29T12:45:13.822505Z")
KEPT = 100_000


class WholeSeconds(dict[str, int]):
    """Microseconds since the epoch by ``2019-11-29T12:45:13.``, the dot included; reads what it does not know yet.

    Raises:
        Reject: There is no such moment.
    """

    def __missing__(self, prefix: str) -> int:
        """Read and remember a second; all are forgotten once there are ``KEPT``."""
        if prefix[-1:] != ".":
            raise Reject("is not a moment (RFC 3339 with an offset, or a Unix time)")
        if len(self) >= KEPT:
            self.clear()
        moment = self[prefix] = parse_moment(prefix[:-1] + "Z")
        return moment


whole_seconds = WholeSeconds()

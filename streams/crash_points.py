"""Named places at which a worker can be made to die, so that tests need not wait for a crash to hit them.

``CRASH_AT=<name>:<n>`` in a worker's environment ends it with SIGKILL when it comes to that place for the n-th time. For tests only;
without it each place is a call that does nothing.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from models.errors import Stop

VARIABLE = "CRASH_AT"

MONITOR_POINTS = {
    "after_read": "records are in hand, none is folded",
    "after_fold": "they are folded, nothing of it is durable",
    "before_kill_send": "a kill is decided, and not sent",
    "after_send": "starts or ends are handed to the network",
    "after_end_ack": "an end is acknowledged, and not noted as such",
    "after_latch": "an end's state is durable, and nobody told",
    "after_dead_letters": "dead letters are acknowledged, no state is written",
    "after_state_write": "states of sessions are durable, waiting interactions not",
    "before_ack": "all is durable, no record is done",
    "after_ack": "records are done, their offsets not committed",
    "before_offset_commit": "offsets are about to be committed",
    "after_offset_commit": "offsets are committed",
}
SINK_POINTS = {
    "sink_after_read": "records are in hand",
    "before_begin": "before the transaction",
    "after_sessions_statement": "sessions are written, in an open transaction",
    "after_audit_statement": "their audit rows too",
    "after_pool_statement": "rows of the pool too",
    "after_posts_statement": "posts too",
    "before_commit": "all is written, nothing committed",
    "after_commit": "committed, and nobody knows",
    "sink_before_ack": "written, the records not done",
    "before_offset_commit": "offsets are about to be committed",
    "after_offset_commit": "offsets are committed",
}


def _pass_by(_name: str) -> None:
    """Do nothing."""


def armed(order: str | None) -> Callable[[str], None]:
    """Return what is called at each place.

    Args:
        order: ``<name>:<n>``, n from 1; nothing for workers that are to live.

    Raises:
        Stop: There is no such place, or no such n.
    """
    if not order:
        return _pass_by
    wanted, _, count = order.partition(":")
    if wanted not in MONITOR_POINTS | SINK_POINTS or not count.isdecimal() or int(count) < 1:
        raise Stop(f"{VARIABLE}={order}: has to be <name>:<n>, n from 1; names are {', '.join(sorted(MONITOR_POINTS | SINK_POINTS))}")
    left = int(count)

    def count_down(name: str) -> None:
        nonlocal left
        if name == wanted:
            left -= 1
            if left == 0:
                os.write(2, f"dies at {order}\n".encode())
                os.kill(os.getpid(), signal.SIGKILL)

    return count_down


crash_point = armed(os.environ.get(VARIABLE))
"""Called with its name at each place."""

"""Takes one safeguard out of a worker, as ``SABOTAGE`` says: a harness that then finds nothing proves nothing. Python runs this at its start."""

from __future__ import annotations

import os
import re
import sys
from typing import Any

sys.path.insert(0, os.getcwd())  # noqa: PTH109 - Path would do nothing else


def without_offset_guard() -> None:
    """What was applied before a crash is applied again."""
    from models import state

    decode = state.decode_session

    def forgetful(*arguments: Any) -> Any:
        session = decode(*arguments)
        session.applied = -1
        return session

    state.decode_session = forgetful


def without_repetition() -> None:
    """What an earlier process may not have told is not told again."""
    from models.monitor import PartitionMonitor

    restore = PartitionMonitor.restore

    def silent(self: PartitionMonitor, *arguments: Any) -> None:
        restore(self, *arguments)
        self.emissions.clear()

    PartitionMonitor.restore = silent  # type: ignore[method-assign]


def without_on_conflict() -> None:
    """A session that is written twice is inserted twice."""
    from sqlalchemy import text

    from streams import persistence

    persistence._WRITE_SESSIONS = text(re.sub(r"ON CONFLICT.*?(?=RETURNING)", "", persistence._WRITE_SESSIONS.text, flags=re.DOTALL))


def without_awaited_send() -> None:
    """Kills, records and dead letters that are handed to the network count as arrived. State does not: no worker would start."""
    from streams.delivery import KafkaLog, Sent

    delivered = KafkaLog.delivered

    async def at_once(self: KafkaLog, sent: Sent) -> bool:
        return not sent.topic.endswith("-changelog") or await delivered(self, sent)

    KafkaLog.delivered = at_once  # type: ignore[method-assign]


def without_accounting() -> None:
    """One interaction of each chunk is gone before it is folded, and no result tells of it."""
    from streams import folding, partition

    posted, interactions, stops = folding.FOLDS

    def wasteful(monitor: Any, topic: str, records: Any, *others: Any) -> Any:
        return interactions(monitor, topic, records[1:], *others)

    partition.FOLDS = (posted, wasteful, stops)


SAFEGUARDS = {
    "offset-guard": without_offset_guard,
    "repetition": without_repetition,
    "on-conflict": without_on_conflict,
    "awaited-send": without_awaited_send,
    "accounting": without_accounting,
}

if os.environ.get("SABOTAGE"):
    SAFEGUARDS[os.environ["SABOTAGE"]]()

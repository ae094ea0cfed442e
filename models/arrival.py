"""A session that is about to be taken in: what waited for it comes first, a part at a time if it is very much."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from models.session import Result, Session
from models.waiting import Waiter

Resolved = tuple[Result, bool]
"""The result that a waiting record has got in the end, and whether an earlier process had read it."""


@dataclass(slots=True)
class Arrival:
    """Nobody knows of the session yet, and all its interactions still wait: whoever stops in between leaves nothing half done.

    Attributes:
        session: The session.
        waiters: All that waited for it, in order of arrival.
        applied: How many of them it has got.
        resolved: What became of those.
    """

    session: Session
    waiters: list[Waiter]
    applied: int = 0
    resolved: Counter[Resolved] = field(default_factory=Counter)

    def apply(self, limit: int, topic: str, partition: int, now: int, grace: int) -> bool:
        """Count up to ``limit`` more of them, as ``Session.count`` does; return True once it has got all."""
        part = self.waiters[self.applied : self.applied + limit]
        for waiter in part:
            result = self.session.count(waiter.event, waiter.offset, waiter.append_us, topic, partition, now, grace)
            self.resolved[result, waiter.restored] += 1
        self.applied += len(part)
        return self.applied == len(self.waiters)

"""Fetches that leave Kafka time to gather records.

Each costs this process 2 to 3 ms of Python, and the broker about as much, whatever is in it. aiokafka sends the next one as
soon as the last one's records are taken, so that a thousand events a second come in 180 fetches.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.subscription_state import Assignment

REST_A_RECORD = 0.002
"""Seconds from one fetch to the next for each record that the last one brought: where they come one by one, none waits for another."""
LONGEST_REST = 0.005
"""Seconds from one fetch to the next at most."""


class Pace:
    """How soon one fetch follows the other.

    Args:
        clock: Seconds that only go forward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sent, self._rest = -math.inf, 0.0
        self._fetcher: Fetcher | None = None

    def found(self, records: int) -> None:
        """Note what the last fetch has brought."""
        self._rest = min(LONGEST_REST, records * REST_A_RECORD)

    def set(self, fetcher: Fetcher) -> None:
        """Have ``fetcher`` keep this pace, unless it does."""
        if fetcher is self._fetcher:
            return
        self._fetcher, stock = fetcher, fetcher._get_actions_per_node  # noqa: SLF001 - what aiokafka asks before each fetch; likewise below

        def actions(assignment: Assignment) -> tuple[Any, ...]:
            """Say what to do now: fetches, resets of positions, seconds until the next look at the latest, whether metadata is old, whom else to wait for."""
            left = self._sent + self._rest - self._clock()
            if left > 0:
                return [], {}, left, False, []
            found = stock(assignment)
            if found[0]:
                self._sent = self._clock()
            return found  # type: ignore[no-any-return]

        fetcher._get_actions_per_node = actions  # noqa: SLF001

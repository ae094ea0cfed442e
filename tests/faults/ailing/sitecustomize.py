"""Lets a test make a worker ill. Python runs this at its start.

SIGRTMIN holds its event loop up for ``STALL_SECONDS``, SIGRTMIN + 1 the whole interpreter. SIGRTMIN + 2 ends aiokafka's
fetching, SIGRTMIN + 3 its heartbeats, each by an error that it does not expect. With ``FORGOTTEN_TOPICS``, a pattern, it knows
nothing of these topics when it first shares out its group's partitions, as when Kafka has not told it of them in time. ``IDLE_TIMES``
is how many seconds without a fetch each of them counts for.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import time
from typing import Any, NoReturn

if os.environ.get("STALL_SECONDS"):
    seconds = float(os.environ["STALL_SECONDS"])
    signal.signal(signal.SIGRTMIN, lambda *_: time.sleep(seconds))  # other threads go on
    signal.signal(signal.SIGRTMIN + 1, lambda *_: ctypes.PyDLL(None).sleep(round(seconds)))  # a PyDLL keeps the interpreter's lock


def _fail(*_: Any) -> NoReturn:
    raise RuntimeError("made to fail")


def _end_fetching(*_: Any) -> None:
    from aiokafka.consumer.fetcher import Fetcher

    Fetcher._proc_fetch_request = _fail


def _end_heartbeats(*_: Any) -> None:
    from aiokafka.consumer.group_coordinator import GroupCoordinator

    GroupCoordinator._do_heartbeat = _fail


signal.signal(signal.SIGRTMIN + 2, _end_fetching)
signal.signal(signal.SIGRTMIN + 3, _end_heartbeats)


def _forget_topics(pattern: str) -> None:
    from aiokafka.consumer.group_coordinator import GroupCoordinator

    share_out = GroupCoordinator._perform_assignment

    async def share_out_what_is_known(self: GroupCoordinator, response: Any) -> Any:
        GroupCoordinator._perform_assignment = share_out
        wait = self._client._maybe_wait_metadata

        async def wait_and_forget() -> None:
            await wait()
            known = self._cluster._partitions
            for topic in [topic for topic in known if re.search(pattern, topic)]:
                del known[topic]

        self._client._maybe_wait_metadata = wait_and_forget
        try:
            return await share_out(self, response)
        finally:
            del self._client._maybe_wait_metadata

    GroupCoordinator._perform_assignment = share_out_what_is_known


def _count_idle_seconds(times: float) -> None:
    from aiokafka.consumer.subscription_state import SubscriptionState

    plain = SubscriptionState.fetcher_idle_time.fget
    SubscriptionState.fetcher_idle_time = property(lambda self: plain(self) * times)


if os.environ.get("IDLE_TIMES"):
    _count_idle_seconds(float(os.environ["IDLE_TIMES"]))
if os.environ.get("FORGOTTEN_TOPICS"):
    _forget_topics(os.environ["FORGOTTEN_TOPICS"])

"""What a worker does again and again beside its records, and PostgreSQL or Kafka may keep it from."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from models.errors import Reject, Retry

AWAY_SECONDS = 2.0
"""Pause before another try while what it needs is away."""

log = logging.getLogger(__name__)


async def keep_doing(what: str, step: Callable[[], Awaitable[float]], fail: Callable[[BaseException], None], sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
    """Do ``step`` until cancelled, with the pause in seconds that it returns. What keeps it from it is waited out, with one line each way.

    Args:
        what: In a few words, as the subject of a line in the log.
        step: Raises ``Retry`` for what passes, and ``Reject`` for rows that PostgreSQL refuses to change: no reason to stop writing records.
        fail: Called with any other error.
        sleep: Pauses for seconds.
    """
    is_away = False
    while True:
        try:
            pause = await step()
        except (Retry, Reject) as error:
            if not is_away:
                log.warning("%s has to wait: %s", what, error)
            is_away, pause = True, AWAY_SECONDS
        except Exception as error:  # noqa: BLE001 - handed to whoever stops the worker
            fail(error)
            return
        else:
            if is_away:
                log.info("%s goes on", what)
            is_away = False
        await sleep(pause)

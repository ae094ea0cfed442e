"""The audit trail of what callers asked for: written to the database on the side, and logged when that is away."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any

from models.errors import EarlyKillError
from streams.web.ports import StorePort

logger = logging.getLogger(__name__)

_PATIENCE_SECONDS = 5.0
_MOST_AT_ONCE = 100


class Trail:
    """Writes audit rows without keeping callers waiting. ``drain`` it before the loop ends."""

    def __init__(self, store: StorePort) -> None:
        self._store = store
        self._writing: set[asyncio.Task[None]] = set()

    def note(self, *, actor: str, action: str, variant_id: str | None, request_id: str, session_id: str | None = None, facts: Mapping[str, Any] | None = None) -> None:
        """Record who did or tried what. If PostgreSQL is away, or too many rows wait for it, the log has the row instead."""
        row = {"actor": actor, "action": action, "session_id": session_id, "variant_id": variant_id, "request_id": request_id, "facts": dict(facts or {})}
        if len(self._writing) >= _MOST_AT_ONCE:
            _log(row, "too many wait")
            return
        task = asyncio.create_task(self._write(row))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _write(self, row: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._store.audit(**row)
        except (EarlyKillError, TimeoutError) as error:
            _log(row, str(error) or "timed out")
        except Exception as error:  # the trail must never fail what it records
            logger.exception("audit row not written")
            _log(row, type(error).__name__)

    async def drain(self) -> None:
        """Wait until all rows are written or logged."""
        while self._writing:
            await asyncio.gather(*self._writing)


def _log(row: Mapping[str, Any], why: str) -> None:
    logger.warning("audit row not written (%s): %s", " ".join(why.split()), json.dumps(row))  # ASCII, so no newline gets through

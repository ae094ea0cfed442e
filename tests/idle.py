"""A monitor without topics, tables or anything to do, for tests of one part of it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from models.monitor import Limits
from models.policy import Defaults
from streams.monitoring import Monitoring
from streams.ports import Tables, Topics

NAMES = Topics("variant_posted", "interaction", "monitoring_control", "variant_killed", "monitoring_record", "dead_letter")


def idle_monitoring(consumer: Any, *, flush_seconds: float = 1.0, fail: Callable[[BaseException], None] = lambda _error: None) -> Monitoring:
    """Make a ``Monitoring`` that has a consumer, and stand-ins for all else."""
    nothing: Any = SimpleNamespace()
    app: Any = SimpleNamespace(consumer=consumer, rebalancing=False)
    return Monitoring(
        app, log=nothing, state_log=nothing, tables=Tables(nothing, nothing, nothing), topics=NAMES, defaults=Defaults(), limits=Limits(), waiting_limit=1_000_000,
        flush_seconds=flush_seconds, observer=nothing, clock=lambda: 0, fail=fail,
    )  # fmt: skip

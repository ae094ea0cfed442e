"""What an app of ours does otherwise than Faust's, or Faust with its own numbers."""

from __future__ import annotations

from typing import Any

import pytest
from faust import App as StockApp

from streams.faust_app import create_app
from streams.settings import Settings

YEAR = 365 * 86_400


@pytest.mark.parametrize("seconds", [6, 30, 300])
def test_a_group_may_wait_for_a_worker_as_long_as_the_settings_allow(seconds: float):
    """Faust refuses to start where an answer may take less long."""
    conf = create_app(Settings.model_validate({"session_timeout_seconds": seconds}), "group").conf
    assert conf.broker_session_timeout == seconds <= conf.broker_request_timeout


def test_no_worker_leaves_its_group_for_having_nothing_to_fetch():
    """``tests/faults/test_long_waits.py`` has seen what happens else."""
    assert create_app(Settings(), "idle").conf.broker_max_poll_interval > YEAR


async def test_a_rebalance_is_on_until_the_partitions_that_it_brings_are_in_use(monkeypatch: pytest.MonkeyPatch):
    """Not until a recovery ends that began before it."""
    app = create_app(Settings(), "rebalances")

    async def nothing(*_: Any) -> None: ...

    monkeypatch.setattr(StockApp, "_on_partitions_assigned", nothing)
    app.on_rebalance_start()
    await app._on_partitions_assigned(set(), 1)
    app.on_rebalance_start()
    app.on_rebalance_end()
    assert app.rebalancing
    await app._on_partitions_assigned(set(), 2)
    app.on_rebalance_end()
    assert not app.rebalancing

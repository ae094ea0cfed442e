"""A takeover that a rebalance overtakes, and who is ready then."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from streams import monitor_worker, monitoring
from streams.changelog import Overtaken
from streams.monitoring import Monitoring
from tests.idle import NAMES, idle_monitoring

STEPS = ("seek_to_committed", "earliest_offsets", "highwaters", "claim", "overtaken", "restore")


def taking(monkeypatch: pytest.MonkeyPatch, partitions: int, rebalance_at: str | None = None) -> Monitoring:
    """A monitoring to which so many partitions are assigned; ``rebalance_at`` this step they are taken away."""

    def step(name: str, answer: Callable[..., Any]) -> Callable[..., Any]:
        async def act(*given: Any) -> Any:
            if name == rebalance_at:
                made.let_go()
            return answer(*given)

        return act

    def offsets(*tps: TP) -> dict[TP, int]:
        return dict.fromkeys(tps, 0)

    def claimed(_changelogs: Any) -> None:
        if rebalance_at == "overtaken":
            made.let_go()
            raise Overtaken

    consumer = SimpleNamespace(
        assignment=lambda: {TP(NAMES.interaction, partition) for partition in range(partitions)},
        seek_to_committed=step("seek_to_committed", dict),
        earliest_offsets=step("earliest_offsets", offsets),
        highwaters=step("highwaters", offsets),
    )
    monkeypatch.setattr(monitoring, "changelogs_read_back", lambda *_: ())
    monkeypatch.setattr(monitoring, "claim", step("claim", claimed))
    monkeypatch.setattr(monitoring, "restore", step("restore", lambda *_: []))
    monkeypatch.setattr(monitoring, "PartitionWorker", lambda *_, **__: SimpleNamespace(resume=lambda _unused: None, close=lambda: None))
    made = idle_monitoring(consumer)
    return made


@pytest.mark.parametrize("partitions", [0, 1, 3])
async def test_all_that_is_assigned_is_taken_over(monkeypatch: pytest.MonkeyPatch, partitions: int) -> None:
    """Of more monitors than partitions some have none, and are ready too."""
    made = taking(monkeypatch, partitions)
    assert await made.take_over()
    assert sorted(made._owned) == list(range(partitions))


@pytest.mark.parametrize("rebalance_at", STEPS)
async def test_a_takeover_that_a_rebalance_overtakes_is_none(monkeypatch: pytest.MonkeyPatch, rebalance_at: str) -> None:
    """Whichever of its steps that meets."""
    made = taking(monkeypatch, 2, rebalance_at)
    assert not await made.take_over()
    assert not made._owned


@pytest.mark.parametrize("is_taken_over", [True, False])
async def test_a_worker_is_ready_once_it_has_taken_over(*, is_taken_over: bool) -> None:
    """Not as a takeover is given up: the next one will say so."""
    recovered: list[Any] = []
    ready: list[bool] = []

    async def answer() -> bool:
        return is_taken_over

    async def yes() -> bool:
        return True

    async def look() -> float:
        return 60.0

    app: Any = SimpleNamespace(
        on_partitions_revoked=SimpleNamespace(connect=lambda _: None),
        on_before_shutdown=SimpleNamespace(connect=lambda _: None),
        tables=SimpleNamespace(recovery=SimpleNamespace(is_current=True), values=lambda: [SimpleNamespace(on_recover=recovered.append)]),
        consumer=None,
        rebalancing_count=1,
        should_stop=False,
    )
    startable: Any = SimpleNamespace(start=lambda: None)
    taken: Any = SimpleNamespace(start=lambda: None, take_over=answer, may_fetch=None)
    failed: list[BaseException] = []
    monitor_worker._connect(app, taken, SimpleNamespace(check=yes, look=look), (), startable, startable, startable, failed.append, lambda: ready.append(True))  # type: ignore[arg-type]
    await recovered[0]()
    assert (ready, failed) == ([True] if is_taken_over else [], [])

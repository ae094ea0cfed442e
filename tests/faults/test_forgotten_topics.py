"""A group's leader that knows nothing of a topic when it shares out its partitions: nobody gets them, and somebody has to notice."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.settings import Settings
from tests.integration.system import fresh, running

pytestmark = pytest.mark.faults
AILING = str(Path(__file__).with_name("ailing"))


@pytest.mark.parametrize("topics", [".", "interaction"], ids=["all topics", "one of them"])
async def test_workers_get_their_partitions_all_the_same(settings: Settings, tmp_path: Path, topics: str):
    """Within seconds. Without any partition aiokafka by itself looks again after five minutes, and all the while the worker says that it is ready."""
    async with running(settings, tmp_path, 1, PYTHONPATH=AILING, FORGOTTEN_TOPICS=topics) as system:
        bad, good = fresh("bad"), fresh("good")
        for variant in (bad, good):
            await system.post(variant, timeout_minutes=0.1)
        await system.interact(bad, "view", 500)
        await system.interact(bad, "like", 10)
        ended = await system.until_ended([bad, good], 25)
        assert {variant: row["outcome"] for variant, row in ended.items()} == {bad: "killed", good: "timed_out"}
        assert [worker.is_running for worker in (*system.monitors, system.sink)] == [True, True]

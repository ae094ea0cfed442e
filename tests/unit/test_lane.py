"""Chunks of one topic and partition: in order, and beside all others."""

from __future__ import annotations

import asyncio
from typing import Any

from streams.lane import Lane


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_chunks_are_folded_one_after_the_other_and_beside_those_of_other_lanes() -> None:
    """One that takes long holds up what is behind it, and nothing else."""
    goes_on, folded = asyncio.Event(), list[str]()

    async def fold(chunk: Any) -> None:
        if chunk == "long":
            await goes_on.wait()
        folded.append(chunk)

    one, other = Lane(fold), Lane(fold)
    for lane, chunk in ((one, "short"), (one, "long"), (one, "behind"), (other, "beside")):
        lane.put(chunk)  # type: ignore[arg-type]
    await turns()
    assert folded == ["short", "beside"]
    goes_on.set()
    await turns()
    one.put("later")  # type: ignore[arg-type]
    await turns()
    assert folded == ["short", "beside", "long", "behind", "later"]


async def test_a_closed_lane_folds_nothing_more() -> None:
    """Not the rest of the chunk at hand, nor what is behind it, nor what still comes."""
    folded = list[str]()

    async def fold(chunk: Any) -> None:
        folded.append(f"begun {chunk}")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        folded.append(f"done {chunk}")

    lane = Lane(fold)
    lane.put("one")  # type: ignore[arg-type]
    lane.put("two")  # type: ignore[arg-type]
    await asyncio.sleep(0)
    lane.close()
    lane.put("three")  # type: ignore[arg-type]
    await turns()
    assert folded == ["begun one"]

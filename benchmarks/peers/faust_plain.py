"""Faust as its documentation shows it: a Record, a tumbling table relative to a field, one event at a time, every setting at its default.

Run as ``python -m benchmarks.peers.faust_plain BOOTSTRAP TOPIC KILL_TOPIC EVENTS GROUP DIRECTORY``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import faust

from benchmarks.peers.progress import Progress

WINDOW = timedelta(minutes=10)
MIN_INTERACTIONS = 10
KILL_RATE = 0.5 * 0.06
PARTITIONS = 4

BOOTSTRAP, TOPIC, KILL_TOPIC, EVENTS, GROUP, DIRECTORY = sys.argv[1:7]


class Interaction(faust.Record, isodates=True):  # type: ignore[call-arg,misc] # Faust is not typed
    """What is needed of an event."""

    variant_id: str
    kind: str
    occurred_at: datetime
    count: int = 1


app = faust.App(GROUP, broker=f"kafka://{BOOTSTRAP}", store="memory://", datadir=DIRECTORY, topic_partitions=PARTITIONS, topic_replication_factor=1)
interactions = app.topic(TOPIC, key_type=bytes, value_type=Interaction)
kills = app.topic(KILL_TOPIC, key_type=bytes, value_type=bytes)
engagement = app.Table("engagement", default=lambda: [0, 0, False]).tumbling(WINDOW, expires=2 * WINDOW).relative_to_field(Interaction.occurred_at)
progress = Progress(int(EVENTS))


@app.agent(interactions)  # type: ignore[untyped-decorator]
async def count_interaction(stream: AsyncIterator[Any]) -> None:
    """Count each event, and ask the rule."""
    async for event in stream:
        progress.begin()
        views, acts, was_killed = engagement[event.variant_id].value()
        if not was_killed:
            views, acts = (views + event.count, acts) if event.kind == "view" else (views, acts + event.count)
            was_killed = acts >= MIN_INTERACTIONS and views > 0 and acts / views < KILL_RATE
            engagement[event.variant_id] = [views, acts, was_killed]
            if was_killed:
                await kills.send(key=event.variant_id.encode(), value=b"{}")
        if progress.add():
            progress.tell((name, int(window[0]), *counts) for (name, window), counts in engagement.table.data.items())
            os._exit(0)  # a clean stop takes seconds, and nobody needs what it would save


if __name__ == "__main__":
    sys.argv[1:] = ["worker", "--without-web", "--loglevel", "info"]
    app.main()

"""Quix Streams as its documentation shows it: a tumbling window, reduced, every setting at its default (RocksDB state, changelog topic, commit each 5 s).

Runs in an environment of its own: ``python -m benchmarks.peers.quix BOOTSTRAP TOPIC KILL_TOPIC EVENTS GROUP DIRECTORY``.
"""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from typing import Any

from quixstreams import Application

from benchmarks.peers.progress import Progress

WINDOW = timedelta(minutes=10)
MIN_INTERACTIONS = 10
KILL_RATE = 0.5 * 0.06
Value = dict[str, Any]


def occurred_at(value: Value, _headers: Any, _timestamp: float, _type: Any) -> int:
    """Return the event time in milliseconds."""
    return int(datetime.fromisoformat(value["occurred_at"]).timestamp() * 1_000)


def begin(event: Value) -> Value:
    """Count the first event of a window."""
    return add({"variant_id": event["variant_id"], "views": 0, "interactions": 0, "was_killed": False}, event)


def add(counts: Value, event: Value) -> Value:
    """Count one more, and ask the rule."""
    if counts["was_killed"]:
        return {**counts, "is_kill": False}
    views, interactions = counts["views"], counts["interactions"]
    if event["kind"] == "view":
        views += event["count"]
    else:
        interactions += event["count"]
    was_killed = interactions >= MIN_INTERACTIONS and views > 0 and interactions / views < KILL_RATE
    return {"variant_id": counts["variant_id"], "views": views, "interactions": interactions, "was_killed": was_killed, "is_kill": was_killed}


def main(bootstrap: str, topic: str, kill_topic: str, events: int, group: str, directory: str) -> None:
    """Read until ``events`` are counted."""
    app = Application(broker_address=bootstrap, consumer_group=group, auto_offset_reset="earliest", state_dir=directory, loglevel="WARNING")
    progress = Progress(events)
    windows: dict[tuple[str, int], Value] = {}

    def note_first(_event: Value) -> None:
        progress.begin()

    def note(window: Value) -> None:
        windows[window["value"]["variant_id"], window["start"] // 1_000] = window["value"]
        if progress.add():
            app.stop()

    interactions = app.topic(topic, key_deserializer="str", value_deserializer="json", timestamp_extractor=occurred_at)
    kills = app.topic(kill_topic, key_serializer="str", value_serializer="json")
    stream = app.dataframe(interactions).update(note_first).tumbling_window(WINDOW).reduce(reducer=add, initializer=begin).current().update(note)
    stream.filter(lambda window: window["value"]["is_kill"]).to_topic(kills)
    app.run()
    progress.tell((name, start, counts["views"], counts["interactions"], counts["was_killed"]) for (name, start), counts in windows.items())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5], sys.argv[6])

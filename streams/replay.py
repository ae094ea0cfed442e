"""A recorded log into the live system once more: moments start now and run faster; pauses, moments and timeouts alike."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

from models.errors import Reject
from models.events import ID_LIMIT, parse_interaction, parse_variant_posted
from models.moments import format_moment
from models.policy import Defaults
from streams.clock import wall_clock
from streams.event_log import BadLine, TimedEvent, read_timed, to_bytes
from streams.timeline import Timeline, windows_by_variant

PROMPTNESS = 0.001
"""Seconds that an event may be sent ahead of its moment; sleeping for less is not worth while."""
BREATH = 200
"""Events sent in a row before the event loop gets a turn, when the replay is behind."""


class Sender(Protocol):
    """What a replay needs of ``streams.integration.Pipeline``."""

    async def send(self, topic: str, value: dict[str, Any]) -> Awaitable[object]:
        """Put an event on its way; what it returns is done once Kafka has acknowledged it. Raises what an earlier one failed with."""

    async def drain(self) -> None:
        """Wait until every event is acknowledged; raises what the first failed one failed with."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What a first reading of a log found: how much there is, where it starts, and each session's window (by variant)."""

    events: int
    log_start: int
    log_end: int
    windows: dict[str, list[tuple[int, int]]]


@dataclass(slots=True)
class Progress:
    """How far a replay is; ``behind_seconds`` is how late the last event was sent."""

    sent: int = 0
    bad: int = 0
    total: int = 0
    behind_seconds: float = 0.0


def survey(path: Path, defaults: Defaults) -> Survey:
    """Read a log once for what the schedule needs to know before the first event goes out.

    Raises:
        Stop: The file cannot be read.
    """
    events, earliest, latest = 0, None, 0
    sessions: list[tuple[str, int, int]] = []
    for item in read_timed(path, without_any=wall_clock()):
        if isinstance(item, BadLine):
            continue
        events += 1
        earliest = item.moment_us if earliest is None else earliest
        latest = max(latest, item.moment_us)
        if item.event.topic == "variant_posted":
            try:
                post = parse_variant_posted(to_bytes(item.event.value), item.event.variant_id.encode(), item.moment_us, defaults)
            except Reject:
                continue  # counted and named when its turn comes
            sessions.append((post.variant_id, post.posted_at, post.posted_at + post.policy.timeout))
    return Survey(events, earliest or 0, latest, windows_by_variant(sessions))


def again(item: TimedEvent, timeline: Timeline, defaults: Defaults, suffix: str | None) -> dict[str, Any]:
    """Return the value to publish for an event of the log.

    Its moment is always written out, so that how promptly it is sent decides nothing. Without a ``post_id`` none is added.

    Args:
        item: The event, with its moment in the log.
        timeline: Where moments go.
        defaults: The thresholds of events that do not name them; only the timeout is used, to be scaled.
        suffix: Put at the end of ``post_id`` and ``event_id``, or None to keep them.

    Raises:
        Reject: The event breaks the contract; a worker would have dead-lettered it.
    """
    value, key = dict(item.event.value), item.event.variant_id.encode()
    if item.event.topic == "variant_posted":
        post = parse_variant_posted(to_bytes(value), key, item.moment_us, defaults)
        value["posted_at"] = format_moment(timeline.moment(post.variant_id, post.posted_at))
        value["timeout_minutes"] = timeline.timeout_minutes(post.variant_id, post.posted_at, post.posted_at + post.policy.timeout)
    else:
        interaction = parse_interaction(to_bytes(value), key, item.moment_us)
        value["occurred_at"] = format_moment(timeline.moment(interaction.variant_id, interaction.occurred_at))
    if suffix is not None:
        value |= {name: suffixed(value[name], suffix) for name in ("post_id", "event_id") if value.get(name) is not None}
    return value


def suffixed(name: str, suffix: str) -> str:
    """Return ``name`` with ``suffix``; where that would be too long, the end of ``name`` gives way to a digest of it."""
    if len(name) + len(suffix) <= ID_LIMIT:
        return name + suffix
    digest = hashlib.sha256(name.encode()).hexdigest()[:20]
    return name[: ID_LIMIT - len(suffix) - len(digest)] + digest + suffix


async def replay(
    path: Path,
    sender: Sender,
    *,
    plan: Survey,
    defaults: Defaults,
    speed: Fraction,
    suffix: str | None,
    on_bad: Callable[[BadLine], None],
    on_progress: Callable[[Progress], None] = lambda _: None,
    clock: Callable[[], int] = wall_clock,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Progress:
    """Send every event of a log when its moment comes, in the order of the file.

    Posts are acknowledged before an interaction that follows them is sent.

    Args:
        path: The log; read a second time here.
        sender: Where events go; many may be on their way, so that a slow acknowledgement delays nothing but the end.
        plan: What ``survey`` found in the same file.
        defaults: As in ``again``.
        speed: How many times faster than the log.
        suffix: As in ``again``.
        on_bad: Called with each line that is left out.
        on_progress: Called after each event, with a value that goes on changing.
        clock: The wall clock, microseconds since the epoch.
        sleep: Waits so many seconds.

    Raises:
        Retry: Kafka did not acknowledge an event.
        Stop: The file cannot be read, or the topics are missing.
    """
    starts_at = clock()
    timeline = Timeline(log_start=plan.log_start, starts_at=starts_at, speed=speed, windows=plan.windows)
    progress = Progress(total=plan.events)
    posts: list[Awaitable[object]] = []
    for item in read_timed(path, without_any=plan.log_start):
        if isinstance(item, BadLine):
            progress.bad += 1
            on_bad(item)
            continue
        ahead = (timeline.moment(item.event.variant_id, item.moment_us) - clock()) / 1e6
        if ahead > PROMPTNESS:
            on_progress(progress)
            await sleep(ahead)
        elif progress.sent % BREATH == 0:
            await sleep(0)
        progress.behind_seconds = max(0.0, -ahead)
        try:
            value = again(item, timeline, defaults, suffix)
            if item.event.topic == "variant_posted":
                posts.append(await sender.send(item.event.topic, value))
            else:
                await asyncio.gather(*posts)
                posts.clear()
                await sender.send(item.event.topic, value)
        except Reject as error:
            progress.bad += 1
            on_bad(BadLine(item.event.line, str(error)))
            continue
        progress.sent += 1
        on_progress(progress)
    await sender.drain()
    return progress

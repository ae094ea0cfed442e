"""``publish``: events by hand, or from a file."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from models.engagement import TOTAL_NAMES
from streams.commands.common import progress, put_json, quiet_libraries
from streams.commands.logs import BadLines
from streams.environment import load_settings

if TYPE_CHECKING:
    from streams.integration import Landed

publish = typer.Typer(no_args_is_help=False, invoke_without_command=True, rich_markup_mode=None)

VariantId = Annotated[str, typer.Option(help="The variant, 1 to 200 characters.")]
EventId = Annotated[str | None, typer.Option(help="Tells events apart: the same id counts once within a session.")]
Source = Annotated[str | None, typer.Option(help="Where the event comes from; kept, not used.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(publish, name="publish")


@publish.callback()
def from_file(
    context: typer.Context,
    file: Annotated[Path | None, typer.Option(help='Publish every line of this file, {"topic", "value"} each, also gzipped.')] = None,
) -> int:
    """Publish events: one by hand, or all of a file. Prints where each landed, one JSON object a line; for a file, the number of them."""
    if context.invoked_subcommand is not None:
        if file is not None:
            raise typer.BadParameter("either a file or one event", param_hint="--file")
        return 0
    if file is None:
        raise typer.BadParameter("name a file with --file, or an event: variant-posted, interaction")
    quiet_libraries()
    return asyncio.run(_publish_file(file))


async def _publish_file(file: Path) -> int:
    from models.errors import Reject, Stop
    from streams.event_log import BadLine, read_events
    from streams.integration.pipeline import Pipeline
    from streams.integration.publisher import EventPublisher

    bad, sent = BadLines(), 0
    with progress("publishing") as done:
        events = read_events(file)
        first = list(islice(events, 1))  # a file that cannot be read is said before Kafka is looked for
        async with EventPublisher(load_settings()) as publisher:
            pipeline = Pipeline(publisher)
            try:
                for item in chain(first, events):
                    try:
                        if isinstance(item, BadLine):
                            bad(file, item)
                        else:
                            await pipeline.send(item.topic, item.value)
                            sent += 1
                            done(sent, "")
                    except Reject as error:
                        bad(file, BadLine(item.line, str(error)))
            except Stop as error:
                raise Stop(f"{error}; {sent:,} event(s) were sent before that") if sent else error from None
            finally:
                await pipeline.drain()
    put_json({"published": sent, "bad": bad.count})
    bad.summary("not sent")
    return 1 if bad.count else 0


@publish.command("variant-posted")
def variant_posted(
    variant_id: VariantId,
    persona_id: Annotated[str, typer.Option(help="Who posted it.")],
    post_id: Annotated[str, typer.Option(help="The posting; another one is another session.")],
    expected_engagement_rate: Annotated[float | None, typer.Option(help="Interactions per view to expect, 0 < x <= 1. [default: 0.06]")] = None,
    posted_at: Annotated[str | None, typer.Option(help="When: RFC 3339 with an offset, or Unix time. [default: now]")] = None,
    kill_threshold: Annotated[float | None, typer.Option(help="Share of the expected rate below which it is killed, 0 < x <= 1. [default: 0.5]")] = None,
    min_interactions: Annotated[int | None, typer.Option(help="Interactions before the first decision, 1 to 1,000,000. [default: 10]")] = None,
    timeout_minutes: Annotated[float | None, typer.Option(help="Length of the monitoring window, 0 < x <= 43,200. [default: 10]")] = None,
    policy: Annotated[str | None, typer.Option(help="Rule to judge by. [default: ratio]")] = None,
    event_id: EventId = None,
    source: Source = None,
    metadata: Annotated[str | None, typer.Option(metavar="JSON", help="Any JSON object of at most 4 KiB; kept with the record.")] = None,
) -> None:
    """Say that a variant went live: its monitoring starts."""
    event = {
        "variant_id": variant_id,
        "persona_id": persona_id,
        "post_id": post_id,
        "expected_engagement_rate": expected_engagement_rate,
        "posted_at": _moment(posted_at),
        "kill_threshold": kill_threshold,
        "min_interactions": min_interactions,
        "timeout_minutes": timeout_minutes,
        "policy": policy,
        "event_id": event_id,
        "source": source,
        "metadata": _object(metadata, "--metadata"),
    }
    _publish("variant_posted", event)


@publish.command()
def interaction(
    variant_id: VariantId,
    kind: Annotated[str, typer.Option(help="view, like, reply, repost, quote, share, click, save, or snapshot (with totals).")],
    count: Annotated[int | None, typer.Option(help="How many, 1 to 1,000,000. [default: 1]")] = None,
    post_id: Annotated[str | None, typer.Option(help="The posting it belongs to. [default: the one posted last whose window is open]")] = None,
    occurred_at: Annotated[str | None, typer.Option(help="When: RFC 3339 with an offset, or Unix time. [default: now]")] = None,
    event_id: EventId = None,
    source: Source = None,
    views: Annotated[int | None, typer.Option(help="Lifetime total, for a snapshot; likewise the next ones.")] = None,
    likes: Annotated[int | None, typer.Option()] = None,
    replies: Annotated[int | None, typer.Option()] = None,
    reposts: Annotated[int | None, typer.Option()] = None,
    quotes: Annotated[int | None, typer.Option()] = None,
    shares: Annotated[int | None, typer.Option()] = None,
    clicks: Annotated[int | None, typer.Option()] = None,
    saves: Annotated[int | None, typer.Option()] = None,
) -> None:
    """Say that somebody saw a post or acted on it, or give a snapshot of its lifetime totals."""
    totals = dict(zip(TOTAL_NAMES, (views, likes, replies, reposts, quotes, shares, clicks, saves), strict=True))
    known = {name: total for name, total in totals.items() if total is not None}
    if known and kind != "snapshot":
        raise typer.BadParameter("totals belong to a snapshot", param_hint=f"--{next(iter(known))}")
    event = {
        "variant_id": variant_id,
        "kind": kind,
        "count": count,
        "totals": known or None,
        "post_id": post_id,
        "occurred_at": _moment(occurred_at),
        "event_id": event_id,
        "source": source,
    }
    _publish("interaction", event)


def _publish(topic: str, event: dict[str, Any]) -> None:
    from models.moments import format_moment

    quiet_libraries()
    landed = asyncio.run(_send(topic, {name: value for name, value in event.items() if value is not None}))
    put_json({**asdict(landed), "appended_at": format_moment(landed.timestamp * 1_000)})


async def _send(topic: str, event: dict[str, Any]) -> Landed:
    from streams.integration.checking import checked
    from streams.integration.publisher import EventPublisher

    checked(topic, event)  # a wrong option is said before Kafka is looked for
    async with EventPublisher(load_settings()) as publisher:
        return await (publisher.publish_variant_posted(event) if topic == "variant_posted" else publisher.publish_interaction(event))


def _moment(text: str | None) -> str | float | None:
    """A Unix time as a number, everything else as it is."""
    if text is None:
        return None
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        return text


def _object(text: str | None, option: str) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        parsed = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"is not JSON: {error}", param_hint=option) from None
    if not isinstance(parsed, dict):
        raise typer.BadParameter("is not a JSON object", param_hint=option)
    return parsed

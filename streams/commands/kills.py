"""``kills``: follow the kill events."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from models.errors import Retry
from streams.commands.common import put, quiet_libraries, tell
from streams.environment import load_settings

if TYPE_CHECKING:
    from streams.integration import VariantKilled


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(kills)


def kills(
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="Start with the oldest kill on the topic, not with those that come from now on.")] = False,
    count: Annotated[int | None, typer.Option(metavar="N", help="End after so many kills.", min=1)] = None,
    timeout: Annotated[float | None, typer.Option(metavar="S", help="End after so many seconds; exit code 1 if --count has not been reached by then.", min=0)] = None,
    group: Annotated[str | None, typer.Option(metavar="ID", help="Keep the position in this consumer group, and go on from it next time.")] = None,
    human: Annotated[bool, typer.Option("--human", help="One line for people instead of one JSON object.")] = False,
) -> int:
    """Follow kills, each kill_id once: one JSON object a line, as on the topic. Ctrl-C ends it."""
    quiet_libraries()
    return asyncio.run(_follow(from_beginning=from_beginning, count=count, timeout=timeout, group=group, human=human))


async def _follow(*, from_beginning: bool, count: int | None, timeout: float | None, group: str | None, human: bool) -> int:  # noqa: ASYNC109 - the option
    from streams.integration import KillSubscriber

    settings, seen, has_begun = load_settings(), 0, False
    try:
        async with asyncio.timeout(timeout), KillSubscriber(settings, group_id=group, from_beginning=from_beginning) as subscriber:
            has_begun = True
            async for kill in subscriber:
                put(kill_line(kill) if human else kill.as_json().decode())
                seen += 1
                if seen == count:
                    if group is not None:
                        await subscriber.done()
                    break
    except TimeoutError:
        if not has_begun:
            raise Retry(f"Kafka at {settings.kafka_bootstrap_servers} does not answer within {timeout:g} s") from None
        if count is not None:
            tell(f"{seen} of {count} kills came within {timeout:g} s")
            return 1
    return 0


def kill_line(kill: VariantKilled, posts_cancelled: int | None = None) -> str:
    """Return a kill in one line for people, times in the local zone."""
    parts = [
        f"{_local(kill.decided_at):%H:%M:%S}  KILLED  {kill.variant_id}",
        kill.reason,
        f"{kill.final_engagement_rate:.3%} against {kill.kill_rate:.3%} ({kill.final_interaction_count:,} of {kill.final_view_count:,} views)",
        f"{kill.time_to_kill_seconds:.1f} s after it was posted",
    ]
    if posts_cancelled is not None:
        parts.append(f"{posts_cancelled} scheduled post{'' if posts_cancelled == 1 else 's'} cancelled")
    return "  |  ".join(parts)


def _local(moment: datetime) -> datetime:
    return moment.astimezone()

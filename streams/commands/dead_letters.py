"""``dead-letters``: look at what could not be used, and send it again."""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.clock import wall_clock
from streams.commands.common import progress, put_json, quiet_libraries, tell
from streams.environment import load_settings

if TYPE_CHECKING:
    from streams.dead_letters import DeadLetter, DeadLetters

dead_letters = typer.Typer(invoke_without_command=True, rich_markup_mode=None)

Topic = Annotated[str | None, typer.Option(help="Only those from this topic, with or without the prefix.")]
Reason = Annotated[str | None, typer.Option(help="Only those whose reason contains this text.")]
Limit = Annotated[int | None, typer.Option(metavar="N", help="Only the newest so many.", min=1)]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(dead_letters, name="dead-letters")


@dead_letters.callback()
def look(context: typer.Context, topic: Topic = None, reason: Reason = None, limit: Limit = None) -> None:
    """Look at the records that could not be used: one JSON object a line, each record once, with key and value as text where they are."""
    if context.invoked_subcommand is None:
        quiet_libraries()
        asyncio.run(_list(topic, reason, limit))
    elif (topic, reason, limit) != (None, None, None):
        raise typer.BadParameter(f"options go after {context.invoked_subcommand}")


@dead_letters.command("list")
def list_letters(topic: Topic = None, reason: Reason = None, limit: Limit = None) -> None:
    """Look at them; the same as ``dead-letters`` alone."""
    quiet_libraries()
    asyncio.run(_list(topic, reason, limit))


@dead_letters.command()
def resend(
    topic: Annotated[str | None, typer.Option(help="Topic of the original record, with or without the prefix; with --all a filter.")] = None,
    partition: Annotated[int | None, typer.Option(help="Partition of the original record.", min=0)] = None,
    offset: Annotated[int | None, typer.Option(help="Offset of the original record.", min=0)] = None,
    everything: Annotated[bool, typer.Option("--all", help="Send all that can be used by now.")] = False,
    reason: Annotated[str | None, typer.Option(help="With --all: only those whose reason contains this text.")] = None,
) -> int:
    """Send dead letters again: the whole original record, re-read from its topic, with its original moment.

    Prints what became of each: sent, repeated (the same event was sent just now, for another letter of it), gone (retention has
    removed the original), or unusable (it would be refused again). What is sent twice counts once.
    """
    one = (partition, offset) != (None, None)
    if everything == one or (one and None in (topic, partition, offset)) or (one and reason is not None):
        raise typer.BadParameter("name one record by --topic, --partition and --offset, or say --all")
    quiet_libraries()
    return asyncio.run(_resend(topic, partition, offset, reason))


async def _list(topic: str | None, reason: str | None, limit: int | None) -> None:
    from streams.dead_letters import DeadLetters

    newest: list[tuple[int, int, DeadLetter]] = []
    count = 0
    async with DeadLetters.open(load_settings()) as letters:
        async for letter in letters.letters(topic=topic, reason=reason):
            count += 1
            if limit is None:
                put_json(letter.as_json())
            else:
                (heapq.heappush if len(newest) < limit else heapq.heappushpop)(newest, (letter.timestamp, count, letter))
    for _, _, letter in sorted(newest, key=lambda entry: entry[:2]):
        put_json(letter.as_json())
    tell(f"{count:,} dead letter{'' if count == 1 else 's'}")


async def _resend(topic: str | None, partition: int | None, offset: int | None, reason: str | None) -> int:
    from streams.dead_letters import DeadLetters

    fates: Counter[str] = Counter()
    with progress("sending again") as done:
        async with DeadLetters.open(load_settings()) as letters:
            # All are read first: reading and sending again share a consumer.
            wanted = [
                letter.without_content()
                async for letter in letters.letters(topic=topic, reason=reason)
                if partition is None or (letter.partition, letter.offset) == (partition, offset)
            ]
            for letter in wanted:
                fates[await _resend_one(letters, letter)] += 1
                done(fates.total(), "")
    if partition is not None and not fates:
        tell("there is no such dead letter")
        return 1
    tell(", ".join(f"{fates[fate]:,} {fate}" for fate in ("sent", "repeated", "gone", "unusable") if fates[fate] or fate != "repeated"))
    return 0 if fates["sent"] or not fates else 1


async def _resend_one(letters: DeadLetters, letter: DeadLetter) -> str:
    resent = await letters.resend(letter, wall_clock())
    line: dict[str, Any] = {"topic": letter.topic, "partition": letter.partition, "offset": letter.offset, "fate": resent.fate}
    if resent.fate == "sent":
        line["landed"] = {"partition": resent.partition, "offset": resent.offset}
    elif resent.detail:
        line["detail"] = resent.detail
    put_json(line)
    return resent.fate

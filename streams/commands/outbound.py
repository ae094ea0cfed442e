"""``outbound``: look at the calls to other systems, and try again those that were given up."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Annotated

import typer

from streams.commands.common import put_json, quiet_libraries, tell
from streams.commands.schema import user, with_engine

outbound = typer.Typer(rich_markup_mode=None, help="Look at the calls to other systems, and try them again.")


class Shown(StrEnum):
    """Which calls."""

    open = "open"
    pending = "pending"
    given_up = "given_up"
    confirmed = "confirmed"
    withdrawn = "withdrawn"
    all = "all"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(outbound, name="outbound")


@outbound.command("list")
def list_calls(
    state: Annotated[Shown, typer.Option(help="Only those in this state; open is pending and given_up.")] = Shown.open,
    limit: Annotated[int, typer.Option(metavar="N", help="Only the newest so many.", min=1, max=10_000)] = 1_000,
) -> None:
    """List calls, newest first: one JSON object a line, with attempts and the last error."""
    from models.records import CALL_STATES
    from streams.outbound.reopening import list_calls as read

    quiet_libraries()
    states = {Shown.open: ("pending", "given_up"), Shown.all: CALL_STATES}.get(state, (state.value,))
    for call in asyncio.run(with_engine(lambda engine: read(engine, states, limit))):
        put_json(call)


@outbound.command()
def retry(
    call: Annotated[list[int] | None, typer.Argument(metavar="ID", help="Calls that are given up, or pause between two attempts.", show_default=False)] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that were given up.")] = False,
) -> int:
    """Let calls be tried again at once, with the same idempotency keys. Prints their ids; exit code 1 if one of those named cannot be."""
    from streams.outbound.reopening import retry_calls

    if bool(call) == everything:
        raise typer.BadParameter("name calls by their id, or say --all")
    quiet_libraries()
    reopened = asyncio.run(with_engine(lambda engine: retry_calls(engine, call or None, actor=f"cli:{user()}")))
    put_json({"retried": reopened})
    missing = sorted(set(call or []) - set(reopened))
    if missing:
        tell(f"not retried, for they are confirmed, withdrawn or unknown: {', '.join(map(str, missing))}")
    return 1 if missing else 0

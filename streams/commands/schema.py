"""``topics``, ``migrate``, ``revive`` and ``purge``: what concerns the topics and the database as such."""

from __future__ import annotations

import asyncio
import getpass
import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from streams.clock import wall_clock
from streams.commands.common import progress, put, put_json, quiet_libraries, tell
from streams.environment import load_settings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from streams.purge import Purged

T = TypeVar("T")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(topics)
    app.command()(migrate)
    app.command()(revive)
    app.command()(purge)


def topics() -> None:
    """Create the topics that are missing and check those that are there. Prints the names of the new ones."""
    from streams.topics import ensure_topics

    quiet_libraries()
    created = asyncio.run(ensure_topics(load_settings()))
    for name in created:
        put(name)
    tell(f"{len(created)} topics created, all are as they must be" if created else "all topics are there, as they must be")


def migrate(
    post_trigger: Annotated[
        bool,
        typer.Option(
            "--post-trigger", help="Let a trigger cancel posts of killed variants at once, also on a scheduled_post that others made. Without it the sink does so within seconds."
        ),
    ] = False,
) -> None:
    """Bring the database's schema up to date; does nothing if it is."""
    from streams.store import migrate as bring_up_to_date

    quiet_libraries()
    bring_up_to_date(load_settings(), post_trigger=post_trigger)
    tell("the schema is up to date")


def revive(variant_id: Annotated[str, typer.Argument(metavar="VARIANT", help="The variant that was killed.")]) -> None:
    """Undo a kill: the variant is active again, and the posts that the kill cancelled are scheduled again unless their time has passed."""
    from models.errors import NotKilled
    from streams.cleanup import UnknownVariant
    from streams.cleanup import revive as undo

    quiet_libraries()
    try:
        revived = asyncio.run(with_engine(lambda engine: undo(engine, variant_id, actor=f"cli:{user()}", request_id=uuid.uuid4(), now_us=wall_clock())))
    except (UnknownVariant, NotKilled) as error:
        from models.errors import Stop

        raise Stop(str(error)) from error
    put_json(
        {
            "variant_id": revived.variant_id,
            "kill_id": str(revived.kill_id) if revived.kill_id else None,
            "is_in_pool": revived.is_in_pool,
            "posts": list(revived.posts),
            "posts_passed": revived.posts_passed,
        }
    )


def purge(older_than: Annotated[float, typer.Option(metavar="DAYS", help="Age in days from which ended sessions and audit rows go.", min=0, max=36_500)]) -> None:
    """Remove the records of sessions that ended, audit rows, and outbound calls that are over, older than so many days. What is active stays."""
    from streams.purge import purge as remove

    quiet_libraries()
    with progress("removing rows") as done:

        def tell_progress(far: Purged) -> None:
            done(far.sessions + far.audit_rows + far.outbound_calls, "")

        purged = asyncio.run(with_engine(lambda engine: remove(engine, older_than, wall_clock(), tell_progress)))
    put_json({"sessions": purged.sessions, "audit_rows": purged.audit_rows, "outbound_calls": purged.outbound_calls})


async def with_engine(use: Callable[[AsyncEngine], Awaitable[T]]) -> T:
    """Do something with the configured database."""
    from streams.database import create_engine

    engine = create_engine(load_settings())
    try:
        return await use(engine)
    finally:
        await engine.dispose()


def user() -> str:
    """Return who runs this command, for the audit."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"

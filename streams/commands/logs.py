"""``replay`` and ``backtest``: what can be done with a recorded log."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streams.commands.common import progress, put, put_json, quiet_libraries, tell
from streams.environment import load_settings

if TYPE_CHECKING:
    from streams.backtest import Outcomes
    from streams.event_log import BadLine
    from streams.replay import Progress

FIRST_NUMBER = 4
"""Column of the table from which on there are numbers."""
NAMED_LINES = 20
"""Bad lines that are named one by one; the rest is counted."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(replay)
    app.command()(backtest)


class BadLines:
    """Counts lines that cannot be used, and names the first of them on stderr."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, path: Path, line: BadLine) -> None:
        """Note one."""
        self.count += 1
        if self.count <= NAMED_LINES:
            tell(f"{path}:{line.line}: {line.reason}")

    def summary(self, what: str) -> None:
        """Say how many there were, if any."""
        if self.count:
            tell(f"{self.count:,} bad line{'s' if self.count > 1 else ''} {what}")


def speed_of(text: str) -> Fraction:
    """Read ``--speed`` exactly; raises ``typer.BadParameter``."""
    try:
        speed = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise typer.BadParameter(f"{text!r} is not a number") from None
    if not Fraction(1, 10_000) <= speed <= 10**9:
        raise typer.BadParameter("is not between 0.0001 and 1,000,000,000")
    return speed


def replay(
    file: Annotated[Path, typer.Argument(help='The log: lines of {"topic", "value"}, also gzipped.')],
    speed: Annotated[Fraction, typer.Option(metavar="N", parser=speed_of, help="How many times faster than the log.")] = Fraction(1),
    keep_ids: Annotated[bool, typer.Option("--keep-ids", help="Leave post_id and event_id as they are, instead of giving them a suffix of this run.")] = False,
) -> int:
    """Play a recorded log into the live system: it starts now and runs N times faster; pauses, moments and timeouts alike."""
    from streams.replay import survey

    quiet_libraries()
    settings = load_settings()
    tell(f"reading {file}")
    plan = survey(file, settings.defaults)
    seconds = float(Fraction(max(0, plan.log_end - plan.log_start), 1_000_000) / speed)
    suffix = None if keep_ids else f"-r{datetime.now(UTC):%Y%m%d%H%M%S%f}"
    tell(f"replaying {plan.events:,} events in {_duration(seconds)}{f'; this run is {suffix}' if suffix else ''}")
    bad = BadLines()

    async def run() -> Progress:
        from streams.integration.pipeline import Pipeline
        from streams.integration.publisher import EventPublisher
        from streams.replay import replay as play

        async with EventPublisher(settings) as publisher:
            return await play(
                file,
                Pipeline(publisher),
                plan=plan,
                defaults=settings.defaults,
                speed=speed,
                suffix=suffix,
                on_bad=lambda line: bad(file, line),
                on_progress=lambda far: done(far.sent, f"{far.behind_seconds:.1f} s behind" if far.behind_seconds > 1 else ""),
            )

    with progress("replaying", plan.events) as done:
        result = asyncio.run(run())
    tell(f"{result.sent:,} events sent")
    bad.summary("not sent")
    return 1 if bad.count else 0


def backtest(
    files: Annotated[list[Path], typer.Argument(help='The log: lines of {"topic", "value"}, also gzipped. Several files are one log, in this order.')],
    policy: Annotated[str | None, typer.Option(metavar="POLICY", help="Judge by this rule instead of the one each post names: ratio.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line for each session, instead of a table.")] = False,
) -> None:
    """Show which variants a policy would have killed, from a recorded log, offline, with the code that decides live."""
    from models.rules import RULES
    from streams.backtest import backtest as decide

    if policy is not None and policy not in RULES:
        raise typer.BadParameter(f"{policy!r} is not one of {', '.join(sorted(RULES))}", param_hint="--policy")
    bad = BadLines()
    started = time.monotonic()
    with progress("deciding") as done:
        outcomes = decide(files, defaults=load_settings().defaults, policy=policy, on_bad=bad, on_read=lambda count: done(count, ""))
    if as_json:
        for decided in outcomes.sessions:
            put_json(decided.as_json())
    else:
        _print_table(outcomes)
    bad.summary("left out")
    if outcomes.without_post:
        tell(f"{outcomes.without_post:,} interactions have no post in the log")
    tell(f"{len(outcomes.sessions):,} sessions in {time.monotonic() - started:.1f} s")


def _print_table(outcomes: Outcomes) -> None:
    rows = [("variant", "post", "outcome", "ended at", "views", "interactions", "rate", "line")]
    for decided in outcomes.sessions:
        row = decided.as_json()
        rate = row["final_engagement_rate"]
        numbers = (f"{row['final_view_count']:,}", f"{row['final_interaction_count']:,}", "-" if rate is None else f"{rate:.3%}", f"{row['kill_rate']:.3%}")
        rows.append((row["variant_id"], row["post_id"], row["outcome"].replace("_", " "), row["ended_at"], *numbers))
    widths = [max(len(cells[column]) for cells in rows) for column in range(len(rows[0]))]
    for texts in rows:
        cells = (cell.rjust(width) if column >= FIRST_NUMBER else cell.ljust(width) for column, (cell, width) in enumerate(zip(texts, widths, strict=True)))
        put("  ".join(cells).rstrip())


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"

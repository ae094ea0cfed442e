"""What would have been decided: a recorded log through the same core that runs live, offline."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models import ids
from models.errors import Reject
from models.events import parse_interaction, parse_variant_posted
from models.moments import format_moment
from models.monitor import Ended, Limits, PartitionMonitor, Rejected
from models.policy import Defaults
from models.session import Outcome, Session
from streams.event_log import BadLine, TimedEvent, read_timed, to_bytes

WAITING_LIMIT = 1_000_000
"""Interactions without a post that are held at once, as in a worker. Source: contract, section 3.3."""
END_OF_TIME = 2**62
"""Microseconds; by then every session has timed out."""


@dataclass(frozen=True, slots=True)
class Decided:
    """How one session of the log ended.

    Attributes:
        session: The session as the core left it; it has ended.
        deciding_line: File and line (from 1) of the interaction that a kill followed from.
    """

    session: Session
    deciding_line: tuple[Path, int] | None

    def as_json(self) -> dict[str, Any]:
        """Return the session as ``backtest --json`` prints it."""
        session, end, counts = self.session, self.session.end, self.session.counts
        if end is None:
            raise ValueError("the session has not ended")
        was_killed = end.outcome is Outcome.KILLED
        return {
            "variant_id": session.variant_id,
            "persona_id": session.persona_id,
            "post_id": session.post_id,
            "session_id": str(session.id),
            "outcome": end.outcome.value,
            "was_killed": was_killed,
            "kill_reason": end.reason,
            "kill_id": str(ids.kill_id(session.id)) if was_killed else None,
            "started_at": format_moment(session.posted_at),
            "ended_at": format_moment(end.ended_at),
            "deadline": format_moment(session.deadline),
            "final_view_count": counts.views,
            "final_interaction_count": counts.interactions,
            "final_engagement_rate": counts.rate,
            "counts": counts.by_kind(),
            "policy": session.policy.rule,
            "expected_engagement_rate": session.policy.expected_engagement_rate,
            "kill_threshold": session.policy.kill_threshold,
            "kill_rate": session.policy.kill_rate,
            "min_interactions": session.policy.min_interactions,
            "timeout_minutes": session.policy.timeout_minutes,
            "deciding_event": {"file": str(self.deciding_line[0]), "line": self.deciding_line[1]} if self.deciding_line else None,
        }


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How a log ends.

    Attributes:
        sessions: In the order in which their posts came.
        without_post: Interactions whose post is not in the log (``no post`` in the dead letters).
    """

    sessions: list[Decided]
    without_post: int


def backtest(
    paths: Iterable[Path],
    *,
    defaults: Defaults,
    policy: str | None = None,
    on_bad: Callable[[Path, BadLine], None] = lambda *_: None,
    on_read: Callable[[int], None] = lambda _: None,
) -> Outcomes:
    """Decide every session of a log, as a worker that keeps up would.

    An event counts as appended when it happened; one without a moment when the line before it did. The files are one log, in
    the order given. When it ends, every session that is still open has timed out.

    Args:
        paths: Files of ``{"topic", "value"}`` lines.
        defaults: What holds for posts that do not say.
        policy: Rule to judge by instead of the one each post names; a key of ``models.rules.RULES``.
        on_bad: Called with each line that cannot be used; a worker would send it to the dead letters.
        on_read: Called now and then with the number of events read so far.

    Raises:
        Stop: A file cannot be read.
    """
    log = _Log(defaults, policy)
    for path in paths:
        log.open(path)
        for item in read_timed(path, without_any=0):
            if isinstance(item, BadLine):
                on_bad(path, item)
                continue
            try:
                log.fold(item)
            except Reject as error:
                on_bad(path, BadLine(item.event.line, str(error)))
            log.events += 1
            if log.events % 1_000 == 0:
                on_read(log.events)
    on_read(log.events)
    return log.finish()


class _Log:
    """One log as one partition; an event's offset is its line, counted over all files."""

    def __init__(self, defaults: Defaults, policy: str | None) -> None:
        self.events = 0
        self._defaults = defaults
        self._policy = policy
        self._monitor = PartitionMonitor(0, Limits())
        self._files: list[tuple[int, Path]] = []
        self._offset = 0
        self._latest = 0
        self._without_post = 0

    def open(self, path: Path) -> None:
        self._files.append((self._offset, path))

    def fold(self, item: TimedEvent) -> None:
        event, moment = item.event, item.moment_us
        offset = self._offset = self._files[-1][0] + event.line
        self._latest = max(self._latest, moment)
        key = event.variant_id.encode(errors="surrogatepass")
        if event.topic == "variant_posted":
            content = to_bytes(event.value if self._policy is None else {**event.value, "policy": self._policy})
            self._monitor.post(parse_variant_posted(content, key, moment, self._defaults), offset, moment, key, content, moment)
        else:
            content = to_bytes(event.value)
            self._monitor.interact(parse_interaction(content, key, moment), offset, moment, key, content, moment)
            if self._monitor.waiting.count > WAITING_LIMIT:
                self._monitor.push_out(1)
        self._look_at_emissions()

    def finish(self) -> Outcomes:
        while self._monitor.tick(END_OF_TIME, self._latest):
            self._look_at_emissions()
        self._look_at_emissions()
        sessions = sorted(self._monitor.sessions, key=lambda session: session.posted_offset)
        return Outcomes([Decided(session, self._line_that_decided(session)) for session in sessions], self._without_post)

    def _look_at_emissions(self) -> None:
        for emission in self._monitor.take_emissions():
            if isinstance(emission, Ended):
                emission.session.event_ids = None  # an ended session looks at none, and a long log has many
            elif isinstance(emission, Rejected):
                self._without_post += 1
        self._monitor.take_changes()
        self._monitor.take_resolved()

    def _line_that_decided(self, session: Session) -> tuple[Path, int] | None:
        if session.end is None or session.end.origin is None:
            return None
        offset = session.end.origin.offset
        start, path = self._files[bisect_left(self._files, offset, key=lambda entry: entry[0]) - 1]
        return path, offset - start

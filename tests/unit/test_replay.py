"""A log happens once more: what is sent, and when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from models.errors import Retry
from models.moments import parse_moment
from models.policy import Defaults
from streams.event_log import BadLine
from streams.replay import replay, suffixed, survey

NOW = 1_767_225_600_000_000
SECOND = 1_000_000


class Clock:
    """A wall clock that moves only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)
        await asyncio.sleep(0)


class Wire:
    """Takes events, and acknowledges each a turn of the loop later."""

    def __init__(self, clock: Clock, fails_at: int | None = None) -> None:
        self.clock = clock
        self.sent: list[tuple[int, str, Mapping[str, Any]]] = []
        self.acknowledged: set[int] = set()
        self.unacknowledged_posts_seen = 0
        self.fails_at = fails_at
        self._waiting: list[asyncio.Future[int]] = []

    async def send(self, topic: str, value: dict[str, Any]) -> asyncio.Future[int]:
        number = len(self.sent)
        if number == self.fails_at:
            raise Retry("Kafka is away")
        if topic == "interaction":
            self.unacknowledged_posts_seen += sum(1 for index, (_, other, _) in enumerate(self.sent) if other == "variant_posted" and index not in self.acknowledged)
        self.sent.append((self.clock.now, topic, value))
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.001, self._acknowledge, number, future)
        self._waiting.append(future)
        return future

    def _acknowledge(self, number: int, future: asyncio.Future[int]) -> None:
        self.acknowledged.add(number)
        future.set_result(number)

    async def drain(self) -> None:
        await asyncio.gather(*self._waiting)


def write(path: Path, *events: tuple[str, dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps({"topic": topic, "value": value}) + "\n" for topic, value in events))
    return path


def post(variant_id: str = "v", posted_at: object = "2020-01-01T00:00:00Z", **more: Any) -> tuple[str, dict[str, Any]]:
    return "variant_posted", {"variant_id": variant_id, "persona_id": "p", "post_id": "post-1", "posted_at": posted_at, **more}


def view(occurred_at: object, **more: Any) -> tuple[str, dict[str, Any]]:
    return "interaction", {"variant_id": "v", "kind": "view", "occurred_at": occurred_at, **more}


async def run(path: Path, *, speed: str = "60", suffix: str | None = "-again", fails_at: int | None = None) -> tuple[Wire, list[BadLine]]:
    clock = Clock()
    wire, bad = Wire(clock, fails_at), []
    await replay(path, wire, plan=survey(path, Defaults()), defaults=Defaults(), speed=Fraction(speed), suffix=suffix, on_bad=bad.append, clock=clock, sleep=clock.sleep)
    return wire, bad


async def test_pauses_moments_and_timeouts_shrink_alike(tmp_path: Path) -> None:
    """Sixty times faster, an event an hour after the post comes a minute after it, and says so."""
    wire, _ = await run(write(tmp_path / "log", post(timeout_minutes=120), view("2020-01-01T01:00:00Z"), view("2020-01-01T01:30:00Z")))
    assert [sent_at - NOW for sent_at, _, _ in wire.sent] == [0, 60 * SECOND, 90 * SECOND]
    assert [parse_moment(value.get("posted_at") or value["occurred_at"]) - NOW for _, _, value in wire.sent] == [0, 60 * SECOND, 90 * SECOND]
    assert wire.sent[0][2]["timeout_minutes"] == 2


async def test_a_timeout_that_the_event_leaves_to_the_default_shrinks_too(tmp_path: Path) -> None:
    """Ten minutes are ten seconds at sixty times the speed."""
    wire, _ = await run(write(tmp_path / "log", post()))
    assert wire.sent[0][2]["timeout_minutes"] == pytest.approx(10 / 60)


async def test_ids_get_the_suffix_of_the_run_and_nothing_else_changes(tmp_path: Path) -> None:
    """A second replay starts sessions of its own; fields nobody knows travel along."""
    wire, _ = await run(write(tmp_path / "log", post(event_id="e1", later="field"), view("2020-01-01T00:00:00Z", post_id="post-1", event_id="e2")))
    posted, viewed = (value for _, _, value in wire.sent)
    assert (posted["post_id"], posted["event_id"], posted["variant_id"], posted["later"]) == ("post-1-again", "e1-again", "v", "field")
    assert (viewed["post_id"], viewed["event_id"]) == ("post-1-again", "e2-again")


async def test_an_interaction_without_a_post_id_gets_none(tmp_path: Path) -> None:
    """It belongs to whichever session the monitor finds, as in the log; null is absent."""
    wire, _ = await run(write(tmp_path / "log", post(), view("2020-01-01T00:00:00Z"), view("2020-01-01T00:00:00Z", post_id=None, event_id=None)))
    assert "post_id" not in wire.sent[1][2]
    assert "event_id" not in wire.sent[1][2]
    assert wire.sent[2][2]["post_id"] is None


async def test_ids_can_be_kept(tmp_path: Path) -> None:
    """``--keep-ids``."""
    wire, _ = await run(write(tmp_path / "log", post(event_id="e1")), suffix=None)
    assert (wire.sent[0][2]["post_id"], wire.sent[0][2]["event_id"]) == ("post-1", "e1")


def test_a_suffix_never_makes_an_id_too_long_nor_two_ids_one() -> None:
    """The contract's 200 characters hold, on the bound too."""
    assert suffixed("x" * 194, "-again") == "x" * 194 + "-again"
    first, second = suffixed("x" * 199 + "1", "-again"), suffixed("x" * 199 + "2", "-again")
    assert len(first) == len(second) == 200
    assert first != second
    assert first.endswith("-again")


async def test_an_event_without_a_moment_gets_that_of_the_line_before_in_writing(tmp_path: Path) -> None:
    """How promptly it is sent then decides nothing."""
    wire, _ = await run(write(tmp_path / "log", post(), view("2020-01-01T01:00:00Z"), ("interaction", {"variant_id": "v", "kind": "like"})))
    assert parse_moment(wire.sent[2][2]["occurred_at"]) == NOW + 60 * SECOND


async def test_posts_are_acknowledged_before_the_interactions_behind_them_are_sent(tmp_path: Path) -> None:
    """So that a replay does not lean on interactions waiting for their posts."""
    wire, _ = await run(write(tmp_path / "log", post(), post("w"), view("2020-01-01T00:00:00Z"), post("x"), view("2020-01-01T00:00:00Z")))
    assert len(wire.sent) == 5
    assert wire.unacknowledged_posts_seen == 0


async def test_nothing_is_sent_ahead_of_its_moment(tmp_path: Path) -> None:
    """A worker refuses moments that lie far in the future; and a line that is out of order does not turn time back."""
    log = write(tmp_path / "log", post(), view("2020-01-01T02:00:00Z"), view("2020-01-01T01:00:00Z"), view("2020-01-01T02:00:01Z"))
    wire, _ = await run(log)
    assert all(parse_moment(value.get("posted_at") or value["occurred_at"]) <= sent_at + 1_000 for sent_at, _, value in wire.sent)
    assert [sent_at - NOW for sent_at, _, _ in wire.sent][1:3] == [120 * SECOND, 120 * SECOND]


async def test_bad_lines_are_named_and_the_rest_is_sent(tmp_path: Path) -> None:
    """An event that a worker would dead-letter is left out: the live run is to match the backtest."""
    log = write(tmp_path / "log", post(), view("2020-01-01T00:00:00Z", count=0), view("2020-01-01T00:00:01Z"), ("interaction", {"kind": "view"}))
    wire, bad = await run(log)
    assert len(wire.sent) == 2
    assert [(line.line, line.reason.split(":")[0]) for line in bad] == [(2, "count"), (4, "variant_id")]


async def test_a_failed_send_ends_the_replay(tmp_path: Path) -> None:
    """Nothing is left out in silence."""
    with pytest.raises(Retry):
        await run(write(tmp_path / "log", post(), view("2020-01-01T00:00:00Z")), fails_at=1)

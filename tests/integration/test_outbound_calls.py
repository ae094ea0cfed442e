"""Every kill gets through to another system that fails half of the time, once for each key."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from models import ids
from models.monitoring_record import MonitoringRecord
from streams.clock import wall_clock
from streams.database import create_engine
from streams.metrics import Metrics
from streams.outbound.messages import idempotency_key, signature
from streams.outbound.pending import Claimed, Outcome, PendingCalls
from streams.outbound.relay import Relay
from streams.outbound.reopening import list_calls, retry_calls
from streams.outbound.sending import Sender
from streams.outbound.target import Target
from streams.persistence import Persisted, persist
from streams.settings import Settings
from tests.integration.receiver import FAULTS, Receiver, Request, half

Sql = Callable[..., list[tuple[Any, ...]]]
Record = Callable[..., MonitoringRecord]

pytestmark = pytest.mark.faults
SECRET = "a secret of the tests"  # noqa: S105 - nobody else's
NAME = "https://receiver.example"
TIMEOUT_SECONDS = 0.3


def give_up(error: BaseException) -> None:
    """No test expects a relay to fail."""
    raise error


class Line:
    """A relay with its sender, and what it has under way."""

    def __init__(self, engine: AsyncEngine, url: str, *, lease_seconds: float = 5.0, give_up_seconds: float = 600.0, jitter: float = 0.01) -> None:
        self.metrics = Metrics()
        self.calls = PendingCalls(engine, lease_seconds=lease_seconds, give_up_seconds=give_up_seconds)
        self.sender = Sender(Target(SecretStr(url), NAME, SecretStr(SECRET)), timeout_seconds=TIMEOUT_SECONDS, clock_us=wall_clock)
        self.relay = Relay(self.calls, self.sender.send, send_seconds=TIMEOUT_SECONDS, metrics=self.metrics, fail=give_up, jitter=lambda: jitter)

    async def run(self) -> None:
        """Until cancelled; calls under way are cut off then."""
        try:
            while True:
                await self.relay.step()
        finally:
            await self.relay.drain(0)
            await self.sender.close()


@asynccontextmanager
async def at_work(*lines: Line) -> AsyncIterator[None]:
    """Relays, for a time."""
    tasks = [asyncio.create_task(line.run()) for line in lines]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(outcome, asyncio.CancelledError), outcome


async def until(condition: Callable[[], object], seconds: float = 40) -> None:
    """Wait for it."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


def states(sql: Sql) -> dict[str, int]:
    """How many calls are in which state."""
    return dict(sql("SELECT state, count(*) FROM outbound_call GROUP BY state"))  # type: ignore[arg-type]


def kill_of(variant: str, post: str = "p1") -> Any:
    """The id of its kill."""
    return ids.kill_id(ids.session_id(variant, post))


async def test_every_kill_gets_through_and_takes_effect_once(engine: AsyncEngine, migrated: Settings, sql: Sql, record: Record):
    """Two relays on a receiver that refuses, resets, answers 500, is too slow, or cuts the connection: no call is under way twice at once."""
    variants = [f"v{number}" for number in range(60)]
    other = create_engine(migrated)
    under_way: Counter[int] = Counter()
    most, outcomes = 0, Counter[str | None]()

    def watched(send: Callable[[Claimed], Awaitable[Outcome]]) -> Callable[[Claimed], Awaitable[Outcome]]:
        async def watch(call: Claimed) -> Outcome:
            nonlocal most
            under_way[call.id] += 1
            most = max(most, under_way[call.id])
            try:
                outcome = await send(call)
                outcomes[outcome.error] += 1
                return outcome
            finally:
                under_way[call.id] -= 1

        return watch

    async with Receiver(half(7)) as receiver:
        lines = [Line(engine, receiver.url), Line(other, receiver.url)]
        for line in lines:
            line.relay._send = watched(line.sender.send)
        async with at_work(*lines):
            for variant in variants:
                await persist(engine, [record("killed", variant)], NAME)
            await until(lambda: states(sql) == {"confirmed": 60})
    await other.dispose()
    assert receiver.effects == {str(idempotency_key("variant_killed", kill_of(variant), NAME)): 1 for variant in variants}
    assert all(receiver.bitten[fault] for fault in FAULTS), receiver.bitten
    assert set(outcomes) >= {
        None,
        "answered 500: no",
        "no answer within 0.3 s",
        "no connection: Connection refused",
        "the connection failed: Connection reset by peer",
        "the connection was cut before the answer",
    }
    assert most == 1
    assert sql("SELECT count(*), count(DISTINCT variant_id) FROM monitoring_audit WHERE action = 'call_confirmed'") == [(60, 60)]


async def test_a_call_says_what_happened_and_who_says_it(engine: AsyncEngine, sql: Sql, record: Record):
    """The same key and bytes at each attempt, a signature over moment and bytes; the body carries the key too, so that it is signed."""
    answers = iter(["500", "ok"])
    async with Receiver(lambda _: next(answers)) as receiver:
        await persist(engine, [record("started"), record("killed")], NAME)
        async with at_work(Line(engine, receiver.url)):
            await until(lambda: states(sql) == {"confirmed": 1})
    first, second = receiver.requests
    assert first.body == second.body
    assert first.head["idempotency-key"] == second.head["idempotency-key"]
    for request in receiver.requests:
        assert request.head["early-kill-signature"] == signature(SECRET, int(request.head["early-kill-timestamp"]), request.body)
        assert request.head[""] == "POST /hook HTTP/1.1"
    told = json.loads(first.body)
    assert told == {
        "schema_version": 1,
        "event": "variant_killed",
        "idempotency_key": first.head["idempotency-key"],
        "kill_id": str(kill_of("v1")),
        "session_id": str(ids.session_id("v1", "p1")),
        "variant_id": "v1",
        "persona_id": "anna",
        "post_id": "p1",
        "policy": "ratio",
        "expected_engagement_rate": 0.06,
        "kill_threshold": 0.5,
        "min_interactions": 10,
        "final_engagement_rate": 0.02,
        "final_interaction_count": 10,
        "final_view_count": 500,
        "reason": "Below 50% of expected engagement rate",
        "posted_at": "2023-11-14T22:13:20.000000Z",
        "decided_at": "2023-11-14T22:14:21.000000Z",
        "counts": {"view": 500, "like": 10},
        "deciding_event": {"topic": "interaction", "partition": 0, "offset": 7, "occurred_at": "2023-11-14T22:14:20.000001Z"},
    }


async def test_a_call_is_part_of_the_kill(engine: AsyncEngine, sql: Sql, record: Record):
    """None without a target, for another end, or for a repetition; none if the transaction fails."""
    await persist(engine, [record("killed", "untold")])
    await persist(engine, [record("timed_out", "v2"), record("stopped", "v3"), record("started", "v4")], NAME)
    assert states(sql) == {}
    sql("ALTER TABLE outbound_call ADD CONSTRAINT nothing CHECK (variant_id <> 'v1')")
    with pytest.raises(Exception, match="nothing"):
        await persist(engine, [record("killed")], NAME)
    assert sql("SELECT count(*) FROM variant_monitoring WHERE variant_id = 'v1'") == [(0,)]
    sql("ALTER TABLE outbound_call DROP CONSTRAINT nothing")
    assert (await persist(engine, [record("killed")], NAME)).killed == 1
    assert await persist(engine, [record("killed"), record("timed_out")], NAME) == Persisted()
    assert sql("SELECT idempotency_key, state, target FROM outbound_call") == [(idempotency_key("variant_killed", kill_of("v1"), NAME), "pending", NAME)]


async def test_a_relay_that_dies_in_mid_call_leaves_it_to_another(engine: AsyncEngine, sql: Sql, record: Record):
    """Not before its lease is over; the receiver, who had acted already, knows the key."""
    arrived = asyncio.Event()

    def behave(_: Request) -> str:
        arrived.set()
        return "slow" if len(receiver.requests) == 1 else "ok"

    async with Receiver(behave, slow_seconds=0.1) as receiver:
        await persist(engine, [record("killed")], NAME)
        dying = asyncio.create_task(Line(engine, receiver.url, lease_seconds=1.5).run())
        await asyncio.wait_for(arrived.wait(), 5)
        dying.cancel()
        await asyncio.gather(dying, return_exceptions=True)
        assert sql("SELECT state, attempts, leased_until > now() FROM outbound_call") == [("pending", 1, True)]
        async with at_work(Line(engine, receiver.url)):
            await asyncio.sleep(0.7)
            assert len(receiver.requests) == 1
            await until(lambda: states(sql) == {"confirmed": 1})
    assert len(receiver.requests) == 2
    assert list(receiver.effects.values()) == [1]


async def test_a_relay_that_stood_still_does_not_send_what_may_be_anothers(engine: AsyncEngine, sql: Sql, record: Record):
    """Between its claim and its call more than the rest of the lease went by."""
    async with Receiver(lambda _: "ok") as receiver:
        await persist(engine, [record("killed")], NAME)
        line, times = Line(engine, receiver.url), iter([0.0])
        line.relay._clock = lambda: next(times, 5.0 - TIMEOUT_SECONDS)
        await line.relay.step()
        await line.relay.drain(1)
        await line.sender.close()
    assert receiver.requests == []
    assert sql("SELECT state, attempts FROM outbound_call") == [("pending", 1)]


async def test_a_slow_receiver_holds_back_no_records(engine: AsyncEngine, sql: Sql, record: Record):
    """All places of the relay are taken, and the sink goes on."""
    async with Receiver(lambda _: "slow", slow_seconds=0.5) as receiver:
        await persist(engine, [record("killed", f"v{number}") for number in range(20)], NAME)
        async with at_work(Line(engine, receiver.url)):
            await until(lambda: len(receiver.requests) >= 8)
            async with asyncio.timeout(1):
                assert (await persist(engine, [record("killed", "another")], NAME)).killed == 1
    assert "confirmed" not in states(sql)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 413, 422, 451])
async def test_a_refusal_is_given_up_at_once_and_seen(engine: AsyncEngine, sql: Sql, record: Record, status: int, caplog: pytest.LogCaptureFixture):
    """In the list, in the audit, in the metrics and in the log; there without a word of URL or secret."""
    async with Receiver(lambda _: str(status)) as receiver:
        await persist(engine, [record("killed")], NAME)
        line = Line(engine, receiver.url)
        async with at_work(line):
            await until(lambda: states(sql) == {"given_up": 1})
            await line.relay.watch()
    assert len(receiver.requests) == 1
    [call] = await list_calls(engine, ["given_up"], 10)
    assert (call["attempts"], call["last_status"], call["last_error"]) == (1, status, f"answered {status}: no")
    assert sql("SELECT actor, facts ->> 'status' FROM monitoring_audit WHERE action = 'call_given_up'") == [("relay", str(status))]
    shown = line.metrics.render().decode()
    assert 'performance_monitor_outbound_calls{state="given_up"} 1.0' in shown
    assert 'performance_monitor_outbound_call_duration_seconds_count{result="given_up"} 1.0' in shown
    assert [entry.levelname for entry in caplog.records if entry.name == "streams.outbound.relay"] == ["ERROR"]
    assert not any(word in caplog.text for word in (SECRET, "/hook"))


@pytest.mark.parametrize("answer", ["408", "425", "429", "500", "501", "502", "503", "504", "308 Location: /other"])
async def test_what_may_pass_is_tried_again(engine: AsyncEngine, sql: Sql, record: Record, answer: str):
    """Redirects too: none is followed, for the signature is for one receiver."""
    answers = iter([answer])
    async with Receiver(lambda _: next(answers, "ok")) as receiver:
        await persist(engine, [record("killed")], NAME)
        async with at_work(Line(engine, receiver.url)):
            await until(lambda: states(sql) == {"confirmed": 1})
    assert [request.head[""] for request in receiver.requests] == ["POST /hook HTTP/1.1"] * 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_leads_to_another_host(engine: AsyncEngine, sql: Sql, record: Record, status: int):
    """It would learn of a kill, and of a signature for it."""
    async with Receiver(lambda _: "ok") as other:
        answers = iter([f"{status} Location: {other.url}"])
        async with Receiver(lambda _: next(answers, "ok")) as receiver:
            await persist(engine, [record("killed")], NAME)
            async with at_work(Line(engine, receiver.url)):
                await until(lambda: states(sql) == {"confirmed": 1})
    assert (len(receiver.requests), len(other.requests)) == (2, 0)


async def test_a_receiver_may_say_when_to_come_again(engine: AsyncEngine, sql: Sql, record: Record):
    """Up to an hour; the pause is longer by the jitter only."""
    for answer, least in (("503 Retry-After: 120", 120), ("429 Retry-After: 999999", 3_600)):
        async with Receiver(lambda _, answer=answer: answer) as receiver:  # type: ignore[misc]
            await persist(engine, [record("killed", answer)], NAME)
            async with at_work(Line(engine, receiver.url)):
                await until(lambda answer=answer: sql("SELECT last_status FROM outbound_call WHERE variant_id = %s AND last_status IS NOT NULL AND lease IS NULL", answer))  # type: ignore[misc]
        [(pause,)] = sql("SELECT extract(epoch FROM next_attempt_at - now())::float FROM outbound_call WHERE variant_id = %s", answer)
        assert least - 5 < pause < least + 5


async def test_a_call_that_fails_for_too_long_is_given_up_and_can_be_tried_again(engine: AsyncEngine, sql: Sql, record: Record):
    """With the same key; the second time it gets through. A call of that age is made once in any case."""
    healthy = False
    async with Receiver(lambda _: "ok" if healthy else "500") as receiver:
        await persist(engine, [record("killed")], NAME)
        sql("UPDATE outbound_call SET pending_since = now() - interval '100 s'")
        async with at_work(Line(engine, receiver.url, give_up_seconds=100)):
            await until(lambda: states(sql) == {"given_up": 1})
            assert len(receiver.requests) == 1
            healthy = True
            [(call,)] = sql("SELECT id FROM outbound_call")
            assert await retry_calls(engine, [call, call + 1], actor="cli:ada") == [call]
            await until(lambda: states(sql) == {"confirmed": 1})
    assert len({request.head["idempotency-key"] for request in receiver.requests}) == 1
    assert await retry_calls(engine, [call], actor="cli:ada") == []
    assert await retry_calls(engine, None, actor="cli:ada") == []
    assert [row[0] for row in sql("SELECT action FROM monitoring_audit WHERE action LIKE 'call%%' ORDER BY id")] == ["call_given_up", "call_retried", "call_confirmed"]


async def test_a_variants_calls_are_made_in_their_order(engine: AsyncEngine, sql: Sql, record: Record):
    """The second kill waits while the first one fails; other variants do not."""
    answers = iter(["500"] * 3)

    def behave(request: Request) -> str:
        return next(answers, "ok") if json.loads(request.body)["variant_id"] == "v1" else "ok"

    async with Receiver(behave) as receiver:
        await persist(engine, [record("killed", "v1", "first")], NAME)
        await persist(engine, [record("killed", "v1", "second"), record("killed", "v2")], NAME)
        async with at_work(Line(engine, receiver.url), Line(engine, receiver.url)):
            await until(lambda: states(sql) == {"confirmed": 3})
    told = [json.loads(request.body) for request in receiver.requests]
    assert [call["post_id"] for call in told if call["variant_id"] == "v1"] == ["first"] * 4 + ["second"]
    assert told.index(next(call for call in told if call["variant_id"] == "v2")) < 3

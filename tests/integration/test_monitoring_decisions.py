"""From events on Kafka to records, cleanup and audit in PostgreSQL: the contract's examples, seen from outside."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from streams.local.child import free_port
from streams.local.kafka import KafkaServer
from streams.settings import Settings
from streams.topics import partition_for
from tests.integration.system import System, books, fresh, running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(kafka: KafkaServer, module_database: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    settings = Settings.model_validate(
        {"kafka_bootstrap_servers": kafka.bootstrap_servers, "database_url": module_database, "topic_prefix": fresh("m") + ".", "app_id": fresh("app"), "web_port": free_port()}
    )
    home: Path = tmp_path_factory.mktemp("decisions")
    async with running(settings, home, EARLY_KILL_GRACE_SECONDS="1") as system:
        yield system


EXAMPLES = [(10, 500, True), (9, 450, False), (18, 500, False), (18, 600, False), (10, 334, True), (10, 333, False), (10, 0, False)]


async def test_the_examples_of_the_contract_end_as_it_says(system: System):
    """Contract, section 3.4. Each state is reached by one snapshot, so that no state on the way decides."""
    variants = {fresh(f"{interactions}-of-{views}"): killed for interactions, views, killed in EXAMPLES}
    for variant, (interactions, views, _) in zip(variants, EXAMPLES, strict=True):
        await system.post(variant, timeout_minutes=0.05)
        await system.interact(variant, "snapshot", totals={"views": views, "likes": interactions})
    rows = await system.until_ended(variants, 25)
    assert {variant: row["was_killed"] for variant, row in rows.items()} == variants
    for (interactions, views, killed), row in zip(EXAMPLES, (rows[variant] for variant in variants), strict=True):
        assert (row["final_interaction_count"], row["final_view_count"]) == (interactions, views)
        assert row["final_engagement_rate"] == (interactions / views if views else None)
        assert row["kill_reason"] == ("Below 50% of expected engagement rate" if killed else "0.05-minute monitoring window expired")
        assert row["outcome"] == ("killed" if killed else "timed_out")


async def test_a_kill_cleans_up_in_its_own_transaction(system: System):
    """Session, pool, scheduled posts and audit change together: their transaction ids are equal."""
    variant, other = fresh("bad"), fresh("other")
    for name in (variant, other):
        system.query("INSERT INTO variant_pool (variant_id, persona_id, status) VALUES (%s, 'persona', 'active')", name)
        for status in ("scheduled", "retry_scheduled", "published", "failed"):
            system.query("INSERT INTO scheduled_post (variant_id, scheduled_for, status) VALUES (%s, now() + interval '1 hour', %s)", name, status)
    await system.post(variant)
    await system.interact(variant, "view", 1, count=500)
    await system.interact(variant, "like", 10)
    row = (await system.until_ended([variant]))[variant]
    event = next(value for value in await system.values("variant_killed") if value["variant_id"] == variant)
    posts = system.query("SELECT status, count(*) AS n FROM scheduled_post WHERE variant_id = %s GROUP BY status", variant)
    assert {post["status"]: post["n"] for post in posts} == {"cancelled": 2, "published": 1, "failed": 1}
    pool = system.query("SELECT * FROM variant_pool WHERE variant_id = %s", variant)[0]
    assert (pool["status"], str(pool["kill_id"])) == ("killed", event["kill_id"])
    written = system.query(
        "SELECT xmin::text FROM variant_monitoring WHERE variant_id = %s UNION SELECT xmin::text FROM variant_pool WHERE variant_id = %s "
        "UNION SELECT xmin::text FROM scheduled_post WHERE variant_id = %s AND status = 'cancelled' "
        "UNION SELECT xmin::text FROM monitoring_audit WHERE variant_id = %s AND action <> 'session_started'",
        *[variant] * 4,
    )
    assert len(written) == 1
    untouched = system.query("SELECT status, count(*) AS n FROM scheduled_post WHERE variant_id = %s GROUP BY status", other)
    assert {post["status"]: post["n"] for post in untouched} == {"scheduled": 1, "retry_scheduled": 1, "published": 1, "failed": 1}
    assert event["session_id"] == str(row["session_id"])
    assert event["deciding_event"]["topic"] == system.topic("interaction")
    assert event["counts"] == {"view": 500, "like": 10, "reply": 0, "repost": 0, "quote": 0, "share": 0, "click": 0, "save": 0}
    assert event["time_to_kill_seconds"] >= 0


async def test_counts_freeze_at_the_deciding_event(system: System):
    """Later events of a killed session change nothing."""
    variant = fresh("frozen")
    await system.post(variant)
    await system.interact(variant, "view", 1, count=500)
    await system.interact(variant, "like", 30)
    row = (await system.until_ended([variant]))[variant]
    assert (row["final_view_count"], row["final_interaction_count"]) == (500, 10)


async def test_each_posting_of_a_variant_is_its_own_session(system: System):
    """A re-posted variant: one posting is killed, the other lives to its deadline."""
    variant = fresh("twice")
    await system.post(variant, post_id="first", timeout_minutes=0.1)
    await system.post(variant, post_id="second", timeout_minutes=0.1)
    await system.post(variant, post_id="second", timeout_minutes=5)
    await system.interact(variant, "view", 1, count=400, post_id="first")
    await system.interact(variant, "like", 10, post_id="first")
    await system.interact(variant, "view", 1, count=100, post_id="second")
    await system.until_ended([variant], 25)
    rows = {row["post_id"]: row for row in system.sessions(variant)}
    assert {post: row["outcome"] for post, row in rows.items()} == {"first": "killed", "second": "timed_out"}
    assert rows["second"]["final_view_count"] == 100


async def test_without_post_id_an_event_belongs_to_the_latest_posting(system: System):
    """And what the older one took before stays there."""
    variant = fresh("unnamed")
    now = time.time()
    await system.post(variant, post_id="old", posted_at=now - 2, timeout_minutes=0.15)
    await system.interact(variant, "view", 7, post_id=None)
    await system.until(lambda: _status(system, variant), 10)
    while (await system.call(system.monitors[0], "GET", f"/performance-monitor/status/{variant}?post_id=old"))[1]["view_count"] < 7:
        pass
    await system.post(variant, post_id="new", posted_at=now - 1, timeout_minutes=0.15)
    while (await system.call(system.monitors[0], "GET", f"/performance-monitor/status/{variant}?post_id=new"))[0] != 200:
        pass
    await system.interact(variant, "view", 5, post_id=None)
    await system.interact(variant, "view", 3, post_id=None, occurred_at=now - 1.5)
    await system.until_ended([variant], 30)
    assert {row["post_id"]: row["final_view_count"] for row in system.sessions(variant)} == {"old": 10, "new": 5}


def _status(system: System, variant: str) -> bool:
    return bool(system.sessions(variant))


async def test_interactions_that_came_before_their_post_count_as_if_it_had_come_first(system: System):
    """They wait; the first that decides, decides."""
    variant = fresh("early")
    posted_at = time.time()
    await system.interact(variant, "view", 1, count=400, occurred_at=posted_at + 0.1)
    await system.interact(variant, "like", 12, occurred_at=posted_at + 0.2)
    await system.post(variant, posted_at=posted_at)
    row = (await system.until_ended([variant]))[variant]
    assert (row["outcome"], row["final_view_count"], row["final_interaction_count"]) == ("killed", 400, 10)


async def test_an_event_id_counts_once(system: System):
    """Ten deliveries of one like are one like."""
    variant = fresh("again")
    await system.post(variant, timeout_minutes=0.05)
    await system.interact(variant, "view", 1, count=500)
    await system.interact(variant, "like", 12, event_id="the-same")
    row = (await system.until_ended([variant], 25))[variant]
    assert (row["outcome"], row["final_interaction_count"]) == ("timed_out", 1)


async def test_the_time_that_a_producer_puts_on_a_record_counts_for_nothing(system: System):
    """Ten years ahead or 1970: when it was appended is what Kafka says, and so is when it happened where it does not say."""
    variant = fresh("timed")
    await system.post(variant)
    assert system._producer is not None
    for moment in (round((time.time() + 10 * 365 * 86_400) * 1_000), 0):
        value = json.dumps({"variant_id": variant, "post_id": f"{variant}-post", "kind": "view", "count": 250}).encode()
        landed = await system._producer.send_and_wait(system.topic("interaction"), value, key=variant.encode(), timestamp_ms=moment)
        assert abs(landed.timestamp / 1_000 - time.time()) < 60
    await system.interact(variant, "like", 10)
    row = (await system.until_ended([variant]))[variant]
    assert (row["outcome"], row["final_view_count"]) == ("killed", 500)


async def test_one_variant_with_all_the_traffic_holds_up_no_other(system: System):
    """While it gets as many events as a producer can send, kills on the other partitions come within a second of their events."""
    names = [fresh("cool") for _ in range(40)]
    by_partition = {partition_for(name, system.settings.partitions): name for name in names}
    hot = by_partition.pop(min(by_partition))
    await system.post(hot, timeout_minutes=0.2)
    value = json.dumps({"variant_id": hot, "post_id": f"{hot}-post", "kind": "view"}).encode()
    sent = 0

    async def flood() -> None:
        nonlocal sent
        while True:
            futures = [await system.send("interaction", value, hot.encode()) for _ in range(2_000)]
            await asyncio.gather(*futures)
            sent += len(futures)

    flooding = asyncio.create_task(flood())
    appended = {}
    try:
        await asyncio.sleep(2)
        for name in by_partition.values():
            await system.post(name)
            await system.interact(name, "view", 1, count=500)
            appended[name] = (await system.interact(name, "like", 10)).timestamp
        await system.until_ended(by_partition.values())
    finally:
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
    killed = {record.key.decode(): record.timestamp for record in await system.records("variant_killed") if record.key}
    took = sorted(killed[name] - moment for name, moment in appended.items())
    print(f"{sent:,} events of one variant; kills of others after {took} ms")
    assert sent > 2_000
    assert took[len(took) // 2] < 1_000, took


async def test_snapshots_out_of_order_never_take_back(system: System):
    """Per kind the total is the larger of the sum of increments and the largest snapshot."""
    variant = fresh("snapshots")
    await system.post(variant, timeout_minutes=0.05)
    await system.interact(variant, "snapshot", totals={"views": 50, "likes": 9, "other": 3})
    await system.interact(variant, "snapshot", totals={"views": 20, "likes": None})
    await system.interact(variant, "view", 30)
    row = (await system.until_ended([variant], 25))[variant]
    assert (row["final_view_count"], row["final_interaction_count"]) == (50, 9)


async def test_a_session_without_any_traffic_ends_by_itself(system: System):
    """Within 10 s of deadline plus grace."""
    variant = fresh("silent")
    await system.post(variant, timeout_minutes=0.01)
    began = time.monotonic()
    row = (await system.until_ended([variant], 20))[variant]
    assert row["outcome"] == "timed_out"
    assert row["ended_at"] - row["started_at"] == timedelta(seconds=0.6)
    assert time.monotonic() - began < 0.6 + 1 + 10


async def test_hundreds_of_unusable_records_hold_nothing_up(system: System):
    """All are dead-lettered with a reason, every good one counts, and a kill behind them is not a second late."""
    variant = fresh("behind")
    await system.post(variant)
    bad = [b"", b"{", b"[]", b'"text"', b"\xff\xfe", b'{"variant_id": "x", "kind": "view", "count": 1.0}', b'{"a": NaN}', None, b'{"kind": "view"}', b"[" * 10_000]
    sent = []
    for number in range(300):
        await system.interact(variant, "view")
        sent.append(await system.send("interaction", bad[number % len(bad)], key=variant.encode()))
    await system.interact(variant, "view", 1, count=100)
    decided = await system.interact(variant, "like", 10)
    offsets = {(await future).offset for future in sent}
    row = (await system.until_ended([variant]))[variant]
    assert (row["final_view_count"], row["final_interaction_count"]) == (400, 10)
    kill = next(record for record in await system.records("variant_killed") if json.loads(record.value)["variant_id"] == variant)
    assert kill.timestamp - decided.timestamp < 1_000
    deadline = time.monotonic() + 5
    while True:
        letters = {letter["offset"]: letter for letter in await system.values("dead_letter") if letter["partition"] == decided.partition}
        if offsets <= letters.keys():
            break
        assert time.monotonic() < deadline
    assert all(letters[offset]["reason"] for offset in offsets)


async def test_every_record_read_has_one_result(system: System):
    """The books balance: records read = the sum over the results."""
    for worker in system.monitors:
        _, text = await system.call(worker, "GET", "/metrics")
        read, results = books(text)
        assert read.total() > 0
        assert read.total() == results.total()

"""The commands that talk to Kafka, as people run them: in processes of their own."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from streams.integration import KillSubscriber
from streams.settings import Settings
from streams.topics import ensure_topics, topic_name
from tests.records import kill_of

ROOT = Path(__file__).parents[2]


class Commands:
    """Runs ``early-kill`` against a test's own topics."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers, "EARLY_KILL_TOPIC_PREFIX": settings.topic_prefix}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "streams.cli", *arguments]
        return subprocess.Popen(command, env=self.environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        run = self.run(*arguments)
        assert run.returncode == 0, run.stderr
        return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.fixture
def commands(kafka_settings: Settings) -> Commands:
    asyncio.run(_ensure(kafka_settings))
    return Commands(kafka_settings)


async def _ensure(settings: Settings) -> None:
    await ensure_topics(settings)


async def put_kills(settings: Settings, *numbers: int) -> None:
    """Write kill events, keyed by their variants."""
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers, acks="all")
    await producer.start()
    for number in numbers:
        await producer.send_and_wait(topic_name(settings, "variant_killed"), json.dumps(kill_of(number)).encode(), key=f"v-{number}".encode())
    await producer.stop()


def test_one_event_by_hand_is_told_where_it_landed(commands: Commands) -> None:
    """One JSON line each; every option arrives."""
    ids = ("--variant-id", "v", "--persona-id", "p", "--post-id", "o")
    thresholds = ("--expected-engagement-rate", "0.05", "--timeout-minutes", "2.5", "--min-interactions", "3")
    (post,) = commands.rows("publish", "variant-posted", *ids, *thresholds, "--metadata", "{}")
    assert post["topic"] == f"{commands.settings.topic_prefix}variant_posted"
    assert post["offset"] == 0
    (snapshot,) = commands.rows("publish", "interaction", "--variant-id", "v", "--kind", "snapshot", "--views", "100", "--likes", "3", "--occurred-at", "1700000000")
    assert snapshot["event_id"]
    assert snapshot["appended_at"].endswith("Z")


def test_a_file_is_published_and_its_bad_lines_are_named(commands: Commands, tmp_path: Path) -> None:
    """Exit code 1, but the good ones are there."""
    log = tmp_path / "events.jsonl"
    view = '{"topic": "interaction", "value": {"variant_id": "v", "kind": "view"}}'
    log.write_text("\n".join([view, "nonsense", view, view.replace('"view"', '"applaud"'), view]))
    run = commands.run("publish", "--file", str(log))
    assert (run.returncode, json.loads(run.stdout)) == (1, {"published": 3, "bad": 2})
    assert f"{log}:2: is not JSON" in run.stderr
    assert f"{log}:4: kind: " in run.stderr
    assert commands.rows("publish", "interaction", "--variant-id", "v", "--kind", "view")[0]["offset"] == 3


def test_what_stands_before_a_break_in_a_file_is_published_and_counted(commands: Commands, tmp_path: Path) -> None:
    """All of it, also the event just before the break; so that nobody has to guess where to go on."""
    whole = gzip.compress(b"".join(b'{"topic": "interaction", "value": {"variant_id": "v%d", "kind": "view"}}\n' % number for number in range(5_000)))
    log = tmp_path / "events.jsonl.gz"
    log.write_bytes(whole[: len(whole) // 2])
    readable = 0
    with suppress(EOFError), gzip.open(log) as lines:
        for _ in lines:
            readable += 1
    run = commands.run("publish", "--file", str(log))
    assert run.returncode == 1
    assert f"not a whole gzip file (Compressed file ended before the end-of-stream marker was reached); {readable:,} event(s) were sent before that" in run.stderr
    assert readable > 100


def test_a_gzipped_file_of_forty_thousand_events_is_published_within_seconds(commands: Commands) -> None:
    """The shipped example; its moments lie in the past, which is fine."""
    started = time.monotonic()
    assert commands.rows("publish", "--file", "examples/open_bandit_events.jsonl.gz") == [{"published": 40_184, "bad": 0}]
    assert time.monotonic() - started < 40


def test_missing_topics_are_said_in_one_line(kafka_settings: Settings) -> None:
    """With what to do."""
    run = Commands(kafka_settings).run("publish", "interaction", "--variant-id", "v", "--kind", "view")
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.strip().endswith("is not there; `early-kill topics` creates it")
    assert run.stderr.count("\n") == 1


def test_topics_are_created_once(kafka_settings: Settings) -> None:
    """The names of new ones go to stdout; the second time there are none."""
    commands = Commands(kafka_settings)
    first, second = commands.run("topics"), commands.run("topics")
    assert (first.returncode, second.returncode) == (0, 0)
    assert min(first.stdout.split()) == f"{kafka_settings.topic_prefix}dead_letter"
    assert len(first.stdout.split()) == 6
    assert second.stdout == ""


def test_kills_are_followed_each_once(commands: Commands) -> None:
    """As JSON or in a line for people; ``--count`` ends it, ``--timeout`` says if they did not come."""
    asyncio.run(put_kills(commands.settings, 1, 1, 2))
    rows = commands.rows("kills", "--from-beginning", "--count", "2", "--timeout", "30")
    assert sorted(row["variant_id"] for row in rows) == ["v-1", "v-2"]
    assert kill_of(1) in rows
    human = commands.run("kills", "--from-beginning", "--human", "--timeout", "4")
    assert human.returncode == 0
    assert "KILLED  v-1  |  Below 50% of expected engagement rate  |  2.000% against 3.000% (10 of 500 views)  |  12.5 s after it was posted" in human.stdout
    short = commands.run("kills", "--from-beginning", "--count", "5", "--timeout", "4")
    assert (short.returncode, short.stderr) == (1, "2 of 5 kills came within 4 s\n")


def test_kills_of_a_group_go_on_where_they_stopped(commands: Commands) -> None:
    """What was printed counts as done."""
    asyncio.run(put_kills(commands.settings, 1, 2, 3))
    first = commands.rows("kills", "--group", "g", "--from-beginning", "--count", "2", "--timeout", "40")
    second = commands.rows("kills", "--group", "g", "--count", "1", "--timeout", "40")
    assert {row["variant_id"] for row in first + second} == {"v-1", "v-2", "v-3"}


def test_ctrl_c_ends_kills_quietly(commands: Commands) -> None:
    """A kill that came before it was printed at once, not at the end."""
    process = commands.start("kills", "--from-beginning")
    asyncio.run(put_kills(commands.settings, 1))
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["variant_id"] == "v-1"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "")


def test_a_log_is_replayed_through_the_command(commands: Commands, tmp_path: Path) -> None:
    """An hour in a second or so; twice, as sessions of their own."""
    log = tmp_path / "log"
    post = {"topic": "variant_posted", "value": {"variant_id": "v", "persona_id": "p", "post_id": "o", "posted_at": 1_600_000_000}}
    views = [{"topic": "interaction", "value": {"variant_id": "v", "post_id": "o", "kind": "view", "occurred_at": 1_600_000_000 + second}} for second in range(0, 3_600, 60)]
    log.write_text("\n".join(json.dumps(line) for line in [post, *views, {"topic": "interaction", "value": {}}]))
    for _ in range(2):
        started = time.monotonic()
        run = commands.run("replay", str(log), "--speed", "3600")
        assert run.returncode == 1  # one line of the log is bad
        assert "61 events sent" in run.stderr
        assert "1 bad line not sent" in run.stderr
        assert 1 < time.monotonic() - started < 20
    posts = asyncio.run(_posts(commands.settings))
    assert len({post["post_id"] for post in posts}) == 2
    assert all(post["timeout_minutes"] == pytest.approx(10 / 3600, abs=1e-7) for post in posts)


async def _posts(settings: Settings) -> list[dict[str, Any]]:
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(topic_name(settings, "variant_posted"), bootstrap_servers=settings.kafka_bootstrap_servers, auto_offset_reset="earliest")
    await consumer.start()
    posts = [json.loads((await asyncio.wait_for(consumer.getone(), 20)).value) for _ in range(2)]
    await consumer.stop()
    return posts


def test_dead_letters_are_listed_and_sent_again(commands: Commands) -> None:
    """One line each, on stdout; a record that is not there is said."""
    (landed,) = commands.rows("publish", "interaction", "--variant-id", "v", "--kind", "view")
    letter = {name: landed[name] for name in ("topic", "partition", "offset", "timestamp")} | {"reason": "no post"}
    asyncio.run(_put_letter(commands.settings, letter))
    (listed,) = commands.rows("dead-letters", "--limit", "5", "--reason", "post")
    assert listed["reason"] == "no post"
    (again,) = commands.rows("dead-letters", "resend", "--topic", "interaction", "--partition", str(landed["partition"]), "--offset", str(landed["offset"]))
    assert (again["fate"], again["landed"]["offset"]) == ("sent", landed["offset"] + 1)
    assert commands.rows("dead-letters", "resend", "--all")[0]["fate"] == "sent"
    missing = commands.run("dead-letters", "resend", "--topic", "interaction", "--partition", "0", "--offset", "999")
    assert (missing.returncode, missing.stderr) == (1, "there is no such dead letter\n")


async def _put_letter(settings: Settings, letter: dict[str, Any]) -> None:
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers, acks="all")
    await producer.start()
    await producer.send_and_wait(topic_name(settings, "dead_letter"), json.dumps(letter).encode(), key=b"v")
    await producer.stop()


async def test_a_subscriber_can_say_that_it_is_done_with_the_last_kill(kafka_settings: Settings) -> None:
    """As ``kills --group --count`` does."""
    await ensure_topics(kafka_settings)
    await put_kills(kafka_settings, 1)
    async with KillSubscriber(kafka_settings, group_id="g", from_beginning=True) as subscriber:
        await asyncio.wait_for(anext(subscriber), 20)
        await subscriber.done()
    async with KillSubscriber(kafka_settings, group_id="g") as subscriber:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(subscriber), 2)

"""Hostile records on the topics: each bad one is a dead letter with its reason, each good one between them counts, and nobody waits for any of them."""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

import psutil
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer, ConsumerRecord

from models.errors import Reject
from models.monitor import PartitionMonitor, Rejected
from models.monitoring_record import parse_keyed
from models.policy import Defaults
from streams.folding import FOLDS
from streams.local.child import free_port
from streams.local.kafka import KafkaServer
from streams.settings import Settings
from tests.faults import hostile
from tests.faults.hostile_judge import Partition
from tests.faults.hostile_mutator import Mutator
from tests.integration.system import System, books, fresh, running

NOW_MS = 1_764_000_000_123
NOW = NOW_MS / 1_000
SOURCES = ("variant_posted", "interaction", "monitoring_control")
RECORDS = int(os.environ.get("EARLY_KILL_HOSTILE_RECORDS", "20000"))
"""Records folded in process; a seventh of them goes through Kafka."""
SEED = int(os.environ.get("EARLY_KILL_HOSTILE_SEED", "1"))
STALL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Record:
    """A record as the transport hands it on."""

    topic: str
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


# -- in process ------------------------------------------------------------------------------------------------------


class Folding:
    """The monitor of one partition, and the contract's verdict on everything that it is given."""

    def __init__(self) -> None:
        self.monitor, self.judge = PartitionMonitor(0), Partition()
        self.results: Counter[str] = Counter()
        self.expected: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.longest = 0.0
        self._next = dict.fromkeys(SOURCES, 0)

    def fold(self, topic: str, contents: Iterable[tuple[bytes | None, bytes | None]]) -> dict[int, str]:
        """Fold (value, key) of one topic at once; return the reasons of the dead letters by place among them."""
        first = self._next[topic]
        records = [Record(topic, first + number, NOW_MS, key, value) for number, (value, key) in enumerate(contents)]
        self._next[topic] += len(records)
        expected = [self.judge.read(topic, record.value, record.key, NOW_MS * 1_000) for record in records]
        began = time.perf_counter()
        results = FOLDS[SOURCES.index(topic)](self.monitor, topic, records, Defaults(), NOW_MS * 1_000)
        self.longest = max(self.longest, time.perf_counter() - began)
        self.results.update({result.value: count for result, count in results.items()})
        self.expected.update(expected)
        reasons = {emission.offset - first: emission.reason for emission in self.monitor.take_emissions() if isinstance(emission, Rejected)}
        for at, (record, verdict) in enumerate(zip(records, expected, strict=True)):
            if (verdict == "dead_letter") != (at in reasons) or reasons.get(at) in ("", "internal error"):
                self.wrong.append(f"{topic} {record.value!r:.500} with key {record.key!r:.50}: {reasons.get(at, 'taken')}, has to be {verdict}")
        if Counter(expected) != Counter({result.value: count for result, count in results.items() if count}):
            self.wrong.append(f"{topic} {first}: {dict(results)}, has to be {dict(Counter(expected))}")
        return reasons

    def check(self) -> None:
        """Compare what has counted in the end."""
        assert self.wrong[:5] == []
        assert self.results == self.expected
        assert Counter(result.value for result, _ in self.monitor.take_resolved().elements()) == Counter(self.judge.late_results)
        counts = {(session.variant_id, session.post_id): session.counts.by_kind() for session in self.monitor.sessions}
        assert counts == {name: session.counts for name, session in self.judge.sessions.items()}


def staged() -> Folding:
    folding = Folding()
    folding.fold("variant_posted", [(value, key.encode()) for key, value in hostile.stage(NOW)])
    return folding


def test_each_case_has_the_result_and_the_reason_it_must_have() -> None:
    """Every case of the corpus, one by one; and the contract's verdict, worked out apart, is the one that the corpus names."""
    folding, wrong = staged(), []
    for case in hostile.corpus(NOW):
        before = folding.expected.copy()
        reason = folding.fold(case.topic, [(case.value, case.key)]).get(0)
        verdict = next(iter(folding.expected - before))
        if verdict != case.result or (case.result == "dead_letter" and (reason is None or case.reason not in reason)):
            wrong.append(f"{case.name}: {verdict}, {reason!r}; has to be {case.result}, {case.reason!r}")
    assert wrong == []
    folding.check()


def test_cases_among_others_have_the_same_results() -> None:
    """All of them at once, as many come in one fetch."""
    folding = staged()
    cases = hostile.corpus(NOW)
    for topic in SOURCES:
        folding.fold(topic, [(case.value, case.key) for case in cases if case.topic == topic])
    folding.check()
    assert folding.results == staged().results + Counter(case.result for case in cases)


def test_case_names_are_unique() -> None:
    """So that one can be found."""
    names = Counter(case.name for case in [*hostile.corpus(NOW), *hostile.record_corpus()])
    assert [name for name, count in names.items() if count > 1] == []
    assert len(names) > 400


def test_the_sink_takes_a_record_or_refuses_it_with_a_reason() -> None:
    """Every case of ``monitoring_record``."""
    wrong = []
    for case in hostile.record_corpus():
        try:
            parse_keyed(case.value, case.key)
        except Reject as error:
            if case.result == "kept" or case.reason not in str(error):
                wrong.append(f"{case.name}: {error!s:.200}, has to be {case.result}, {case.reason}")
        else:
            if case.result != "kept":
                wrong.append(f"{case.name}: taken")
    assert wrong == []


@pytest.mark.timeout(60 + RECORDS // 200)
def test_mutated_records_are_taken_or_refused_as_the_contract_says() -> None:
    """Records that went wrong at random, in slices of every size: each has the result that an independent reading of the contract gives it."""
    rng = random.Random(SEED)
    folding, variants = staged(), [f"v{number}" for number in range(8)]
    mutator = Mutator(rng, NOW, variants)
    left = RECORDS
    while left > 0:
        harm = rng.choice((0.01, 0.05, 1))  # among hundreds that are bad none is read by the slice
        batch = [mutator.record(harm) for _ in range(min(left, rng.choice((1, 5, 40, 300))))]
        left -= len(batch)
        for topic in SOURCES:
            folding.fold(topic, [(value, key) for name, value, key in batch if name == topic])
    folding.check()
    assert folding.longest < STALL_SECONDS
    assert min(folding.results[result] for result in ("counted", "duplicate", "early", "after_end", "waiting")) > 50, folding.results
    assert 0.15 < folding.results["dead_letter"] / RECORDS < 0.6, "the mutator has become too kind, or too cruel"


# -- on Kafka and PostgreSQL -----------------------------------------------------------------------------------------


on_kafka = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(kafka: KafkaServer, module_database: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """One monitor and one sink."""
    settings = Settings.model_validate(
        {"kafka_bootstrap_servers": kafka.bootstrap_servers, "database_url": module_database, "topic_prefix": fresh("h") + ".", "app_id": fresh("app"), "web_port": free_port()}
    )
    async with running(settings, tmp_path_factory.mktemp("hostile")) as made:
        yield made


def verdicts(records: dict[str, list[ConsumerRecord]]) -> tuple[dict[int, Partition], set[tuple[str, int, int]]]:
    """Judge what is on the source topics; posts and stops of others than those that the interactions name may stand in any order to them."""
    judges: dict[int, Partition] = {}
    dead = set()
    for topic in SOURCES:
        for record in sorted(records[topic], key=lambda one: (one.partition, one.offset)):
            if judges.setdefault(record.partition, Partition()).read(topic, record.value, record.key, record.timestamp * 1_000) == "dead_letter":
                dead.add((topic, record.partition, record.offset))
    return judges, dead


async def sources(system: System) -> dict[str, list[ConsumerRecord]]:
    return {topic: await system.records(topic) for topic in SOURCES}


async def letters(system: System) -> dict[tuple[str, int, int], str]:
    """The reason of each dead letter, by the record's place."""
    found = [json.loads(record.value or b"") for record in await system.records("dead_letter")]
    return {(letter["topic"].removeprefix(system.settings.topic_prefix), letter["partition"], letter["offset"]): letter["reason"] for letter in found}


async def until_counted(system: System, judges: dict[int, Partition], variants: Iterable[str], seconds: float = 30) -> None:
    """Wait until the API tells of each of these variants' sessions what the judge says."""
    expected = {name: session.counts for judge in judges.values() for name, session in judge.sessions.items() if name[0] in set(variants)}
    deadline = time.monotonic() + seconds
    while True:
        told = {}
        for variant, post in expected:
            _, body = await system.call(system.monitors[0], "GET", f"/performance-monitor/status/{variant}?post_id={post}")
            told[variant, post] = body.get("counts")
        wrong = {name: (told[name], counts) for name, counts in expected.items() if told[name] != counts}
        if not wrong:
            return
        assert time.monotonic() < deadline, wrong
        await asyncio.sleep(0.3)


async def results(system: System) -> tuple[int, Counter[str]]:
    """Records that the monitor has read, and their results."""
    _, text = await system.call(system.monitors[0], "GET", "/metrics")
    read, counts = books(text)
    return read.total(), counts


def command(system: System, *arguments: str) -> list[dict[str, Any]]:
    """Run ``early-kill`` against the system, and return the JSON lines that it prints."""
    environment = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": system.settings.kafka_bootstrap_servers, "EARLY_KILL_TOPIC_PREFIX": system.settings.topic_prefix}
    done = subprocess.run([sys.executable, "-m", "streams.cli", *arguments], env=environment, capture_output=True, timeout=60, check=False)
    assert b"Traceback" not in done.stderr
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


VARIANTS = [f"v{number}" for number in range(8)]
PROBES = 25


class TestOnKafka:
    """In this order: the later ones look at what the first has left."""

    pytestmark = on_kafka

    async def test_bad_records_are_dead_letters_good_ones_count_and_none_waits_for_another(self, system: System) -> None:
        """The corpus, mutated records and what decides kills, mixed: as many dead letters as bad records, counts to the last one, kills within a second."""
        now = time.time()
        for key, value in hostile.stage(now):
            await system.send("variant_posted", value, key.encode())
        for variant in VARIANTS:
            for post in range(3):
                await system.post(variant, post_id=f"q{post}", posted_at=now - 3_000 - post, timeout_minutes=43_200, min_interactions=1_000_000)
        for number in range(PROBES):
            await system.post(f"probe-{number}", timeout_minutes=600)
        await system.until(lambda: len(system.query("SELECT 1 FROM variant_monitoring")) == 3 + 3 * len(VARIANTS) + PROBES, 20)

        rng = random.Random(SEED)
        mutator = Mutator(rng, now, VARIANTS, others=["n0", "n1", "n2"])
        bad_records = hostile.record_corpus()
        poison = [(case.topic, case.value, case.key) for case in [*hostile.corpus(now), *bad_records]]
        poison += [mutator.record() for _ in range(RECORDS // 7)]
        order = list(range(len(poison)))
        rng.shuffle(order)
        # What depends on what came before it stays in its order: ids given twice, the doomed session, names of posts.
        kept = iter(sorted(place for place in order if place < len(poison) - RECORDS // 7))
        mixed = [poison[next(kept) if place < len(poison) - RECORDS // 7 else place] for place in order]
        for number, (topic, value, key) in enumerate(mixed):
            sending = await system.send(topic, value, key)
            if number % (len(mixed) // PROBES) == 0 and number // (len(mixed) // PROBES) < PROBES:
                probe = f"probe-{number // (len(mixed) // PROBES)}"
                await system.interact(probe, "view", count=334)
                await system.interact(probe, "like", count=10)
            if number % 50 == 0:
                await asyncio.sleep(0.05)  # what is measured is how long a record waits for bad ones, not for its turn in a flood
        await sending

        records = await sources(system)
        judges, dead = verdicts(records)
        dead |= {
            ("monitoring_record", record.partition, record.offset)
            for record in await system.records("monitoring_record")
            if (record.value, record.key) in {(case.value, case.key) for case in bad_records if case.result == "dead_letter"}
        }
        await until_counted(system, judges, [*VARIANTS, hostile.VARIANT, hostile.DOOMED, hostile.BRIEF])
        deadline = time.monotonic() + 20
        while len(found := await letters(system)) < len(dead) and time.monotonic() < deadline:
            await asyncio.sleep(0.3)
        assert found.keys() - dead == set()
        assert dead - found.keys() == set()
        assert [reason for reason in found.values() if not reason or reason == "internal error" or len(reason) > 1_000] == []
        assert len([place for place in dead if place[0] == "monitoring_record"]) == len([case for case in bad_records if case.result == "dead_letter"])

        killed = {json.loads(record.value or b"")["variant_id"]: record.timestamp for record in await system.records("variant_killed")}
        appended = {record.key.decode(): record.timestamp for record in records["interaction"] if record.key is not None and record.key.startswith(b"probe-")}
        latencies = {probe: (killed[probe] - appended[probe]) / 1_000 for probe in appended}
        assert len(latencies) == PROBES
        assert max(latencies.values()) < STALL_SECONDS, latencies

    async def test_each_good_post_and_each_good_record_is_in_the_database(self, system: System) -> None:
        """However odd: one row for each session that the judge knows, and for each record of the corpus that is to be kept."""
        judges, _ = verdicts(await sources(system))
        expected = {name for judge in judges.values() for name in judge.sessions} | {
            (case.key.decode(), "q") for case in hostile.record_corpus() if case.key and case.result == "kept"
        }

        def there() -> set[tuple[str, str]]:
            return {(row["variant_id"], row["post_id"]) for row in system.query("SELECT variant_id, post_id FROM variant_monitoring")}

        await system.until(lambda: there() >= expected, 20, "all sessions are in the database")
        assert there() == expected

    async def test_every_record_read_has_exactly_one_result(self, system: System) -> None:
        """The metrics balance, and name as many dead letters as there are."""
        records = await sources(system)
        _, dead = verdicts(records)
        read, counts = await results(system)
        assert read == sum(map(len, records.values())) == counts.total()
        assert counts["dead_letter"] == len(dead)

    async def test_workers_live_on_and_their_logs_are_clean(self, system: System) -> None:
        """No traceback, no restart, nothing of a record in a log line that could forge another."""
        for worker in (*system.monitors, system.sink):
            assert worker.is_running
            log = worker.log.read_text()
            assert "Traceback" not in log
            assert "internal error" not in log
            assert "\x1b[31m" not in log

    async def test_dead_letters_are_listed_and_what_can_be_used_by_now_counts_once_when_it_is_sent_again(self, system: System) -> None:
        """By the commands that people use: those that lay a little too far ahead count, however often they are sent again; the rest stays where it is."""
        await system.post("ahead", timeout_minutes=600)
        before = await letters(system)
        early = {"variant_id": "ahead", "post_id": "ahead-post", "kind": "save", "occurred_at": time.time() + 302}
        ahead = await asyncio.gather(*[await system.send("interaction", early) for _ in range(5)])
        places = {("interaction", landed.partition, landed.offset) for landed in ahead}
        deadline = time.monotonic() + 10
        while not (await letters(system)).keys() >= places:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        listed = await asyncio.to_thread(command, system, "dead-letters")
        prefix = system.settings.topic_prefix
        assert {(letter["topic"].removeprefix(prefix), letter["partition"], letter["offset"]) for letter in listed} == before.keys() | places
        await asyncio.sleep(2.5)
        for _ in range(2):
            resent = await asyncio.to_thread(command, system, "dead-letters", "resend", "--all", "--reason", "more than 5 minutes")
            fates = {(letter["topic"].removeprefix(prefix), letter["partition"], letter["offset"]): letter["fate"] for letter in resent}
            assert places <= {place for place, fate in fates.items() if fate == "sent"}
            assert set(fates.values()) == {"sent", "unusable"}
        judges, dead = verdicts(await sources(system))
        counts = next(session.counts for judge in judges.values() for name, session in judge.sessions.items() if name[0] == "ahead")
        assert counts["save"] == 5
        await until_counted(system, judges, [*VARIANTS, hostile.VARIANT, "ahead"])
        assert {place for place in (await letters(system)) if place[0] != "monitoring_record"} == dead

    async def test_thousands_of_headers_are_nobodys_business(self, system: System) -> None:
        """A good value counts with 5,000 headers beside it."""
        await system.post("headed")
        producer = AIOKafkaProducer(bootstrap_servers=system.settings.kafka_bootstrap_servers)
        await producer.start()
        try:
            value = hostile.say({"variant_id": "headed", "kind": "like", "post_id": "headed-post"})
            await producer.send_and_wait(system.topic("interaction"), value, key=b"headed", headers=[(f"header-{number}", b"x" * 100) for number in range(5_000)])
        finally:
            await producer.stop()
        judges, _ = verdicts(await sources(system))
        await until_counted(system, judges, ["headed"])

    async def test_hundreds_of_bad_records_hold_nobody_up_for_a_second(self, system: System) -> None:
        """Of every kind, some of them 64 KiB of which only the last bytes are wrong: a kill behind all of them comes within a second of its event.

        Two of three, for other programs on this machine take their turns too.
        """
        bad = [case.value for case in hostile.corpus(time.time()) if case.result == "dead_letter" and case.topic == "interaction" and len(case.value or b"") < 100_000]
        bad = 2 * bad + 5 * [b'{"a":[' + part * (65_400 // len(part)) + b'1],"b":NaN}' for part in (b"1,", b"1.5,", b"{},", b'"",', b'{"a":1,"a":2},')]
        assert len(bad) > 300
        latencies = []
        for patient in ("patient-0", "patient-1", "patient-2"):
            await system.post(patient, timeout_minutes=600)
            await system.until(lambda patient=patient: system.sessions(patient), 20)  # type: ignore[misc]
            for value in bad:
                await system.send("interaction", value, patient.encode())
            await system.interact(patient, "view", count=334)
            appended = (await system.interact(patient, "like", count=10)).timestamp
            await system.until_ended([patient])
            [killed] = [record.timestamp for record in await system.records("variant_killed") if record.key == patient.encode()]
            latencies.append((killed - appended) / 1_000)
        assert statistics.median(latencies) < STALL_SECONDS, latencies

    async def test_a_batch_that_unpacks_to_a_thousandfold_is_worked_off_and_given_back(self, system: System) -> None:
        """54 MB in a batch of some KiB: each of it a dead letter, and the memory is free again."""
        before = memory_of(system)
        producer = AIOKafkaProducer(
            bootstrap_servers=system.settings.kafka_bootstrap_servers, compression_type="gzip", max_batch_size=1 << 27, max_request_size=1 << 27, linger_ms=200
        )
        await producer.start()
        try:
            sent = [await producer.send(system.topic("interaction"), b"[" * 900_000, key=b"behind") for _ in range(60)]
            bombs = {("interaction", landed.partition, landed.offset) for landed in await asyncio.gather(*sent)}
        finally:
            await producer.stop()
        deadline = time.monotonic() + 20
        while not (await letters(system)).keys() >= bombs:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)
        assert memory_of(system) - before < 250


def memory_of(system: System) -> float:
    """MiB that the monitor holds."""
    process = system.monitors[0]._process
    assert process is not None
    return float(psutil.Process(process.pid).memory_info().rss / 2**20)

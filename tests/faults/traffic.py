"""Seeded traffic: variants that do well or badly, early and late events, duplicates, garbage, stops; sent in real time, through outages too."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

KINDS = ("view", "like", "reply", "repost", "quote", "share", "click", "save")
TOTALS = ("views", "likes", "replies", "reposts", "quotes", "shares", "clicks", "saves")
GARBAGE = (None, b"", b"[]", b"\xff\xfe", b'{"variant_id":', b"{}", b'{"variant_id": "somebody else", "kind": "view"}', b'"text"')
AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Planned:
    """One record; ``at`` in seconds from the start."""

    at: float
    topic: str
    key: bytes
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What is sent, and the variants that it posts."""

    records: list[Planned]
    variants: list[str]


def make_plan(seed: int, variants: int, events: int, seconds: float) -> Plan:
    """Make up a day of ``seconds``: sessions begin in its first half; the last deadline is at most a third of it past its end."""
    chance, records, names = Random(f"traffic {seed}"), [], []
    now = time.time()
    for number in range(variants):
        name = f"v{number}-{seed}"
        names.append(name)
        records += _variant(chance, name, now, seconds, max(1, events // variants))
    return Plan(sorted(records, key=lambda record: record.at), names)


def _moment(unix: float, chance: Random) -> Any:
    return round(unix * 1_000) if chance.random() < 0.5 else datetime.fromtimestamp(unix, UTC).isoformat()


def _variant(chance: Random, name: str, now: float, seconds: float, events: int) -> list[Planned]:
    key, post = name.encode(), f"{name}-post"
    posted, length = chance.uniform(0, 0.5 * seconds), chance.uniform(0.4, 0.8) * seconds
    will_be_stopped, says_when = chance.random() < 0.05, chance.random() < 0.5
    posting: dict[str, Any] = {"variant_id": name, "persona_id": f"persona-{chance.randrange(5)}", "post_id": post, "min_interactions": chance.choice((2, 3, 5))}
    posting |= {"timeout_minutes": 30 if will_be_stopped else length / 60}
    lag = 0.0
    if says_when:
        posting["posted_at"], lag = _moment(now + posted, chance), chance.choice((0.0, 0.0, chance.uniform(0, 1.5)))
    records = [Planned(posted + lag, "variant_posted", key, _encoded(posting))]
    if chance.random() < 0.05:
        records.append(Planned(posted + lag + 1, "variant_posted", key, _encoded(posting | {"min_interactions": 1})))
    if will_be_stopped:
        records.append(Planned(posted + lag + chance.uniform(1, 0.4 * seconds), "monitoring_control", key, _encoded(_stop(name, post))))
    liking = 0.0 if will_be_stopped else chance.choice((0.02, 0.02, 0.2, 0.3))
    for number in range(events):
        at = posted + chance.uniform(-0.02, 1.05) * length
        if chance.random() < 0.005:
            records.append(Planned(at, "interaction", key, chance.choice(GARBAGE)))
            continue
        event = _event(chance, name, post, liking, number)
        if chance.random() < 0.5:
            event["occurred_at"] = _moment(now + at, chance)
        if number % 7 == 0:
            del event["post_id"]
        records += [Planned(at + again, "interaction", key, _encoded(event)) for again in ((0.0, chance.uniform(0, 3)) if chance.random() < 0.03 else (0.0,))]
    return records


def _event(chance: Random, name: str, post: str, liking: float, number: int) -> dict[str, Any]:
    if chance.random() < 0.04 and liking:
        totals = {total: chance.randrange(2) for total in TOTALS[1:]} | {"views": chance.randrange(200)}
        return {"variant_id": name, "post_id": post, "kind": "snapshot", "totals": totals}
    event: dict[str, Any] = {"variant_id": name, "post_id": post, "kind": chance.choice(KINDS[1:]) if chance.random() < liking else "view"}
    if event["kind"] == "view":
        event["count"] = chance.randint(1, 9)
    if chance.random() < 0.5:
        event["event_id"] = f"event-{number}"
    return event


def _stop(name: str, post: str) -> dict[str, Any]:
    stop = {"schema_version": 1, "action": "stop", "variant_id": name, "post_id": post, "request_id": "390c3896-29b9-43ac-95f0-031d3760aa74"}
    return stop | {"requested_by": "test", "requested_at": datetime.now(UTC).isoformat()}


def _encoded(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode()


class Sender:
    """Sends a plan in real time; what Kafka does not take is sent again, perhaps a second time."""

    def __init__(self, bootstrap_servers: str, prefix: str) -> None:
        self._bootstrap_servers, self._prefix = bootstrap_servers, prefix
        self._producer: AIOKafkaProducer | None = None

    async def send(self, plan: Plan) -> None:
        """Return when all of it is on the topics."""
        try:
            await self._send_in_time(plan)
        finally:
            await self._discard()

    async def _send_in_time(self, plan: Plan) -> None:
        began = time.monotonic()
        part: list[Planned] = []
        for record in plan.records:
            part.append(record)
            ahead = record.at - (time.monotonic() - began)
            if ahead > 0.02 or len(part) >= AT_ONCE:
                await self._send(part)
                part = []
                await asyncio.sleep(max(0.0, record.at - (time.monotonic() - began)))
        await self._send(part)

    async def _send(self, part: list[Planned]) -> None:
        left = part
        while left:
            try:
                async with asyncio.timeout(10):
                    if self._producer is None:
                        producer = AIOKafkaProducer(bootstrap_servers=self._bootstrap_servers, acks="all", linger_ms=2, request_timeout_ms=8_000)
                        self._producer = producer
                        await producer.start()
                    futures = [await self._producer.send(self._prefix + record.topic, record.value, key=record.key) for record in left]
                    results = await asyncio.gather(*futures, return_exceptions=True)
                left = [record for record, result in zip(left, results, strict=True) if isinstance(result, BaseException)]
            except (KafkaError, OSError, TimeoutError):
                pass
            if left:
                await self._discard()
                await asyncio.sleep(0.3)

    async def _discard(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            try:
                async with asyncio.timeout(2):
                    await producer.stop()
            except (KafkaError, OSError, TimeoutError):
                pass

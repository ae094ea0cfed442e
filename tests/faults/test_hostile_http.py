"""Hostile requests to a real monitor and a real sink: no answer is a 5xx, nothing grows, nothing of it gets into the logs, and others are served meanwhile."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import random
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import psutil
import pytest
import pytest_asyncio

from streams.local.child import free_port
from streams.local.kafka import KafkaServer
from streams.settings import Settings
from tests.faults.hostile_judge import Partition, Unusable, read
from tests.faults.hostile_mutator import Mutator
from tests.integration.system import System, Worker, fresh, running

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]
P = "/performance-monitor"
READ, OPERATE = "read-secret-1", "operate-secret-2"
REQUESTS = int(os.environ.get("EARLY_KILL_HOSTILE_REQUESTS", "500"))
"""Requests that are made up at random; on demand some 20,000."""
SEED = int(os.environ.get("EARLY_KILL_HOSTILE_SEED", "1"))
MIB = 1 << 20


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(kafka: KafkaServer, module_database: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """One monitor and one sink, with tokens."""
    settings = Settings.model_validate(
        {"kafka_bootstrap_servers": kafka.bootstrap_servers, "database_url": module_database, "topic_prefix": fresh("w") + ".", "app_id": fresh("app"), "web_port": free_port()}
    )
    tokens = {"EARLY_KILL_READ_TOKENS": json.dumps([READ]), "EARLY_KILL_OPERATE_TOKENS": json.dumps([OPERATE])}
    async with running(settings, tmp_path_factory.mktemp("hostile-http"), **tokens) as made:
        yield made


def request(method: str, path: str, *headers: str, body: bytes = b"", token: str | None = OPERATE, length: int | None = None) -> bytes:
    """A request as bytes; ``Content-Type`` is JSON unless a header says otherwise."""
    lines = [f"{method} {path} HTTP/1.1", *(() if any(line.lower().startswith("host:") for line in headers) else ("Host: 127.0.0.1",)), *headers]
    lines += [] if token is None else [f"Authorization: Bearer {token}"]
    if method == "POST":
        lines += [] if any(line.lower().startswith("content-type:") for line in headers) else ["Content-Type: application/json"]
        lines += [] if any(line.lower().startswith("transfer-encoding:") for line in headers) else [f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("utf-8", "surrogateescape") + body


async def ask(worker: Worker, sent: bytes, patience: float = 15) -> tuple[int | None, bytes]:
    """Send bytes as they are; return the status of the first answer (None without one in that time) and all that came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", worker.port)
    try:
        writer.write(sent)
        try:
            async with asyncio.timeout(patience):
                await writer.drain()
                came = await reader.read()
        except (ConnectionError, TimeoutError):
            came = bytes(reader._buffer)  # type: ignore[attr-defined] # it answered, and closed before all was sent, or keeps the connection
        return (int(came[9:12]) if came.startswith(b"HTTP/1.") else None), came
    finally:
        writer.close()


def check(name: str, status: int | None, came: bytes, allowed: tuple[int | None, ...]) -> str | None:
    """Return what is wrong with an answer."""
    if status not in allowed:
        return f"{name}: {status}, has to be one of {allowed}; {came[-300:]!r}"
    if status is not None and status >= 400 and b"HEAD" not in name.encode()[:4] and b"application/problem+json" not in came:
        return f"{name}: no problem document; {came[:300]!r}"
    return f"{name}: {came[-300:]!r}" if b"Traceback" in came or b"aiohttp" in came.lower() else None


async def memory(system: System) -> list[float]:
    """MiB of the monitor and of the sink."""
    processes = [worker._process for worker in (system.monitors[0], system.sink)]
    return [psutil.Process(process.pid).memory_info().rss / MIB for process in processes if process is not None]


START = f"{P}/start-monitoring"
WHOLE = json.dumps({"variant_id": "v", "persona_id": "ada", "post_id": "p", "expected_engagement_rate": 0.06}).encode()
"""The body of a start."""


def bodies() -> Iterator[tuple[str, bytes, int]]:
    """(what is wrong, body of a START, status)."""
    yield from (
        ("nothing", b"", 400),
        ("no JSON", b"{", 400),
        ("a list", b"[]", 400),
        ("two documents", WHOLE + WHOLE, 400),
        ("bytes that are no text", WHOLE[:-1] + b',"x":"\xff"}', 400),
        ("a byte order mark", b"\xef\xbb\xbf" + WHOLE, 400),
        ("UTF-16", WHOLE.decode().encode("utf-16"), 400),
        ("20,000 levels", b'{"a":' * 10_000 + b"1" + b"}" * 10_000, 400),
        ("60,000 brackets", b"[" * 60_000, 400),
        ("600 levels", WHOLE[:-1] + b',"x":' + b"[" * 600 + b"]" * 600 + b"}", 422),
        ("an integer of 60,000 digits", WHOLE[:-1] + b',"x":' + b"9" * 60_000 + b"}", 400),
    )
    for token in (b"NaN", b"Infinity", b"-Infinity", b"1e999", b'"\\u0000"', b'"\\ud800"', b"[[1e999]]", b'{"y":["\\u0000"]}'):
        yield f"{token.decode()} in a field nobody knows", WHOLE[:-1] + b',"later":' + token + b"}", 422
        yield f"{token.decode()} as the rate", WHOLE.replace(b"0.06", token), 422
        yield f"{token.decode()} given before", b'{"post_id":' + token + b"," + WHOLE[1:], 422
    for token in (b"9" * 400, b"-1", b"0", b"2", b"true", b'"0.06"', b"null", b"[0.06]"):
        yield f"{token.decode()[:9]} as the rate", WHOLE.replace(b"0.06", token), 422
    for token in (b'""', b'"' + b"x" * 201 + b'"', b'"a\\n"', b"5", b"null", b"{}"):
        yield f"{token.decode()[:9]} as the id", WHOLE.replace(b'"v"', token), 422


async def test_a_bad_body_is_refused_by_the_name_of_its_field(system: System) -> None:
    """400 where there is no object, else 422 that names each field; none of it is published."""
    wrong = []
    for name, body, status in bodies():
        got, came = await ask(system.monitors[0], request("POST", f"{P}/start-monitoring", body=body))
        wrong.append(check(name, got, came, (status,)))
        if got == 422 and not all(problem["field"] and problem["detail"] for problem in json.loads(came.partition(b"\r\n\r\n")[2])["errors"]):
            wrong.append(f"{name}: no field is named")
    assert "\n".join(line for line in wrong if line) == ""
    assert await system.records("variant_posted") == []


Shape = tuple[str, bytes, tuple[int | None, ...]]


def shapes() -> Iterator[Shape]:
    """(what is wrong, request, statuses): to a monitor."""
    yield from _of_bodies()
    yield from _of_addresses()
    yield from _of_headers()
    yield from _of_callers()


def _of_bodies() -> Iterator[Shape]:
    yield "50 MB declared", request("POST", START, length=50 * MIB), (413,)
    yield "50 MB sent", request("POST", START, body=b" " * (50 * MIB)), (413,)
    yield "50 MB sent to a stop", request("POST", f"{P}/stop/v", body=b" " * (50 * MIB)), (413,)
    yield "50 MB sent where nobody listens", request("POST", "/nothing", body=b" " * (50 * MIB)), (404, 413)
    yield "50 MB sent to what is read only", request("POST", "/metrics", body=b" " * (50 * MIB)), (405, 413)
    yield "10 MB in chunks", request("POST", START, "Transfer-Encoding: chunked", body=b"".join(b"10000\r\n" + b" " * 0x10000 + b"\r\n" for _ in range(160))), (413,)
    yield "a million empty chunk extensions", request("POST", START, "Transfer-Encoding: chunked", body=b"1;" + b"x" * MIB + b"\r\n \r\n0\r\n\r\n"), (400,)
    yield "chunks that are none", request("POST", START, "Transfer-Encoding: chunked", body=b"zz\r\n" + WHOLE), (400,)
    yield "a chunk of 2^64 bytes", request("POST", START, "Transfer-Encoding: chunked", body=b"FFFFFFFFFFFFFFFFF\r\n" + WHOLE), (400, 413)
    yield "both lengths", request("POST", START, "Transfer-Encoding: chunked", "Content-Length: 5", body=b"0\r\n\r\n"), (400,)
    yield "two lengths", request("POST", START, "Content-Length: 5", body=WHOLE), (400,)
    yield "a length that is none", request("POST", START, body=WHOLE).replace(b"Content-Length: ", b"Content-Length: x"), (400,)
    yield "a negative length", request("POST", START, length=-1), (400,)
    yield "gzip", request("POST", START, "Content-Encoding: gzip", body=gzip.compress(b" " * 20 * MIB)), (415,)
    yield "an encoding nobody knows", request("POST", START, "Content-Encoding: x, gzip", body=WHOLE), (415,)
    for kind in (
        "text/plain",
        "application/xml",
        "application/jsonx",
        "application/json; charset=latin-1",
        "",
        ";;;=",
        "a" * 5_000,
        "multipart/form-data",
    ):
        yield f"the type {kind[:20]!r}", request("POST", START, f"Content-Type: {kind}", body=WHOLE), (415,)


def _of_addresses() -> Iterator[Shape]:
    for path in (
        "%2f",
        "%2F%2e%2e%2fetc%2fpasswd",
        "%2e%2e",
        "a%2fb",
        "%25",
        "%",
        "%zz",
        "x" * 200,
        "x" * 4_000,
        "%F0%9F%98%80",
        "'%20OR%201=1--",
        "<script>",
        "~",
        "a;b=c",
        "a?post_id=%2f",
    ):
        yield f"the id {path[:20]!r}", request("GET", f"{P}/status/{path}", token=READ), (404, 422, 400)
        yield f"the id {path[:20]!r} to stop", request("POST", f"{P}/stop/{path}"), (404, 422, 400)
        yield f"the id {path[:20]!r} to revive", request("POST", f"{P}/revive/{path}"), (404, 422, 400)
    for path in ("%00", "a%00", "%ff", "%ed%a0%80", "%c2%85", "%0a", "%1b", "x" * 201, "a?post_id=%00", "a?post_id=", "a?post_id=" + "x" * 201):
        yield f"the id {path[:20]!r}", request("GET", f"{P}/status/{path}", token=READ), (422,)
    for path in (f"{P}/status/{'x' * 10_000}", f"/{'x' * 100_000}", f"{P}/sessions?{'a=b&' * 5_000}"):
        yield f"a path of {len(path)} characters", request("GET", path), (400, 414)
    for path in (
        "/..",
        "/../../etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "//",
        "//evil.example/x",
        "/static/../../x",
        "/%2e%2e/",
        f"{P}/../health/x",
        f"{P}/status/a/b",
        "/%00",
        "/\\",
        "/?x",
        "*",
        "x",
    ):
        yield f"the path {path}", request("GET", path), (200, 400, 404)
    for query in (
        "limit=0",
        "limit=501",
        "limit=-1",
        "limit=1e2",
        "limit=%D9%A5",
        "limit=" + "9" * 5_000,
        "cursor=x",
        "cursor=" + "A" * 5_000,
        "cursor=%ff",
        "cursor=%00",
        "outcome=x",
        "outcome=%00",
    ):
        yield f"?{query[:20]}", request("GET", f"{P}/sessions?{query}"), (422,)
    yield "?variant_id=%00", request("GET", f"{P}/sessions?variant_id=%00"), (422,)
    yield "?persona_id with 201 characters", request("GET", f"{P}/sessions?persona_id={'x' * 201}"), (422,)
    yield "SQL", request("GET", f"{P}/sessions?variant_id=%27%3B%20DROP%20TABLE%20variant_monitoring%3B--&persona_id=%25&outcome=killed"), (200,)
    yield "an absolute path", request("GET", "http://evil.example/health"), (200, 400, 404)
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "BREW", "GET", "POST", "CONNECT", "X" * 50):
        for path in ("/health", "/metrics", START, f"{P}/stop/v", f"{P}/status/v"):
            yield f"{method[:9]} {path}", request(method, path, body=b"" if method != "POST" else WHOLE[:-1]), (200, 400, 404, 405)
    for line in (
        b"",
        b"\x00\x01\x02\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"G\x00T / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ):
        if line:
            yield f"the line {line[:12]!r}", line, (400,)


def _of_headers() -> Iterator[Shape]:
    yield "10,000 headers", request("GET", "/health", *[f"X-{number}: y" for number in range(10_000)]), (400, 431)
    yield "10,000 equal headers", request("GET", "/health", *["X: y"] * 10_000), (400, 431)
    yield "a header of 1 MB", request("GET", "/health", "X: " + "y" * MIB), (400, 431, None)
    yield "a header that is folded", request("GET", "/health", "X: y\r\n z"), (200, 400)
    yield "a header with a bare return", request("GET", "/health", "X: y\rY: z"), (400,)
    yield "a header with U+0000", request("GET", "/health", "X: y\x00z"), (400,)
    yield "a header without a name", request("GET", "/health", ": y"), (400,)
    yield "a header with a space", request("GET", "/health", "X : y"), (400,)
    yield "two hosts", request("GET", "/health", "Host: a", "Host: b"), (200, 400)
    yield "a strange host", request("GET", "/health", "Host: [::1"), (200, 400)
    yield "an upgrade", request("GET", "/health", "Upgrade: websocket", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13"), (200, 400)
    yield "an upgrade to HTTP/2", request("GET", "/health", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"), (200, 400)
    yield "an expectation", request("GET", "/health", "Expect: miracles"), (417,)
    yield "an expectation that is no text", request("GET", "/health", "Expect: \udcff"), (400,)
    yield "ranges", request("GET", "/", "Range: bytes=0-0,1-1,2-2", token=READ), (200,)
    for key in ("x", "'; --", "\x7f", "\u00e9", "9" * 8_000, "00000000-0000-0000-0000-00000000000g", "{}"):
        yield f"the Idempotency-Key {key[:9]!r}", request("POST", f"{P}/stop/nobody", f"Idempotency-Key: {key}"), (400, 404, 422)
        yield f"the X-Request-Id {key[:9]!r}", request("GET", f"{P}/status/nobody", f"X-Request-Id: {key}"), (400, 404)


def _of_callers() -> Iterator[Shape]:
    for token in (None, "", "old", READ[:-1], READ + "x", READ.upper(), "\u00e9", "x" * 7_000):
        yield f"the token {token and token[:9]!r}", request("GET", f"{P}/active", token=token), (401,)
        yield f"the token {token and token[:9]!r} to stop", request("POST", f"{P}/stop/v", token=token), (401,)
    yield "a reader who stops", request("POST", f"{P}/stop/v", token=READ), (403,)
    yield "a reader who starts", request("POST", START, token=READ, body=WHOLE), (403,)
    yield "a reader who sends 50 MB", request("POST", START, token=READ, body=b" " * (50 * MIB)), (403, 413)
    yield "a stranger who sends 50 MB", request("POST", START, token=None, body=b" " * (50 * MIB)), (401, 413)
    for body in (b'{"variant_ids":5}', b'{"variant_ids":[5]}', b'{"variant_ids":"x"}', b"{}"):
        yield f"a lookup of {body.decode()}", request("POST", f"{P}/peer/lookup", body=body), (422,)
    yield "a lookup of 10,000", request("POST", f"{P}/peer/lookup", body=json.dumps({"variant_ids": ["", *map(str, range(5_000)), "x" * 5_000]}).encode()), (200,)
    for body in (b'{"limit":0}', b'{"limit":true}', b'{"limit":1e1}', b'{"limit":5,"after":5}', b'{"limit":5,"after":["x",1]}', b"{}"):
        yield f"a page of {body.decode()}", request("POST", f"{P}/peer/active", body=body), (422,)
    yield "a page after the end of time", request("POST", f"{P}/peer/active", body=b'{"limit":5,"after":[' + b"9" * 400 + b',"x"]}'), (200,)


async def test_no_request_is_answered_with_an_error_of_ours(system: System) -> None:
    """Every shape that is wrong gets the 4xx that says so; answers are problem documents; memory does not grow."""
    monitor = system.monitors[0]
    await ask(monitor, request("POST", f"{P}/start-monitoring", body=b" " * (50 * MIB)))
    before, wrong = await memory(system), []
    for name, sent, allowed in shapes():
        status, came = await ask(monitor, sent)
        wrong.append(check(name, status, came, allowed))
    assert "\n".join(line for line in wrong if line) == ""
    after = await memory(system)
    assert after[0] - before[0] < 30, (before, after)
    assert await system.records("variant_posted") == []


async def test_the_sink_is_as_unmoved(system: System) -> None:
    """The same requests: it knows three addresses, and takes no body at all."""
    before, wrong = await memory(system), []
    for name, sent, _ in shapes():
        status, came = await ask(system.sink, sent)
        if status is not None and not 200 <= status < 500:
            wrong.append(f"{name}: {status}; {came[-300:]!r}")
        elif (status or 0) >= 400 and b"application/problem+json" not in came:
            wrong.append(f"{name}: no problem document; {came[:300]!r}")
    assert "\n".join(wrong) == ""
    assert (await memory(system))[1] - before[1] < 30
    assert system.sink.is_running


async def test_who_dawdles_holds_up_nobody(system: System) -> None:
    """200 connections whose headers or bodies trickle in or end nowhere; a call answers meanwhile, and a body that does not come is a 408."""
    monitor = system.monitors[0]
    begun = [b"", b"GET /health HT", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "]
    late = request("POST", f"{P}/start-monitoring", length=10) + b"{"
    connections = [await asyncio.open_connection("127.0.0.1", monitor.port) for _ in range(200)]
    try:
        for number, (_, writer) in enumerate(connections):
            writer.write(begun[number % len(begun)] if number < 150 else late)
        slowest = 0.0
        for _ in range(30):
            began = time.monotonic()
            status, _ = await ask(monitor, request("GET", f"{P}/active?limit=1", token=READ))
            slowest = max(slowest, time.monotonic() - began)
            assert status == 200
            for number, (_, writer) in enumerate(connections[:150]):
                if number % len(begun) == 2:
                    writer.write(b"y")
            await asyncio.sleep(0.1)
        assert slowest < 1
        async with asyncio.timeout(15):
            answers = await asyncio.gather(*(reader.read(12) for reader, _ in connections[150:]))
        assert set(answers) == {b"HTTP/1.1 408"}
    finally:
        for _, writer in connections:
            writer.close()


async def test_a_hundred_equal_stops_at_once_are_one(system: System) -> None:
    """100 equal answers of 200, one stop on the topic, one end in the database."""
    await system.post("stopped", timeout_minutes=600)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=100), headers={"Authorization": f"Bearer {OPERATE}"}) as client:
        deadline = time.monotonic() + 10
        while (await (await client.get(f"{system.monitors[0].url}{P}/status/stopped")).json()).get("is_active") is not True:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        key = str(uuid.uuid4())

        async def stop() -> tuple[int, Any]:
            async with client.post(f"{system.monitors[0].url}{P}/stop/stopped", headers={"Idempotency-Key": key}) as answer:
                return answer.status, await answer.json()

        answers = await asyncio.gather(*(stop() for _ in range(100)))
    assert answers == [(200, {"status": "monitoring_stopped", "variant_id": "stopped"})] * 100
    assert [record["variant_id"] for record in await system.values("monitoring_control")] == ["stopped"]
    [row] = (await system.until_ended(["stopped"])).values()
    assert row["outcome"] == "stopped"


@pytest.mark.timeout(60 + REQUESTS // 10)
async def test_requests_made_up_at_random_are_answered_as_the_contract_says(system: System) -> None:
    """Starts with mutated bodies: 201 or 409 where the contract takes it, else 400 or 422; and bytes of requests that went wrong: never a 5xx."""
    monitor, rng = system.monitors[0], random.Random(SEED)
    mutator = Mutator(rng, time.time(), [f"v{number}" for number in range(5)])
    templates = [sent for _, sent, _ in shapes() if len(sent) < 2_000]
    before = await memory(system)
    wrong: list[str | None] = []

    async def begin_one() -> None:
        topic, value, _ = mutator.record()
        if topic != "variant_posted":
            return
        status, came = await ask(monitor, request("POST", f"{P}/start-monitoring", body=value or b""))
        wrong.append(check(f"{value!r}", status, came, (201, 409) if can_start(value) else (400, 422)))

    async def damaged() -> None:
        sent = bytearray(rng.choice(templates))
        for _ in range(rng.choice((1, 2, 8))):
            at = rng.randrange(len(sent))
            sent[at : at + rng.choice((0, 1, 1, 3))] = rng.choice((b"", b"\x00", b"\r\n", b" ", b":", b"%", b"\xff", bytes([rng.randrange(256)]), b"x" * 300))
        status, came = await ask(monitor if rng.random() < 0.8 else system.sink, bytes(sent) + b"\r\n\r\n", 1.5)
        if status is not None and not 200 <= status < 500:
            wrong.append(f"{bytes(sent)!r}: {status}; {came[-300:]!r}")

    for begin in range(0, REQUESTS, 100):
        await asyncio.gather(*(damaged() for _ in range(min(100, REQUESTS - begin))), *(begin_one() for _ in range(70)))
    assert "\n".join(line for line in wrong if line) == ""
    after = await memory(system)
    assert [one - other for one, other in zip(after, before, strict=True) if one - other > 30] == []


def can_start(value: bytes | None) -> bool:
    """Whether the contract takes a body: a ``variant_posted`` whose expected rate is given."""
    try:
        fields = read(value)
    except Unusable:
        return False
    variant = fields.get("variant_id")
    if not isinstance(variant, str) or fields.get("expected_engagement_rate") is None:
        return False
    return Partition().read("variant_posted", value, variant.encode(), int(time.time() * 1e6)) == "counted"


async def test_who_may_not_stop_a_session_is_in_the_audit(system: System) -> None:
    """In PostgreSQL, with the variant that was meant."""
    status, _ = await ask(system.monitors[0], request("POST", f"{P}/stop/meant", token=READ))
    assert status == 403
    [row] = await system.until(lambda: system.query("SELECT * FROM monitoring_audit WHERE action = 'call_refused' AND variant_id = 'meant'"), 10)
    assert row["actor"] not in (READ, "anonymous")
    assert row["facts"] == {"call": "stop_monitoring", "granted": "read"}


async def test_nothing_of_it_is_in_the_logs(system: System) -> None:
    """After all of the above: no traceback, no token, no character that could forge a line or colour a terminal; and both workers are as alive as ever."""
    for worker in (system.monitors[0], system.sink):
        assert worker.is_running
        log = worker.log.read_text()
        assert [line for line in log.splitlines() if "Traceback" in line or "request failed" in line or ("request" in line and line.endswith("failed"))] == []
        assert READ not in log
        assert OPERATE not in log
        assert all(line.isprintable() for line in log.splitlines())
        status, _ = await ask(worker, request("GET", "/ready", token=READ))
        assert status == 200

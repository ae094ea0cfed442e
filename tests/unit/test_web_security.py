"""Who may call what, and what the API does with requests that are wrong, too large, or hostile. Over real HTTP."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
import re
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from models.errors import Stop
from streams.faust_app import create_app
from streams.local.child import free_port
from streams.metrics import Metrics
from streams.settings import Settings
from streams.web import inputs
from streams.web.auth import Gate, check_bind
from streams.web.install import faust_web_options, install
from streams.web.memory import MemoryLive, MemoryPublish, MemoryStore
from streams.web.playground import World
from streams.web.problems import Problem
from streams.web.routes import ROUTES, Route
from streams.web.server import HANDLER_ARGUMENTS
from streams.web.sink_server import SinkServer, application
from streams.web.tokens import LOOK_AGAIN_SECONDS, Scope, Tokens

P = "/performance-monitor"
POSTED = {"variant_id": "v1", "persona_id": "ada", "post_id": "p1", "expected_engagement_rate": 0.06}
READ, OPERATE = "read-secret-1", "operate-secret-2"
READER, OPERATOR = {"Authorization": f"Bearer {READ}"}, {"Authorization": f"Bearer {OPERATE}"}
TOKENS = {"read_tokens": [READ], "operate_tokens": [OPERATE]}


@pytest.fixture
async def http():
    """A client that adds nothing of its own."""
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def opened():
    """A worker without tokens."""
    async with World() as made:
        yield made


@pytest.fixture
async def guarded():
    """A worker with tokens."""
    async with World(**TOKENS) as made:
        yield made


async def problem(response: aiohttp.ClientResponse, status: int) -> dict:
    """Check that this is a problem document with that status, and return it."""
    body = await response.json(content_type="application/problem+json")
    assert (response.status, body["status"]) == (status, status)
    assert body["title"]
    assert body["detail"]
    assert "Traceback" not in json.dumps(body)
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    return body


async def raw(world: World, request: bytes, patience: float = 5) -> bytes:
    """Send bytes as they are, and return what comes until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.workers[0].port)
    try:
        writer.write(request)
        async with asyncio.timeout(patience):
            return await reader.read()
    finally:
        writer.close()


def path_of(route: Route) -> str:
    """A path that this call serves."""
    return route.path.replace("{variant_id}", "v1")


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_every_call_asks_for_the_scope_of_the_table(guarded: World, http: aiohttp.ClientSession, route: Route):
    """Without a token 401, with too little 403, with enough neither; only /health is open."""
    guarded.put("v1")
    url = guarded.url + path_of(route)

    async def status(headers: dict[str, str]) -> int:
        async with http.request(route.method, url, headers=headers) as response:
            if response.status in (401, 403):
                body = await problem(response, response.status)
                assert response.headers["WWW-Authenticate"].startswith("Bearer ")
                assert READ not in str(body)
            return response.status

    assert (route.scope == Scope.OPEN) == (route.path == "/health")
    assert (await status({}) == 401) == (route.scope > Scope.OPEN)
    assert (await status({"Authorization": "Bearer wrong"}) == 401) == (route.scope > Scope.OPEN)
    assert (await status(READER) == 403) == (route.scope > Scope.READ)
    assert await status(OPERATOR) not in (401, 403)


MONITORS_CALLS = {
    ("GET", "/"): Scope.READ,
    ("GET", "/health"): Scope.OPEN,
    ("GET", "/ready"): Scope.READ,
    ("GET", "/metrics"): Scope.READ,
    ("GET", "/openapi.json"): Scope.READ,
    ("POST", f"{P}/start-monitoring"): Scope.OPERATE,
    ("GET", f"{P}/status/{{variant_id}}"): Scope.READ,
    ("GET", f"{P}/active"): Scope.READ,
    ("GET", f"{P}/sessions"): Scope.READ,
    ("POST", f"{P}/stop/{{variant_id}}"): Scope.OPERATE,
    ("POST", f"{P}/revive/{{variant_id}}"): Scope.OPERATE,
    ("POST", f"{P}/peer/lookup"): Scope.READ,
    ("POST", f"{P}/peer/active"): Scope.READ,
}
SINKS_CALLS = {("GET", "/health"): Scope.OPEN, ("GET", "/ready"): Scope.READ, ("GET", "/metrics"): Scope.READ}
"""Every call of either server with the scope that it needs. A new call has to be entered here: decide who may make it."""


def served(app: web.Application) -> set[tuple[str, str]]:
    """What an application really answers, whoever added it; HEAD goes with GET."""
    return {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource is not None and route.method != "HEAD"}


async def scope_of(http: aiohttp.ClientSession, method: str, url: str) -> Scope:
    """The least that a caller needs, as found by asking."""
    for scope, headers in ((Scope.OPEN, {}), (Scope.READ, READER), (Scope.OPERATE, OPERATOR)):
        async with http.request(method, url, headers=headers) as response:
            if response.status not in (401, 403):
                return scope
            await problem(response, 403 if scope == Scope.READ else 401)
    raise AssertionError(f"nobody may call {url}")


def test_the_monitor_serves_these_calls_and_no_others(tmp_path: Path):
    """On Faust's own server, which would have pages of its own."""
    settings = Settings.model_validate({**TOKENS, "kafka_bootstrap_servers": "127.0.0.1:9"})
    app = create_app(settings, "scopes", **faust_web_options(settings))
    app.conf.datadir = tmp_path

    async def ping() -> None:
        raise OSError

    install(app, settings=settings, live=MemoryLive(), store=MemoryStore(), publish=MemoryPublish(), metrics=Metrics(), kafka_ping=ping)
    assert served(app.web.web_app) == set(MONITORS_CALLS)


async def test_every_call_of_the_monitor_needs_the_scope_that_was_decided(guarded: World, http: aiohttp.ClientSession):
    """No less, no more; found by asking with no token, one that reads, one that operates."""
    guarded.put("v1")
    assert {call: await scope_of(http, call[0], guarded.url + call[1].replace("{variant_id}", "v1")) for call in MONITORS_CALLS} == MONITORS_CALLS


async def test_every_call_of_the_sink_needs_the_scope_that_was_decided(http: aiohttp.ClientSession):
    """And there are no others."""

    async def report() -> tuple[bool, dict[str, str]]:
        return True, {"status": "ready"}

    app = application(Settings.model_validate(TOKENS), Metrics(), report)
    assert served(app) == set(SINKS_CALLS)
    port = free_port()
    server = SinkServer(app, "127.0.0.1", port)
    await server.start()
    try:
        await asyncio.sleep(0.05)
        assert {call: await scope_of(http, call[0], f"http://127.0.0.1:{port}{call[1]}") for call in SINKS_CALLS} == SINKS_CALLS
    finally:
        await server.stop()


def test_what_changes_something_is_post_and_needs_operate():
    """Apart from the questions of other workers, POST and operate go together."""
    for route in ROUTES:
        if not route.is_internal:
            assert (route.method == "POST") == (route.scope == Scope.OPERATE)


@pytest.mark.parametrize("header", ["Basic cmVhZA==", "Bearer", "Bearer ", f"bearer{READ}", f"Bearer {READ}x", f"Token {READ}", f"Bearer {READ[:-1]}", "Bearer \x80"])
async def test_other_credentials_are_none(guarded: World, http: aiohttp.ClientSession, header: str):
    """Only a whole token behind `Bearer ` counts."""
    async with http.get(guarded.url + f"{P}/active", headers={"Authorization": header}) as response:
        await problem(response, 401)


async def test_the_scheme_is_told_in_any_case(guarded: World, http: aiohttp.ClientSession):
    """Authentication schemes are case-insensitive (RFC 9110)."""
    async with http.get(guarded.url + f"{P}/active", headers={"Authorization": f"bEARER {READ}"}) as response:
        assert response.status == 200


async def test_a_forbidden_stop_changes_nothing_and_is_on_the_trail(guarded: World, http: aiohttp.ClientSession):
    """403 for a reader, nothing published, and an audit row that names no token."""
    guarded.put("v1")
    async with http.post(guarded.url + f"{P}/stop/v1", headers=READER) as response:
        await problem(response, 403)
    await guarded.workers[0].services.trail.drain()
    assert guarded.publish.stops == []
    [row] = guarded.store.audits
    assert (row["action"], row["variant_id"], row["facts"]) == ("call_refused", "v1", {"call": "stop_monitoring", "granted": "read"})
    assert READ not in str(row)


async def test_the_caller_of_a_stop_is_named_without_the_token(guarded: World, http: aiohttp.ClientSession):
    """The trail and the stop record tell tokens apart, and give none away."""
    guarded.put("v1")
    async with http.post(guarded.url + f"{P}/stop/v1", headers=OPERATOR) as response:
        assert response.status == 200
    name = guarded.publish.stops[0]["requested_by"]
    assert re.fullmatch(r"token [0-9a-f]{8}", name)
    assert [row["actor"] for row in guarded.store.audits] == [name]


async def test_the_callers_token_goes_along_to_the_other_workers(http: aiohttp.ClientSession):
    """A guarded worker asks its peers with the token it was asked with."""
    async with World(3, **TOKENS) as world:
        for number in range(6):
            world.put(f"v{number}")
            async with http.get(f"{world.url}{P}/status/v{number}", headers=READER) as response:
                assert (await response.json())["live"] is True
        async with http.post(f"{world.url}{P}/start-monitoring", json={**POSTED, "variant_id": "new"}, headers=OPERATOR) as response:
            assert response.status == 201


async def test_unknown_paths_tell_strangers_nothing(guarded: World, http: aiohttp.ClientSession):
    """401 without a token, 404 with one."""
    async with http.get(guarded.url + "/nothing") as response:
        await problem(response, 401)
    async with http.get(guarded.url + "/nothing", headers=READER) as response:
        await problem(response, 404)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "example.org"])  # noqa: S104
def test_without_tokens_only_loopback_may_be_bound(host: str):
    """It refuses to start, in one line that says what to do."""
    with pytest.raises(Stop, match="tokens") as refusal:
        faust_web_options(Settings.model_validate({"web_host": host}))
    assert "\n" not in str(refusal.value)
    check_bind(Settings.model_validate({"web_host": host, "read_tokens": ["x"]}))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_loopback_may_be_bound_without_tokens(host: str):
    """All of loopback is loopback."""
    check_bind(Settings.model_validate({"web_host": host}))


def test_an_empty_token_is_refused():
    """A forgotten value in the environment must not open the API to everybody."""
    with pytest.raises(Stop):
        check_bind(Settings.model_validate({"operate_tokens": [" "]}))


class TokenFile:
    """A file of tokens, and a clock that says when it is looked at."""

    def __init__(self, path: Path, *tokens: str) -> None:
        self.path, self.now = path, 0.0
        self.write(*tokens)
        self.tokens = Tokens(Settings.model_validate({"operate_tokens_file": path}), lambda: self.now)

    def write(self, *tokens: str, mode: int = 0o600) -> None:
        arriving = self.path.with_suffix(".new")
        arriving.write_text("".join(f"{token}\n" for token in tokens))
        arriving.chmod(mode)
        arriving.replace(self.path)

    @property
    def count(self) -> int:
        return len(self.tokens.known())


def test_tokens_come_from_files_too(tmp_path: Path):
    """One a line, beside those of the environment; each scope has its own file."""
    read, operate = TokenFile(tmp_path / "read", "a", "", " b ").path, TokenFile(tmp_path / "operate", "c").path
    settings = Settings.model_validate({"read_tokens": ["d"], "read_tokens_file": read, "operate_tokens_file": operate, "web_host": "10.0.0.5"})
    check_bind(settings)
    gate = Gate(settings)
    assert [gate.admit(f"Bearer {token}", Scope.READ).scope for token in "abcd"] == [Scope.READ, Scope.READ, Scope.OPERATE, Scope.READ]
    for wrong in ("", "e", "a\nb"):
        with pytest.raises(Problem):
            gate.admit(f"Bearer {wrong}", Scope.READ)


def test_tokens_in_a_file_are_replaced_without_a_restart(tmp_path: Path):
    """A second later at the latest, the old one counts no more."""
    file = TokenFile(tmp_path / "tokens", "old")
    old = file.tokens.known()
    file.write("new", "newer")
    file.now += LOOK_AGAIN_SECONDS - 0.001
    assert file.tokens.known() == old
    file.now += 0.001
    assert file.count == 2
    assert old[0] not in file.tokens.known()


@pytest.mark.parametrize("mishap", ["gone", "empty", "open to others"])
def test_a_file_of_tokens_that_cannot_be_used_closes_the_api(tmp_path: Path, caplog: pytest.LogCaptureFixture, mishap: str):
    """It grants nothing, rather than everything to everybody; the log says why, and not what was in it. It counts again once it is mended."""
    file = TokenFile(tmp_path / "tokens", "old-secret")
    assert file.count == 1
    if mishap == "gone":
        file.path.unlink()
    else:
        file.write(*([] if mishap == "empty" else ["old-secret"]), mode=0o600 if mishap == "empty" else 0o644)
    file.now += LOOK_AGAIN_SECONDS
    assert file.count == 0
    assert file.tokens.are_configured
    [record] = caplog.records
    assert "EARLY_KILL_OPERATE_TOKENS_FILE" in record.getMessage()
    assert "old-secret" not in record.getMessage()
    file.write("old-secret")
    file.now += LOOK_AGAIN_SECONDS
    assert file.count == 1


def test_a_file_of_tokens_that_cannot_be_used_keeps_a_worker_from_starting(tmp_path: Path):
    """Missing, or for everybody to read."""
    settings = Settings.model_validate({"read_tokens_file": tmp_path / "tokens"})
    with pytest.raises(Stop, match="EARLY_KILL_READ_TOKENS_FILE cannot be read: No such file"):
        check_bind(settings)
    TokenFile(tmp_path / "tokens", "a").path.chmod(0o604)
    with pytest.raises(Stop, match="mode 0604"):
        check_bind(settings)


def test_faust_serves_nothing_of_its_own():
    """Faust's pages are all off, and it listens where the settings say."""
    options = faust_web_options(Settings.model_validate({"web_port": 23999}))
    assert [options[f"web_{page}_enabled"] for page in ("tables", "router", "stats", "graph", "metrics")] == [False] * 5
    assert (options["web_bind"], options["web_port"], options["web_in_thread"]) == ("127.0.0.1", 23999, False)


@pytest.mark.parametrize(
    "path", ["/nothing", "/table/", "/router/", "/stats/", "/graph/", f"{P}/status/", f"{P}/status/a/b", f"{P}/stop/", f"{P}", "//", "/%00", "/health/", "/\u00e9"]
)
async def test_unknown_paths_are_problems_too(opened: World, http: aiohttp.ClientSession, path: str):
    """404, as a problem document, also for Faust's own pages."""
    async with http.get(URL(opened.url + path, encoded=path.isascii())) as response:
        await problem(response, 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", f"{P}/stop/v1", "POST"),
        ("GET", f"{P}/start-monitoring", "POST"),
        ("POST", "/health", "GET,HEAD"),
        ("DELETE", f"{P}/active", "GET,HEAD"),
        ("OPTIONS", "/ready", "GET,HEAD"),
        ("PROPFIND", "/ready", "GET,HEAD"),
    ],
)
async def test_a_wrong_method_is_told_the_right_one(opened: World, http: aiohttp.ClientSession, method: str, path: str, allowed: str):
    """405 with Allow; GET never changes anything."""
    async with http.request(method, opened.url + path) as response:
        await problem(response, 405)
        assert response.headers["Allow"] == allowed


async def test_head_is_answered_like_get(opened: World, http: aiohttp.ClientSession):
    """The same status, no body."""
    async with http.head(opened.url + "/health") as response:
        assert (response.status, await response.read()) == (200, b"")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json; charset=latin-1", "application/jsonx"])
async def test_a_body_that_is_not_json_by_its_type_is_refused(opened: World, http: aiohttp.ClientSession, kind: str):
    """415: a form of another web site can't pass for a request either."""
    async with http.post(opened.url + f"{P}/start-monitoring", data=json.dumps(POSTED), headers={"Content-Type": kind}) as response:
        await problem(response, 415)


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", 'Application/JSON; charset="UTF-8"'])
async def test_json_is_told_in_any_spelling(opened: World, http: aiohttp.ClientSession, kind: str):
    """Media types are case-insensitive."""
    async with http.post(opened.url + f"{P}/start-monitoring", data=json.dumps(POSTED), headers={"Content-Type": kind}) as response:
        assert response.status == 201


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"null",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b"{} {}",
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b"9" * 60_000,
    ],
)
async def test_a_body_that_is_no_json_object_is_refused(opened: World, http: aiohttp.ClientSession, body: bytes):
    """400, without a traceback, also for the hostile ones."""
    async with http.post(opened.url + f"{P}/start-monitoring", data=body, headers={"Content-Type": "application/json"}) as response:
        await problem(response, 400)


@pytest.mark.parametrize("token", [b"NaN", b"1e999", b'"\\ud800"', b'"\\u0000"', b'[{"x": -Infinity}]'])
@pytest.mark.parametrize("field", ["persona_id", "later"])
async def test_what_is_refused_in_every_field_is_refused_by_its_name(opened: World, http: aiohttp.ClientSession, field: str, token: bytes):
    """422, also where nobody knows the field."""
    body = json.dumps({**POSTED, field: 0}).encode().replace(f'"{field}": 0'.encode(), f'"{field}": '.encode() + token)
    async with http.post(opened.url + f"{P}/start-monitoring", data=body, headers={"Content-Type": "application/json"}) as response:
        assert [error["field"] for error in (await problem(response, 422))["errors"]] == [field]


async def test_a_body_on_the_bound_is_read_and_one_byte_more_is_not(opened: World, http: aiohttp.ClientSession):
    """64 KiB pass, 64 KiB + 1 are 413."""
    for size, status in [(inputs.BODY_LIMIT, 201), (inputs.BODY_LIMIT + 1, 413)]:
        body = json.dumps({**POSTED, "post_id": f"p{status}"}).encode()
        async with http.post(opened.url + f"{P}/start-monitoring", data=body + b" " * (size - len(body)), headers={"Content-Type": "application/json"}) as response:
            assert response.status == status


async def test_a_body_that_is_too_large_is_refused_while_it_is_read(opened: World):
    """413 comes long before an endless chunked body ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", opened.workers[0].port)
    writer.write(f"POST {P}/start-monitoring HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    sent = 0
    answer = asyncio.create_task(reader.readline())
    async with asyncio.timeout(10):
        while not answer.done():
            writer.write(b"2000\r\n" + b" " * 0x2000 + b"\r\n")
            await writer.drain()
            sent += 0x2000
            await asyncio.sleep(0.001)
    assert b" 413 " in answer.result()
    assert sent < 20 * inputs.BODY_LIMIT
    writer.close()


@pytest.mark.parametrize("path", [f"{P}/start-monitoring", f"{P}/stop/v1", f"{P}/revive/v1"])
async def test_a_declared_size_over_the_limit_is_refused_unread(opened: World, path: str):
    """413 without a byte of the body."""
    answer = await raw(opened, f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 52428800\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"application/problem+json" in answer


@pytest.mark.parametrize("body", [gzip.compress(b" " * 50_000_000), b"{}"], ids=["bomb", "not packed at all"])
async def test_a_packed_body_is_refused_unread(opened: World, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture, body: bytes) -> None:
    """415: nothing is unpacked, so there is no bomb to defuse; and nothing is said in the log about it."""
    async with http.post(opened.url + f"{P}/start-monitoring", data=body, headers={"Content-Type": "application/json", "Content-Encoding": "gzip"}) as response:
        await problem(response, 415)
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


async def test_a_body_that_never_comes_is_given_up(opened: World, monkeypatch: pytest.MonkeyPatch):
    """408, and the connection is closed."""
    monkeypatch.setattr(inputs, "BODY_SECONDS", 0.2)
    answer = await raw(opened, f"POST {P}/start-monitoring HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{{".encode())
    assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("begun", [b"", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "], ids=["silent", "headers that trickle"])
async def test_a_connection_that_never_gets_to_the_point_is_closed(monkeypatch: pytest.MonkeyPatch, begun: bytes) -> None:
    """Idle ones, and those whose headers do not end, do not pile up."""
    monkeypatch.setitem(HANDLER_ARGUMENTS, "keepalive_timeout", 0.3)
    async with World() as world:
        assert await raw(world, begun) == b""


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    ],
    ids=["TLS", "no path", "version", "long path", "many headers", "long header", "negative length"],
)
async def test_what_is_no_http_is_told_so(opened: World, request_: bytes):
    """400 as a problem document that repeats nothing of what was sent, and the connection is closed."""
    answer = await raw(opened, request_)
    assert answer.startswith(b"HTTP/1.")
    assert answer.split(b" ", 2)[1] == b"400"
    assert b"application/problem+json" in answer
    assert b"xxxx" not in answer
    assert b"yyyy" not in answer


async def test_an_expectation_that_cannot_be_met_is_a_problem(opened: World):
    """417 as a problem document."""
    answer = await raw(opened, b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: miracles\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 417 ")
    assert b"application/problem+json" in answer


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", ""])
async def test_an_open_api_is_not_to_be_reached_by_other_names(opened: World, host: str):
    """DNS rebinding: a name that a stranger pointed at loopback gets 421."""
    answer = await raw(opened, f"GET {P}/active HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 421 ")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:6066", "127.0.0.1:6066", "[::1]:6066", "10.1.2.3"])
async def test_an_open_api_is_reached_by_its_addresses(opened: World, host: str):
    """Addresses can't be rebound."""
    answer = await raw(opened, f"GET {P}/active HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
async def test_an_open_api_refuses_changes_from_other_web_sites(opened: World, http: aiohttp.ClientSession, origin: str):
    """403 by Origin; the API's own page may."""
    opened.put("v1")
    async with http.post(opened.url + f"{P}/stop/v1", headers={"Origin": origin}) as response:
        await problem(response, 403)
    assert opened.publish.stops == []
    async with http.post(opened.url + f"{P}/stop/v1", headers={"Origin": opened.url}) as response:
        assert response.status == 200


async def test_an_unexpected_error_says_nothing_of_the_inside(opened: World, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    """500 with the request's id; the log has the rest."""

    async def fail(*_: object) -> None:
        raise ZeroDivisionError("a secret of the inside")

    monkeypatch.setattr(opened.store, "latest", fail)
    async with http.get(opened.url + f"{P}/status/v1") as response:
        body = await problem(response, 500)
    assert "secret" not in str(body)
    assert body["request_id"] in caplog.text
    assert "a secret of the inside" in caplog.text


async def test_every_answer_carries_the_headers_of_caution(opened: World, http: aiohttp.ClientSession):
    """nosniff, no-store, a closed policy, and an id that the caller may choose."""
    chosen = "6f1d0f5e-3c0b-5b7e-9a55-0d7c1f2b8e41"
    for path in ("/health", "/ready", "/metrics", "/openapi.json", "/", "/nothing", f"{P}/active"):
        async with http.get(opened.url + path, headers={"X-Request-Id": chosen}) as response:
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Cache-Control"] == "no-store"
            assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
            assert response.headers["X-Request-Id"] == chosen
            assert "aiohttp" not in response.headers["Server"].lower()
    async with http.get(opened.url + "/health", headers={"X-Request-Id": "not a uuid"}) as response:
        assert response.headers["X-Request-Id"] != "not a uuid"


async def test_the_access_log_has_one_line_without_token_or_query(guarded: World, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture):
    """What was asked, by whom, what came of it; nothing a caller can forge a second line with."""
    caplog.set_level("INFO")
    async with http.get(URL(guarded.url + f"{P}/status/a%0Ab%1B[31m?post_id=p%0Aq", encoded=True), headers=READER):
        pass
    lines = [record.getMessage() for record in caplog.records if record.name == "streams.web.access"]
    assert len(lines) == 1
    assert f"GET {P}/status/a%0Ab%1B[31m 422" in lines[0]
    assert lines[0].isprintable()
    assert READ not in caplog.text
    assert "post_id" not in lines[0]


async def test_requests_are_counted_by_route_never_by_path(opened: World, http: aiohttp.ClientSession):
    """Labels hold patterns and known methods only."""
    for method, path in [("GET", f"{P}/status/secret-id"), ("PROPFIND", "/health"), ("GET", "/some/where")]:
        async with http.request(method, opened.url + path):
            pass
    async with http.get(opened.url + "/metrics") as response:
        text = await response.text()
    assert f'performance_monitor_http_requests_total{{method="GET",route="{P}/status/{{variant_id}}",status="404"}} 1.0' in text
    assert 'method="other",route="unknown",status="405"' in text
    assert "secret-id" not in text
    assert "some" not in text.replace("resident", "")


async def test_the_page_asks_browsers_for_the_token_itself(guarded: World, http: aiohttp.ClientSession):
    """401, but with the page as its body for those who want HTML; a problem document for programs."""
    async with http.get(guarded.url + "/", headers={"Accept": "text/html,*/*"}) as response:
        assert (response.status, response.content_type) == (401, "text/html")
        assert 'id="ask"' in await response.text()
    async with http.get(guarded.url + "/") as response:
        await problem(response, 401)
    async with http.get(guarded.url + "/", headers=READER) as response:
        assert (response.status, response.content_type) == (200, "text/html")


async def test_the_pages_policy_names_its_own_style_and_script_and_nothing_else(opened: World, http: aiohttp.ClientSession):
    """What is inline is named by its hash, so nothing that is slipped in can run; nothing comes from elsewhere."""
    async with http.get(opened.url + "/") as response:
        page, policy = await response.text(), response.headers["Content-Security-Policy"]
    for name in ("style", "script"):
        [inline] = re.findall(f"<{name}>(.*?)</{name}>", page, re.DOTALL)
        assert len(inline) > 1000
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}';" in policy
    assert "unsafe" not in policy
    assert "http:" not in page
    assert "https:" not in page
    assert not re.search(r"<[^>]*\s(on\w+|style)=", re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.DOTALL))
    assert "innerHTML" not in page

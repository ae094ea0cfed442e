"""Changes that are repeated with the same key are made once. Over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from streams.web import repeats
from streams.web.playground import World
from streams.web.problems import Problem
from streams.web.repeats import Answers

P = "/performance-monitor"
POSTED = {"variant_id": "v1", "persona_id": "ada", "post_id": "p1", "expected_engagement_rate": 0.06}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A worker with two tokens that may operate."""
    async with World(read_tokens=["reader"], operate_tokens=["one", "other"]) as made:
        yield made


async def post(world: World, path: str, key: str | None, body: object = None, token: str = "one") -> tuple[int, dict]:  # noqa: S107 - of a test
    headers = {"Authorization": f"Bearer {token}"} | ({} if key is None else {"Idempotency-Key": key})
    async with aiohttp.ClientSession() as http, http.post(world.url + P + path, headers=headers, json=body) as response:
        return response.status, await response.json(content_type=None)


async def test_a_change_that_is_repeated_gets_the_same_answer_and_is_not_made_again(world: World) -> None:
    """A start and a stop; without the key, or with another one, they are requests of their own."""
    first = await post(world, "/start-monitoring", "k1", POSTED)
    assert first[0] == 201
    assert await post(world, "/start-monitoring", "k1", POSTED) == first
    assert [(await post(world, "/start-monitoring", key, POSTED))[0] for key in (None, "k2")] == [409, 409]
    stopped = await post(world, "/stop/v1", "k1")
    assert stopped[0] == 200
    assert await post(world, "/stop/v1", "k1") == stopped
    assert [(await post(world, "/stop/v1", key))[0] for key in (None, "k2")] == [404, 404]
    assert (len(world.publish.posted), len(world.publish.stops)) == (1, 1)


async def test_a_hundred_at_once_are_one(world: World) -> None:
    """Also those that come when the first is done."""
    world.put("v1")
    world.delay_seconds = 0.02
    answers = await asyncio.gather(*(post(world, "/stop/v1", "k") for _ in range(100)))
    assert answers == [(200, {"status": "monitoring_stopped", "variant_id": "v1"})] * 100
    assert len(world.publish.stops) == 1


async def test_a_key_belongs_to_its_caller_its_path_and_its_body(world: World) -> None:
    """Of another caller, or for another call, it is another key; with another body it is 422."""
    world.put("v1")
    assert (await post(world, "/stop/v1", "k"))[0] == 200
    assert (await post(world, "/stop/v1", "k", token="other"))[0] == 404  # noqa: S106 - of a test
    assert (await post(world, "/stop/v1?post_id=post", "k"))[0] == 404
    assert (await post(world, "/stop/v1", "k", token="reader"))[0] == 403  # noqa: S106 - of a test
    status, problem = await post(world, "/stop/v1", "k", {})
    assert (status, problem["errors"][0]["field"]) == (422, "Idempotency-Key")


async def test_what_failed_may_be_tried_again(world: World) -> None:
    """Only a success is kept: 404 and 503 are told to those who wait for them, and then forgotten."""
    assert (await post(world, "/stop/v1", "k"))[0] == 404
    world.put("v1")
    world.publish.is_away = True
    assert {status for status, _ in await asyncio.gather(*(post(world, "/stop/v1", "k") for _ in range(5)))} == {503}
    world.publish.is_away = False
    assert (await post(world, "/stop/v1", "k"))[0] == 200


@pytest.mark.parametrize(("key", "status"), [("x" * 200, 404), ("x" * 201, 422), ("é", 422), ("a b", 404)])
async def test_a_key_has_up_to_two_hundred_printable_characters(world: World, key: str, status: int) -> None:
    """Others are refused by its name."""
    async with aiohttp.ClientSession() as http, http.post(f"{world.url}{P}/stop/v1", headers={"Authorization": "Bearer one", "Idempotency-Key": key}) as response:
        assert response.status == status


async def test_answers_are_kept_for_a_day_and_ten_thousand_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the bound; and a large one not at all."""
    now, made = [0.0], []
    answers = Answers(lambda: now[0])

    async def ask(name: bytes, size: int = 1) -> int:
        async def answer() -> web.Response:
            made.append(name)
            return web.Response(body=b"x" * size, content_type="text/plain")

        return len((await answers.once(name, b"", answer)).body)  # type: ignore[attr-defined]

    assert [await ask(b"a"), await ask(b"a")] == [1, 1]
    now[0] = repeats.KEPT_SECONDS - 1
    await ask(b"a")
    assert made == [b"a"]
    now[0] = repeats.KEPT_SECONDS
    await ask(b"a")
    assert made == [b"a", b"a"]
    assert [await ask(b"large", repeats.KEPT_BYTES + 1) for _ in range(2)] == [repeats.KEPT_BYTES + 1] * 2
    assert made[2:] == [b"large"] * 2
    monkeypatch.setattr(repeats, "KEPT_ANSWERS", 2)
    for name in (b"b", b"c", b"d", b"a"):
        await ask(name)
    assert made[4:] == [b"b", b"c", b"d", b"a"]


async def test_who_waits_for_an_answer_that_is_refused_is_told_so() -> None:
    """All of them, and the next one asks anew."""
    answers = Answers()

    async def refuse() -> web.Response:
        await asyncio.sleep(0.01)
        raise Problem(409, "no")

    told = await asyncio.gather(*(answers.once(b"a", b"", refuse) for _ in range(3)), return_exceptions=True)
    assert [getattr(problem, "status", None) for problem in told] == [409] * 3
    assert answers._given == {}

"""Asking the other workers over HTTP, with the caller's own token and little patience."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Collection
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from models.views import Place
from streams.web.cluster import PeerAnswer
from streams.web.rendering import view_from

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 2.0
LOOKUP_PATH = "/performance-monitor/peer/lookup"
ACTIVE_PATH = "/performance-monitor/peer/active"
STATUS_PATH = "/performance-monitor/status/"
LOOKUP_LIMIT = 50
"""Most variants in one question: 50 ids of 200 characters of 4 bytes fit well into the body limit."""


class HttpPeers:
    """The other workers' APIs. ``close`` it in the loop it was used in."""

    def __init__(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._timeout = aiohttp.ClientTimeout(total=patience_seconds)
        self._session: aiohttp.ClientSession | None = None

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)
        return self._session

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def lookup(self, base_url: str, variant_ids: Collection[str], authorization: str | None) -> PeerAnswer | None:
        """Ask a worker for all sessions it holds of these variants; None if it could not be reached."""
        parts = _batched(list(variant_ids))
        answers = [_answer(body) for body in await asyncio.gather(*(self._ask("POST", base_url + LOOKUP_PATH, authorization, question={"variant_ids": part}) for part in parts))]
        whole = [answer for answer in answers if answer is not None]
        if len(whole) < len(answers):
            return None
        partitions = frozenset.intersection(*(answer.partitions for answer in whole))
        return PeerAnswer(partitions, tuple(view for answer in whole for view in answer.sessions))

    async def active(self, base_url: str, limit: int, after: Place | None, authorization: str | None) -> PeerAnswer | None:
        """Ask a worker for a page of its active sessions; None if it could not be reached."""
        return _answer(await self._ask("POST", base_url + ACTIVE_PATH, authorization, question={"limit": limit, "after": after}))

    async def shows(self, base_url: str, variant_id: str, post_id: str, authorization: str | None) -> bool | None:
        """Say whether a worker's status call finds this session; None if nobody listens there, so that there is no such call."""
        url = f"{base_url}{STATUS_PATH}{_segment(variant_id)}?post_id={quote(post_id, safe='')}"
        try:
            async with self._client().get(_encoded(url), headers=_headers(authorization), allow_redirects=False) as response:
                return response.status == HTTPStatus.OK
        except aiohttp.ClientConnectorError:
            return None
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def _ask(self, method: str, url: str, authorization: str | None, *, question: object) -> dict[str, Any] | None:
        body = json.dumps(question, ensure_ascii=False).encode()
        try:
            async with self._client().request(
                method, _encoded(url), data=body, headers={"Content-Type": "application/json", **_headers(authorization)}, allow_redirects=False
            ) as response:
                if response.status == HTTPStatus.OK:
                    answer = await response.json()
                    return answer if isinstance(answer, dict) else None
                logger.warning("worker %s answers %d", url, response.status)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            logger.info("worker %s cannot be reached: %s", url, type(error).__name__)
        return None


def _batched(variant_ids: list[str]) -> list[list[str]]:
    return [variant_ids[start : start + LOOKUP_LIMIT] for start in range(0, len(variant_ids), LOOKUP_LIMIT)]


def _segment(text: str) -> str:
    return quote(text, safe="").replace(".", "%2E")  # `.` and `..` are no steps through the path here


def _encoded(url: str) -> URL:
    return URL(url, encoded=True)


def _headers(authorization: str | None) -> dict[str, str]:
    return {} if authorization is None else {"Authorization": authorization}


def _answer(body: dict[str, Any] | None) -> PeerAnswer | None:
    if body is None:
        return None
    try:
        return PeerAnswer(frozenset(body["partitions"]), tuple(view_from(wire) for wire in body["sessions"]))
    except (KeyError, TypeError):
        return None

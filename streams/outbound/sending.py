"""One attempt at an outbound call, over HTTP: bounded in time and bytes, signed, and judged by the status of the answer."""

from __future__ import annotations

import asyncio
import email.utils
import os
from collections.abc import Callable
from datetime import UTC
from http import HTTPStatus

import aiohttp

from streams.outbound.messages import signature
from streams.outbound.pending import Claimed, Outcome
from streams.outbound.target import Target

AT_ONCE = 8
"""Calls under way at once in one relay."""
REMARK_BYTES = 512
"""Of the body of an answer that is no confirmation: what people are shown. Of the others nothing is read."""
_AGAIN = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})


class Sender:
    """Makes calls. Close it when done.

    Args:
        target: Where they go.
        timeout_seconds: Longest that an attempt may take, from the look-up of the name to the answer's status.
        clock_us: Wall clock in microseconds since the epoch; receivers compare it with theirs.
    """

    def __init__(self, target: Target, *, timeout_seconds: float, clock_us: Callable[[], int]) -> None:
        self._target, self._timeout_seconds, self._clock_us = target, timeout_seconds, clock_us
        self._session: aiohttp.ClientSession | None = None

    async def send(self, call: Claimed) -> Outcome:
        """Make an attempt; whatever happens is its outcome, but for a cancellation."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._post(call)
        except TimeoutError:
            return Outcome("failed", error=f"no answer within {self._timeout_seconds:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Outcome("failed", error=_explain(error))

    async def _post(self, call: Claimed) -> Outcome:
        body, now = call.body.encode(), self._clock_us() // 1_000_000
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": str(call.idempotency_key),
            "Early-Kill-Timestamp": str(now),
            "Early-Kill-Signature": signature(self._target.secret.get_secret_value(), now, body),
        }
        async with self._opened().post(self._target.url.get_secret_value(), data=body, headers=headers, allow_redirects=False) as answer:
            status = answer.status
            if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
                return Outcome("confirmed", status)
            refused = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _AGAIN
            retry_after = None if refused else retry_after_seconds(answer.headers.get("Retry-After"), self._clock_us())
            return Outcome("refused" if refused else "failed", status, _remark(status, await _beginning(answer)), retry_after)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=AT_ONCE),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "early-kill", "Accept-Encoding": "identity"},
                timeout=aiohttp.ClientTimeout(total=self._timeout_seconds),
                auto_decompress=False,
            )
        return self._session

    async def close(self) -> None:
        """Let go of the connections."""
        if self._session is not None:
            await self._session.close()


def retry_after_seconds(header: str | None, now_us: int) -> float | None:
    """Read a ``Retry-After`` header (RFC 9110, 10.2.3), seconds or a date; None where there is none that can be read."""
    if header is None:
        return None
    if header.strip().isascii() and header.strip().isdigit():
        return float(header.strip()[:9])
    try:
        moment = email.utils.parsedate_to_datetime(header)
        if moment.tzinfo is None:  # asctime's form names no zone, and means UTC (RFC 9110, 5.6.7)
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, moment.timestamp() - now_us / 1e6)
    except (ValueError, OverflowError):
        return None


async def _beginning(answer: aiohttp.ClientResponse) -> str:
    """The first bytes of a body, fit for a table; nothing if it does not come."""
    try:
        raw = await answer.content.read(REMARK_BYTES)
    except (aiohttp.ClientError, OSError):
        return ""
    return " ".join("".join(character if character.isprintable() else " " for character in raw.decode("utf-8", "replace")).split())


def _remark(status: int, said: str) -> str:
    told = "; redirects are not followed" if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST else ""
    return f"answered {status}{told}{f': {said}' if said else ''}"


def _explain(error: BaseException) -> str:
    """Say what went wrong, without the URL."""
    match error:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return "TLS failed: the certificate is not trusted, or there is no common version"
        case aiohttp.ClientConnectorDNSError():
            return "the host's name is not known"
        case aiohttp.ClientConnectorError():
            return f"no connection: {_system_says(error.os_error)}"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError():
            return "the connection was cut before the answer"
        case OSError():
            return f"the connection failed: {_system_says(error)}"
        case _:
            return f"the answer cannot be read ({type(error).__name__})"


def _system_says(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno is not None and error.errno > 0 else type(error).__name__

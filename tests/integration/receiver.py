"""A system that is told of kills and does its worst: half of all calls go wrong, each in one of five ways."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Self

from streams.local.child import free_port

FAULTS = ("refuse", "reset", "500", "slow", "cut")


@dataclass(frozen=True, slots=True)
class Request:
    """One that arrived whole."""

    head: dict[str, str]
    body: bytes


class Receiver:
    """Acts once for each idempotency key, whatever it then answers.

    Args:
        behave: Says what to do with a request: ``ok``, one of ``FAULTS``, or a status with a header, ``429 Retry-After: 7``.
        slow_seconds: How long ``slow`` keeps its caller waiting.
    """

    def __init__(self, behave: Callable[[Request], str], slow_seconds: float = 1.0) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/hook"
        self.requests: list[Request] = []
        self.effects: Counter[str] = Counter()
        self.bitten: Counter[str] = Counter()
        self._behave, self._slow_seconds = behave, slow_seconds
        self._known: set[str] = set()
        self._listener: socket.socket | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._reopening: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._reopening is not None:
            await self._reopening
        self._close()
        await asyncio.gather(*self._serving)

    def _open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._listener.settimeout(0)
        asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    def _close(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()

    def _accept(self, listener: socket.socket) -> None:
        """By hand: asyncio's own servers lose a connection that comes while they are closed."""
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            task = asyncio.create_task(self._serve(connection))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

    async def refuse_for(self, seconds: float) -> None:
        """Let nobody in for a while: connections are refused."""
        self._close()
        await asyncio.sleep(seconds)
        self._open()

    async def _serve(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection)
        try:
            request = await _read(reader)
            self.requests.append(request)
            await self._answer(request, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        how = self._behave(request)
        self.bitten[how] += 1
        if how in {"ok", "cut"}:
            self._act(request.head["idempotency-key"])
        match how:
            case "refuse":
                if self._reopening is None or self._reopening.done():
                    self._reopening = asyncio.create_task(self.refuse_for(0.05))
                _reset(writer)
            case "reset":
                _reset(writer)
            case "slow":
                await asyncio.sleep(self._slow_seconds)
                self._act(request.head["idempotency-key"])
                await _say(writer, "200")
            case "cut":
                pass
            case "ok":
                await _say(writer, "200")
            case _:
                await _say(writer, how)

    def _act(self, key: str) -> None:
        if key not in self._known:
            self._known.add(key)
            self.effects[key] += 1


def half(seed: int) -> Callable[[Request], str]:
    """Fail half of the time, each way as often."""
    randomness = random.Random(seed)
    return lambda _: randomness.choice(FAULTS) if randomness.random() < 0.5 else "ok"


async def _read(reader: asyncio.StreamReader) -> Request:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    head = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
    return Request({"": lines[0], **head}, await reader.readexactly(int(head["content-length"])))


async def _say(writer: asyncio.StreamWriter, what: str) -> None:
    status, _, header = what.partition(" ")
    phrase = HTTPStatus(int(status)).phrase
    writer.write(f"HTTP/1.1 {status} {phrase}\r\nContent-Length: 2\r\nConnection: close\r\n{f'{header}{chr(13)}{chr(10)}' if header else ''}\r\nno".encode())
    await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()

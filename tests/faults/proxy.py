"""A TCP proxy that can misbehave like a network: refuse, reset, swallow, delay, and cut in the middle of an answer. In a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

from tests.ports import LOOPBACK

AT_ONCE = 1 << 16
LOOK_SECONDS = 0.05


class Proxy:
    """Stands between clients and one server; begins by passing everything on.

    Args:
        port: Where it listens.
        target: Port of the server.

    Attributes:
        bitten: How often it did what, while there was traffic that it concerned.
    """

    def __init__(self, port: int, target: int) -> None:
        self.port, self.target = port, target
        self.bitten: Counter[str] = Counter()
        self._is_open = True
        self._delay_seconds = 0.0
        self._answer_bytes = 0
        self._answer_bytes_left: int | None = None
        self._cuts_left = 0
        self._server: asyncio.Server | None = None
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{port}", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._do(self._listen())

    def stop(self) -> None:
        self._do(self._leave())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def pass_on(self) -> None:
        """Behave."""
        self._do(self._behave())

    def refuse(self) -> None:
        """Reset all connections, and take none."""
        self._do(self._close("refused"))

    def reset(self) -> None:
        """Reset the connections that there are, and take new ones."""
        self._do(self._reset_all("reset"))

    def swallow(self) -> None:
        """Take connections and bytes, and let nothing through: a black hole."""
        self._is_open = False

    def delay(self, seconds: float) -> None:
        """Hold each piece up for so long."""
        self._delay_seconds = seconds

    def cut_after(self, answer_bytes: int, times: int = 1) -> None:
        """Let the server's answers through up to so many bytes, then reset that connection, perhaps in the middle of an answer; ``times`` over."""
        self._cuts_left, self._answer_bytes = times, answer_bytes
        self._answer_bytes_left = answer_bytes

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        done: Future[None] = asyncio.run_coroutine_threadsafe(work, self._loop)
        done.result(10)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, LOOPBACK, self.port)

    async def _behave(self) -> None:
        self._is_open, self._delay_seconds, self._cuts_left = True, 0.0, 0
        await self._listen()

    async def _close(self, why: str) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._reset_all(why)

    async def _leave(self) -> None:
        await self._close("left")
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _reset_all(self, why: str) -> None:
        for pair in list(self._pairs):
            self._cut(pair, why)

    def _cut(self, pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter], why: str) -> None:
        self.bitten[why] += 1
        for writer in pair:
            connection = writer.get_extra_info("socket")
            if connection is not None and connection.fileno() != -1:  # that end may have gone, and its other not know it yet
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            try:
                there, back = await asyncio.open_connection(LOOPBACK, self.target)
            except OSError:
                writer.transport.abort()
                return
            pair = (writer, back)
            self._pairs.add(pair)
            try:
                await asyncio.gather(self._pump(reader, back, lambda piece: piece), self._pump(there, writer, lambda piece: self._allowed(pair, piece)))
            except OSError:
                pass
            finally:
                self._pairs.discard(pair)
                for end in pair:
                    end.transport.abort()
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._serving.discard(task)

    def _allowed(self, pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter], piece: bytes) -> bytes:
        if self._cuts_left <= 0 or self._answer_bytes_left is None:
            return piece
        self._answer_bytes_left -= len(piece)
        if self._answer_bytes_left > 0:
            return piece
        self._cuts_left, self._answer_bytes_left = self._cuts_left - 1, self._answer_bytes
        self._cut(pair, "cut")
        raise ConnectionResetError

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, allowed: Callable[[bytes], bytes]) -> None:
        while True:
            piece = await reader.read(AT_ONCE)
            if not piece:
                raise ConnectionResetError  # one side has closed: neither protocol uses half-open connections
            if self._delay_seconds:
                self.bitten["delayed"] += 1
                await asyncio.sleep(self._delay_seconds)
            if not self._is_open:
                self.bitten["swallowed"] += 1
            while not self._is_open:
                await asyncio.sleep(LOOK_SECONDS)
            writer.write(allowed(piece))
            await writer.drain()

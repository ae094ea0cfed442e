"""The proxy misbehaves as it is told, so that what the fault tests say of the network is so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.faults.proxy import Proxy
from tests.ports import LOOPBACK, steady_port


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """A server that sends back what it gets."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(1_000):
                writer.write(piece)
                await writer.drain()
        except OSError:
            pass
        writer.close()

    port = steady_port()
    server = await asyncio.start_server(answer, LOOPBACK, port)
    yield port
    server.close()


@pytest.fixture
def proxy(echo: int) -> Iterator[Proxy]:
    proxy = Proxy(steady_port(), echo)
    proxy.start()
    yield proxy
    proxy.stop()


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connected(proxy: Proxy) -> Ends:
    return await asyncio.open_connection(LOOPBACK, proxy.port)


async def said_back(ends: Ends, words: bytes) -> bytes:
    ends[1].write(words)
    return await asyncio.wait_for(ends[0].readexactly(len(words)), 5)


async def test_it_passes_on(proxy: Proxy):
    """Both ways."""
    ends = await connected(proxy)
    assert await said_back(ends, b"hello") == b"hello"
    ends[1].close()


async def test_a_reset_is_one_and_new_connections_are_taken(proxy: Proxy):
    """The client sees a reset, not an orderly end."""
    ends = await connected(proxy)
    await said_back(ends, b"hello")
    await asyncio.to_thread(proxy.reset)
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(ends[0].read(), 5)
    again = await connected(proxy)
    assert await said_back(again, b"again") == b"again"
    again[1].close()
    assert proxy.bitten["reset"] == 1


async def test_refused_until_it_passes_on(proxy: Proxy):
    """Nobody listens meanwhile."""
    await asyncio.to_thread(proxy.refuse)
    with pytest.raises(ConnectionRefusedError):
        await connected(proxy)
    await asyncio.to_thread(proxy.pass_on)
    ends = await connected(proxy)
    assert await said_back(ends, b"hello") == b"hello"
    ends[1].close()


async def test_what_is_swallowed_comes_late_or_never(proxy: Proxy):
    """Connections are taken, and nothing is answered."""
    proxy.swallow()
    ends = await connected(proxy)
    ends[1].write(b"hello")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ends[0].readexactly(5), 0.3)
    assert proxy.bitten["swallowed"] == 1
    await asyncio.to_thread(proxy.pass_on)
    assert await asyncio.wait_for(ends[0].readexactly(5), 5) == b"hello"
    ends[1].close()


async def test_an_answer_is_cut_at_its_byte(proxy: Proxy):
    """The request has arrived, its answer does not: nobody knows what has happened. The byte itself is on the bound."""
    proxy.cut_after(10)
    ends = await connected(proxy)
    assert await said_back(ends, b"123456789") == b"123456789"
    ends[1].write(b"x")
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(ends[0].readexactly(1), 5)
    assert proxy.bitten["cut"] == 1
    again = await connected(proxy)
    assert await said_back(again, b"123456789 and more") == b"123456789 and more"
    again[1].close()


async def test_a_delay_delays(proxy: Proxy):
    """Each way."""
    ends = await connected(proxy)
    proxy.delay(0.1)
    began = time.monotonic()
    await said_back(ends, b"hello")
    assert time.monotonic() - began >= 0.2
    ends[1].close()

"""What keeps the parts of `early-kill up` running; the parts are stand-ins."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from streams.local import keeper as keeper_module
from streams.local.endpoints import FILE, Endpoints
from streams.local.keeper import Keeper


class Part:
    """It is started and killed as the test says."""

    def __init__(self, home: Path) -> None:
        self.child = SimpleNamespace(name="sink", pid=None, exit_code=-9, log=home / "sink.log")
        self.starts = 0

    def start(self) -> None:
        self.starts += 1
        self.child.pid = self.starts

    def stop(self) -> None:
        self.child.pid = None


async def until(what: Any) -> None:
    """Wait until ``what`` holds."""
    async with asyncio.timeout(5):
        while not what():
            await asyncio.sleep(0.01)


async def test_a_part_is_started_again_also_where_nobody_can_be_told_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As on a full disk: a line says so, and when the part ends once more, it is started once more, and the file is right again."""
    monkeypatch.setattr(keeper_module, "NOTICE_SECONDS", 0.01)
    monkeypatch.setattr(keeper_module, "STEADY_SECONDS", 0.0)
    part, said = Part(tmp_path), []
    parts: Any = SimpleNamespace(all=(part,), workers=(), endpoints=lambda: Endpoints("k", "d", (), {"sink": part.child.pid}))
    keeper = Keeper(parts, tmp_path, said.append)
    keeper._is_ready = True
    keeper._watches = [asyncio.create_task(keeper._watch(part))]  # type: ignore[arg-type] # as much of a part as is looked at
    in_the_way = tmp_path / f".{FILE}.new"
    in_the_way.mkdir()
    await until(lambda: len(said) == 2)
    assert "was started again" in said[0]
    assert f"{FILE} cannot be written" in said[1]
    in_the_way.rmdir()
    part.child.pid = None
    await until(lambda: (tmp_path / FILE).exists() or keeper._watches[0].done())
    assert (part.starts, '"sink": 2' in (tmp_path / FILE).read_text()) == (2, True)
    await keeper.stop()
    assert (part.child.pid, len(said)) == (None, 3)

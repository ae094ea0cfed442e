"""What the README and docs/ tell people to paste runs as it stands, in the order it stands there, on real servers."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from streams.settings import Settings
from tests.integration.system import ROOT, System, running

PAGES = ("README.md", "docs/operations.md")
BLOCK = re.compile(r"^```(?P<language>sh|python)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
DEFAULT_API = "http://127.0.0.1:6066"
"""Where the pages say everything is: the addresses of `make up`, for which the test puts those of its own servers. Nothing else is changed."""
DEFAULT_DATABASE = "postgresql://early_kill@127.0.0.1:5432/early_kill"


@dataclass(frozen=True)
class Block:
    """A piece of a page that people paste; ``text`` with the test's addresses."""

    language: str
    text: str


def blocks(page: str, system: System) -> list[Block]:
    """What ``page`` has to paste."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for default, here in ((DEFAULT_API, system.monitors[0].url), (DEFAULT_DATABASE, system.settings.database_url.get_secret_value())):
        text = text.replace(default, here)
    return [Block(**found.groupdict()) for found in BLOCK.finditer(text)]


def environment(system: System) -> dict[str, str]:
    """As after `. .venv/bin/activate`, on the test's servers."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EARLY_KILL_", "KAFKA_", "DATABASE_"))}
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "KAFKA_BOOTSTRAP_SERVERS": system.settings.kafka_bootstrap_servers,
        "DATABASE_URL": system.settings.database_url.get_secret_value(),
        "EARLY_KILL_TOPIC_PREFIX": system.settings.topic_prefix,
        "EARLY_KILL_APP_ID": system.settings.app_id,
    }


@asynccontextmanager
async def started(command: list[str], env: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that is gone afterwards."""
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def run(command: list[str], env: Mapping[str, str]) -> str:
    """Run to the end, which has to be a good one; returns what it printed."""
    async with started(command, env) as process:
        out, errors = await asyncio.wait_for(process.communicate(), 90)
    assert process.returncode == 0, (command[-1], out.decode(), errors.decode())
    assert "Traceback" not in errors.decode()
    return out.decode()


async def run_example(block: Block, env: Mapping[str, str]) -> str:
    """Run a Python block; one that follows kills never ends by itself, so of that the first line is all."""
    if "async for" not in block.text:
        return await run([sys.executable, "-c", block.text], env)
    async with started([sys.executable, "-c", block.text], env) as process:
        assert process.stdout is not None
        return (await asyncio.wait_for(process.stdout.readline(), 60)).decode()


async def run_line(line: str, env: Mapping[str, str]) -> str:
    """Run one line of a shell block; an HTTP error fails it too."""
    return await run(["/bin/sh", "-c", line.replace("curl -sS ", "curl -sS --fail-with-body ", 1)], env)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_everything_that_is_to_be_pasted_runs(settings: Settings, tmp_path: Path):
    """Every python and sh block, top to bottom; on the way the README's own example is killed, heard of, cleaned up and revived."""
    async with running(settings, tmp_path) as system:
        env, printed = environment(system), {}
        for page in PAGES:
            for block in blocks(page, system):
                if block.language == "python":
                    printed[block.text] = await run_example(block, env)
                    continue
                for line in filter(None, block.text.splitlines()):
                    if "/revive/" in line:
                        assert await system.until(lambda: system.query("SELECT 1 FROM variant_pool WHERE variant_id = 'variant-7' AND status = 'killed'"), 10)
                        assert [row["status"] for row in system.query("SELECT status FROM scheduled_post")] == ["cancelled"]
                    printed[line] = await run_line(line, env)
        assert any(text.startswith("variant-7 Below 50% of expected engagement rate 0.0299") for text in printed.values())
        assert system.query("SELECT status FROM variant_pool") == [{"status": "active"}]
        assert system.query("SELECT status FROM scheduled_post") == [{"status": "scheduled"}]
        recorded = [row["variant_id"] for row in system.query("SELECT variant_id FROM variant_monitoring WHERE persona_id LIKE %s", "zozotown%")]
        replayed = await system.until_ended(recorded, 30)
        assert sorted(row["outcome"] for row in replayed.values()) == ["killed"] * 9 + ["timed_out"] * 3


def test_the_pages_have_what_this_test_looks_for():
    """A fence that is written another way would be left out without a word."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [found["language"] for found in BLOCK.finditer(readme)].count("python") == 4
    assert len(re.findall("^```", readme, re.MULTILINE)) % 2 == 0
    assert DEFAULT_API in readme
    assert DEFAULT_DATABASE in readme

"""Workers that get no time, no memory, or nowhere to write their log, or of which a part has ended."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.faults.ordeal import answer, only_on_demand, ordeal, sample, until
from tests.faults.schedule import Size
from tests.faults.stage import Servers, Stage
from tests.integration.system import Worker

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(300), only_on_demand]
AILING = str(Path(__file__).with_name("ailing"))
BLOCKED_SECONDS = 20.0
HELD_SECONDS = 10
"""The group waits 6 s for a silent worker."""
MIB = 1 << 20
SIZE = Size(120, 3_000, 30.0, 60.0)


async def test_a_blocked_event_loop_ends_a_monitor_and_loses_nothing(servers: Servers, tmp_path: Path):
    """20 s in monitor and sink: ``/health`` does not answer, and the monitor ends when its group may have given its partitions away (P34).

    The sink writes nothing that could come too late, and may go on.
    """
    async with ordeal(servers, tmp_path / "home", 34, size=SIZE, PYTHONPATH=AILING, STALL_SECONDS=str(BLOCKED_SECONDS)) as stage:
        await asyncio.sleep(18)  # all is posted: a stop that were behind with its post could be read first, and have no effect
        marks = stage.marks()
        monitor, sink = stage.workers
        for worker in (monitor, sink):
            worker.signal(signal.SIGRTMIN)
        await asyncio.sleep(1)
        assert [await answer(worker, "/health", 2) for worker in (monitor, sink)] == [(0, ""), (0, "")]
        await until(lambda: stage.said(marks, "stood still for"), BLOCKED_SECONDS - 5, "it notices")
        await asyncio.sleep(BLOCKED_SECONDS)
    print(f"ended: {dict(stage.exits)}")
    assert [name.partition(" (")[0] for name in stage.exits.elements() if not name.startswith("sink")] == ["monitor 1"], stage.exits


async def test_a_worker_whose_interpreter_is_held_up_starts_anew(servers: Servers, tmp_path: Path):
    """For longer than its group waits: heartbeats stop, the other monitor takes over, and this one ends as soon as it notices (P34)."""
    async with ordeal(servers, tmp_path / "home", 35, size=SIZE, monitors=2, PYTHONPATH=AILING, STALL_SECONDS=str(HELD_SECONDS)) as stage:
        await asyncio.sleep(5)
        marks = stage.marks()
        held = stage.system.monitors[0]._process
        assert held is not None
        held.send_signal(signal.SIGRTMIN + 1)
        await until(lambda: stage.said(marks, "stood still for"), HELD_SECONDS + 10, "it notices")
    assert [name.partition(" (")[0] for name in stage.exits.elements()] == ["monitor 1"], stage.exits


@pytest.mark.parametrize("part", ["fetching", "heartbeats"])
async def test_a_monitor_of_which_a_part_has_ended_starts_anew(servers: Servers, tmp_path: Path, part: str):
    """What aiokafka does by itself ends by an error that it does not expect. It would read nothing any more, or lose its partitions, and only its log would tell."""
    async with ordeal(servers, tmp_path / "home", 37, size=SIZE, excused="^in a log: ", PYTHONPATH=AILING) as stage:
        await asyncio.sleep(5)
        stage.system.monitors[0].signal(signal.SIGRTMIN + (2 if part == "fetching" else 3))
        await until(lambda: stage.exits, 20, "it ends")
        print(f"ended: {dict(stage.exits)}")
    assert [name.partition(" (")[0] for name in stage.exits.elements()] == ["monitor 1"], stage.exits


async def test_a_monitor_without_memory_starts_anew(servers: Servers, tmp_path: Path):
    """It may not grow by more than 16 MiB while 40,000 interactions of variants that nobody posted come in; all is counted once it may (P35).

    It ends by itself, or a library crashes over memory that it is not given.
    """
    async with ordeal(servers, tmp_path / "home", 36, size=SIZE, excused="^in a log: (?s:.*)MemoryError") as stage:
        await asyncio.sleep(5)
        monitor = stage.system.monitors[0]
        assert monitor._process is not None
        process = psutil.Process(monitor._process.pid)
        limit = process.memory_info().vms + 16 * MIB
        resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, limit))
        began = time.monotonic()
        await _flood(stage, 40_000)
        await until(lambda: stage.exits, 60, "it ends")
        print(f"ended {time.monotonic() - began:.1f} s after the flood began: {dict(stage.exits)}")
        await monitor.ready()
    [end] = stage.exits.elements()
    assert end.startswith(("monitor 1 (stopped: ", "monitor -")), end  # a library may crash over it


async def _flood(stage: Stage, events: int) -> None:
    sent = []
    for number in range(events):
        name = f"nobody-{number}"
        event = {"variant_id": name, "post_id": f"{name}-post", "kind": "view", "source": "x" * 300}
        sent.append(await stage.system.send("interaction", json.dumps(event).encode(), name.encode()))
    await asyncio.gather(*sent)


@pytest.mark.parametrize("where", ["a full disk", "a pipe that nobody reads"])
async def test_workers_that_cannot_write_their_log_work_on(servers: Servers, tmp_path: Path, where: str):
    """Through an outage of PostgreSQL and one of Kafka, which both have them say much; they leave cleanly (P40)."""
    async with ordeal(servers, tmp_path / "home", 40, size=SIZE) as stage:
        await stage.let_be()
        for worker in stage.workers:
            assert await asyncio.to_thread(worker.stop) == 0
            (_start_on_full_disk if where == "a full disk" else _start_into_closed_pipe)(worker)
        for worker in stage.workers:
            await worker.ready()
        stage.keep()
        await asyncio.to_thread(servers.postgres.stop)
        servers.kafka_proxy.refuse()
        await asyncio.sleep(8)
        await asyncio.to_thread(servers.heal)
        await asyncio.sleep(5)
        ready = [await answer(worker, "/ready") for worker in stage.workers]
        metrics = (await answer(stage.system.monitors[0], "/metrics"))[1]
        print(f"ready: {[status for status, _ in ready]}; records read: {sample(metrics, 'performance_monitor_records_read_total'):.0f}")
        assert [worker.log.exists() for worker in stage.workers] == [False, False]
    assert not stage.exits


def _start_on_full_disk(worker: Worker) -> None:
    own, worker.log = worker.log.with_suffix(".none"), Path("/dev/full")
    worker.start()
    worker.log = own


def _start_into_closed_pipe(worker: Worker) -> None:
    own, pipe = worker.log.with_suffix(".none"), worker.log.with_suffix(".pipe")
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    worker.log = pipe
    worker.start()
    worker.log = own
    deadline = time.monotonic() + 30
    while not _one_byte(reader):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.close(reader)


def _one_byte(reader: int) -> bytes:
    try:
        return os.read(reader, 1)
    except BlockingIOError:
        return b""

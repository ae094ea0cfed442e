"""A deploy and its rollback: what one version has written, the other reads, or refuses in one line."""

from __future__ import annotations

import asyncio
import re
from base64 import b64decode
from pathlib import Path

import msgspec
import pytest

from models.errors import Stop
from models.session import Outcome
from models.state import decode_session, decode_waiters, encode_session, encode_waiters
from streams.settings import Settings
from tests.faults.ordeal import only_on_demand, ordeal
from tests.faults.schedule import Size
from tests.faults.stage import Servers
from tests.faults.test_topics_changed import QUICK, all_committed, says_and_ends
from tests.integration.system import fresh, running

LATER = str(Path(__file__).with_name("later"))
LIVE = b64decode(
    "3AATAqdjYWbDqS03o2FkYaNwLTGVyz+uuFHrhR64yz/gAAAAAAAACstAJAAAAAAAAKVyYXRpb88ABgokGB5AAQcp/5jNAeAJAAAAAAABmM0B9AMAAAAAAADEEAEAAAAAAAAA//////////8DAcPCwKN3ZWLEFXsic2xvdCI6"
    "WzEsMi41LG51bGxdfQ=="
)
ENDED = b64decode(
    "3AATAqF2o2FkYaNwLTKVyz+uuFHrhR64yz/gAAAAAAAACstAJAAAAAAAAKVyYXRpb88ABgokGB5AAQgqDJjNAfQKAAAAAAAAwMQAAADCw5ama2lsbGVk2SVCZWxvdyA1MCUgb2YgZXhwZWN0ZWQgZW5nYWdlbWVudCByYXRlzwAG"
    "CiQbsccAzwAGCiQbwQlAlKtpbnRlcmFjdGlvbgIqzwAGCiQbsccAr2JlbG93X3RocmVzaG9sZMDA"
)
WAITING = b64decode("kZUFzwAGCiQYHkAAzwAGCiQ74YYAxAF2xDB7InZhcmlhbnRfaWQiOiJ2IiwicG9zdF9pZCI6InAtMiIsImtpbmQiOiJ2aWV3In0=")


def test_states_that_version_2_has_written_are_read_and_written_alike():
    """Whoever changes their form has to count the version up, or read both: these bytes stay as they are (P36). They are of a time before requests for stops were kept."""
    live = decode_session(LIVE, lambda _session, number: bytes(range(16)) if number == 3 else None)
    assert (live.variant_id, live.post_id, live.applied, live.counts.views, live.counts.interactions) == ("café-7", "p-1", 41, 500, 10)
    assert live.event_ids is not None
    assert (len(live.event_ids), live.metadata, live.start_pending, live.end) == (4, {"slot": [1, 2.5, None]}, True, None)
    ended = decode_session(ENDED, lambda _session, _number: None)
    assert ended.end is not None
    assert (ended.end.outcome, ended.end.origin.offset if ended.end.origin else None, ended.end_pending, ended.floor) == (Outcome.KILLED, 42, True, 12)
    [waiter] = decode_waiters(WAITING, 5)
    assert (waiter.offset, waiter.event.variant_id, waiter.event.kind) == (5, "v", "view")
    now = [msgspec.msgpack.encode([*msgspec.msgpack.decode(state), None]) for state in (LIVE, ENDED)]
    assert [encode_session(live), encode_session(ended), encode_waiters([waiter])] == [*now, WAITING]


@pytest.mark.parametrize("form", [[], [{"another": "form"}], list(range(30))])
def test_a_state_of_another_version_is_refused_as_that_whatever_its_form(form: list[object]):
    """It says which; one of this version that cannot be read says why (P36)."""
    with pytest.raises(Stop, match="has version 3; this program knows version 2"):
        decode_session(msgspec.msgpack.encode([3, *form]), lambda _session, _number: None)
    with pytest.raises(Stop, match="cannot be read: Expected"):
        decode_session(msgspec.msgpack.encode([2, *form]), lambda _session, _number: None)


@only_on_demand
@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_deploy_forth_and_back_under_traffic_changes_nothing(servers: Servers, tmp_path: Path):
    """Two monitors and the sink go to a version whose states and records have a field more, one after the other, and back: each reads the other's (P36)."""
    async with ordeal(servers, tmp_path / "home", 36, size=Size(120, 3_000, 45.0, 60.0), monitors=2) as stage:
        await stage.let_be()
        marks = stage.marks()
        for version in ({"PYTHONPATH": LATER, "LATER": "more-fields"}, {}):
            for worker in stage.workers:
                await asyncio.sleep(2)
                assert await asyncio.to_thread(worker.stop) == 0
                for name in ("PYTHONPATH", "LATER"):
                    worker._environment.pop(name, None)
                worker._environment.update(version)
                worker.start()
                await worker.ready()
        restored = [sum(int(count) for count in re.findall(r"restored (\d+) sessions", worker.log.read_bytes()[marks[worker.log] :].decode())) for worker in stage.system.monitors]
        print(f"sessions that were read from states of the other version or the same: {restored}")
        assert all(restored)


@only_on_demand
@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("later", ["next-version", "another-form"])
async def test_states_of_a_version_that_is_not_understood_are_refused_in_one_line(settings: Settings, tmp_path: Path, later: str):
    """Nothing is counted from zero, nothing written over: the later version goes on where it was (P36)."""
    async with running(settings, tmp_path, **QUICK) as system:
        monitor, name = system.monitors[0], fresh("counted")
        assert monitor.stop() == 0
        monitor._environment |= {"PYTHONPATH": LATER, "LATER": later}
        monitor.start()
        await monitor.ready()
        await system.post(name)
        await system.interact(name, "view", 1, count=400)
        await all_committed(system, "interaction", "variant_posted")
        assert monitor.stop() == 0
        for variable in ("PYTHONPATH", "LATER"):
            del monitor._environment[variable]
        monitor.start()
        await says_and_ends(monitor, "stopped: a session's state has version 3; this program knows version 2")
        if later == "another-form":
            return  # only its writer is played here, not its reader
        monitor._environment |= {"PYTHONPATH": LATER, "LATER": later}
        monitor.start()
        await monitor.ready()
        await system.interact(name, "view", 1, count=100)
        await system.interact(name, "like", 10)
        rows = await system.until_ended([name], 20)
        assert (rows[name]["outcome"], rows[name]["final_view_count"]) == ("killed", 500)

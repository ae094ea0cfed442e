"""One life of a monitor: the project's own ``Monitoring`` between a simulated consumer and a simulated log."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from random import Random
from types import SimpleNamespace
from typing import Any

from aiokafka.errors import IllegalStateError
from faust.types import TP
from faust.windows import TumblingWindow

from models.events import Defaults
from models.monitor import Limits
from models.session import Result
from streams.ledger import Ledger
from streams.monitoring import Monitoring
from streams.ports import Tables, Topics
from streams.tables import Recovered, StateTable
from streams.transport import Chunk
from tests.simulation.broker import Broker, SimulatedLog
from tests.simulation.dice import Dice
from tests.simulation.loop import SimulatedLoop

TOPICS = Topics("variant_posted", "interaction", "monitoring_control", "variant_killed", "monitoring_record", "dead_letter")
COMPACTION_LAG = 8_000_000
"""Microseconds for which compaction takes nothing away."""
CHANGELOG_LOOK = 1.0
"""Seconds between two looks whether somebody else has written to a changelog; less than a worker has to have rested for."""
FLUSH_PAUSE = 1.0
"""Seconds until the next flush at the longest."""
CHANGELOGS = ("engagement", "event_id", "waiting")


@dataclass(frozen=True, slots=True)
class Setting:
    """What a world is like. Moments in microseconds.

    Attributes:
        flush_seconds: Pause between two flushes.
        failures: Share of batches that are not acknowledged, whether they have arrived or not.
        strays: What has failed may arrive all the same, later than what was sent after it.
        fetch_gap: A record may be on its way from the consumer to its agent for some steps, while the consumer's position has moved on.
    """

    grace: int
    wait: int
    flush_seconds: float
    failures: float
    fetch_gap: bool
    strays: bool = False


class RestoredTable(StateTable):
    """A table whose content is what the broker had of its changelog when it was asked for the end."""

    def __init__(self, name: str, broker: Broker, window: TumblingWindow | None) -> None:
        self.name, self._broker, self.window = name, broker, window
        self._ends: dict[int, int] = {}

    @property
    def changelog_topic_name(self) -> str:
        return self.name

    def ask_end(self, partition: int) -> None:
        """Note how far the changelog is to be read."""
        self._ends[partition] = len(self._broker.appended[self.name, partition])

    def take(self, partition: int) -> Recovered:
        return self._broker.recovered(self.name, partition, self._ends[partition])

    def forget(self) -> None:
        """Nothing is kept."""


class Consumer:
    """Answers what ``Monitoring`` asks of a ``ChunkedConsumer``, after a while."""

    def __init__(self, broker: Broker, loop: SimulatedLoop, rng: Random) -> None:
        self._broker, self._loop, self._rng = broker, loop, rng
        self.resumed: dict[TP, int | None] = {}
        self.positions: dict[TP, int] = {}
        self.own: dict[TP, int | None] = {}
        self.ledgers: dict[TP, Ledger] = {}

    def assign(self, partitions: Collection[int]) -> None:
        """Begin where the group has committed; nothing that was handed out before counts."""
        self.ledgers.clear()
        self.resumed = {tp: self._broker.committed.get(tp) for tp in self._broker.sources if tp.partition in partitions}
        self.positions = {tp: offset or 0 for tp, offset in self.resumed.items()}
        self.own = dict(self.resumed)

    async def _pause(self) -> None:
        for _ in range(self._rng.randint(0, 2)):
            await asyncio.sleep(self._rng.choice((0, 0.001)))

    def assignment(self) -> set[TP]:
        return set(self.resumed)

    async def seek_to_committed(self) -> Mapping[TP, int | None]:
        await self._pause()
        return dict(self.resumed)

    async def earliest_offsets(self, *tps: TP) -> Mapping[TP, int]:
        await self._pause()
        return dict.fromkeys(tps, 0)

    async def highwaters(self, *tps: TP) -> Mapping[TP, int]:
        await self._pause()
        ends = {tp: len(self._broker.appended[tp]) if tp.topic in CHANGELOGS else self._broker.end(tp, self._loop.now) for tp in tps}
        await self._pause()
        return ends

    def committed(self, tp: TP) -> int | None:
        return self.own.get(tp)

    async def position(self, tp: TP) -> int:
        if tp not in self.positions:
            raise IllegalStateError(tp)
        position = self.positions[tp]
        if self._rng.random() < 0.5:
            await asyncio.sleep(0)
        return position


class Tally:
    """Counts what became of records."""

    def __init__(self) -> None:
        self.read: Counter[str] = Counter()
        self.results: Counter[Result] = Counter()
        self.resolved_own = 0
        self.resolved: Counter[Result] = Counter()

    def folded(self, topic: str, read: int, results: Mapping[Result, int]) -> None:
        self.read[topic] += read
        self.results.update(results)

    def resolve(self, result: Result, n: int, *, restored: bool) -> None:
        self.resolved[result] += n
        self.resolved_own += 0 if restored else n

    def started(self) -> None:
        """Not looked at."""

    def ended(self, outcome: str, reason_label: str, duration_seconds: float, rate: float | None) -> None:
        """Not looked at."""

    def evaluated(self, latency_seconds: float) -> None:
        """Not looked at."""

    def flushed(self, duration_seconds: float, table_writes: Mapping[str, int]) -> None:
        """Not looked at."""


class Life:
    """A monitor from its start to its end.

    Attributes:
        is_outside: Its group goes on without it: what it commits is refused, and it does not know.
        stands_still: When it has lost its partitions, until another one owns them; then it makes up for it.
        rebalances: How often its partitions were taken away from it in good order.
        left_waiting: Records that waited then, and that it had read itself.
    """

    def __init__(self, broker: Broker, setting: Setting, rng: Random, now: int, partitions: Collection[int] | None = None) -> None:
        self.loop = SimulatedLoop(now)
        self.is_outside = self.stands_still = False
        self.rebalances = self.left_waiting = 0
        self._broker, self._rng, self.setting = broker, rng, setting
        self.log = SimulatedLog(broker, self.loop, rng, setting.failures, strays=setting.strays)
        self.consumer = Consumer(broker, self.loop, rng)
        self.tally = Tally()
        self.error: BaseException | None = None
        self.queues: dict[str, asyncio.Queue[Chunk]] = {topic: asyncio.Queue() for topic in TOPICS.sources}
        window = TumblingWindow(600.0)
        self._tables = [RestoredTable(name, broker, None if name == "waiting" else window) for name in CHANGELOGS]
        observer: Any = SimpleNamespace(
            folded=self.tally.folded,
            resolved=self.tally.resolve,
            started=self.tally.started,
            ended=self.tally.ended,
            evaluated=self.tally.evaluated,
            flushed=self.tally.flushed,
        )
        self._app: Any = SimpleNamespace(consumer=self.consumer, rebalancing=False)
        self.monitoring = Monitoring(
            self._app,
            log=self.log,
            state_log=self.log,
            tables=Tables(*self._tables),
            topics=TOPICS,
            defaults=Defaults(),
            limits=Limits(setting.grace, setting.wait),
            waiting_limit=1_000_000,
            flush_seconds=setting.flush_seconds,
            observer=observer,
            clock=lambda: self.loop.now,
            fail=self._fail,
        )
        create = self.loop.create_task
        self._tasks = [*(create(self._agent(queue)) for queue in self.queues.values()), create(self._commit())]
        self.assign(broker.partitions if partitions is None else partitions)

    def _fail(self, error: BaseException) -> None:
        self.error = self.error or error
        self.loop.has_to_stop = True

    def assign(self, partitions: Collection[int]) -> None:
        """Give it partitions: it takes them over, and begins to fetch."""
        self._app.rebalancing = False
        self.consumer.assign(partitions)
        self._tasks.append(self.loop.create_task(self._take_over(sorted(partitions))))

    def companion(self) -> Life:
        """Return another worker of the group, which has no partitions yet."""
        return Life(self._broker, self.setting, Dice(f"companion {self._rng.random()}"), self.loop.now, ())

    def let_go(self) -> None:
        """Take its partitions away, as a rebalance of its group does first. What it has sent is on its way, and arrives."""
        self.loop.call_soon(self._let_go)
        self.run(self.loop.now)

    def _let_go(self) -> None:
        self.rebalances += 1
        self.left_waiting += self.own_waiting
        self._app.rebalancing = True
        self.consumer.assign(())
        self.monitoring.let_go()
        for queue in self.queues.values():
            while not queue.empty():
                queue.get_nowait()

    async def _take_over(self, partitions: list[int]) -> None:
        rebalances = self.rebalances
        for table in self._tables:
            for partition in partitions:
                table.ask_end(partition)
                if self._rng.random() < 0.3:
                    await asyncio.sleep(self._rng.choice((0, 0.001, 0.02)))
        if self.rebalances != rebalances:
            return
        try:
            self.monitoring.start()
            is_taken_over = await self.monitoring.take_over()
        except Exception as error:  # noqa: BLE001 - as the worker does
            self._fail(error)
            return
        if is_taken_over:
            await self._fetch(rebalances)

    async def _agent(self, queue: asyncio.Queue[Chunk]) -> None:
        while True:
            self.monitoring.take(await queue.get())

    async def _fetch(self, rebalances: int) -> None:
        rng, consumer, broker = self._rng, self.consumer, self._broker
        busy_pause = rng.choice((0.01, 0.05, 0.2))
        while unread := [tp for tp in sorted(consumer.positions) if consumer.positions[tp] < len(broker.sources[tp])]:
            pause = 0.05 + 0.25 * rng.random()
            rng.shuffle(unread)
            for tp in unread:
                first = consumer.positions[tp]
                waiting = broker.end(tp, self.loop.now) - first
                if waiting <= 0 or not self.monitoring.may_fetch(tp):
                    continue
                records = broker.sources[tp][first : first + min(waiting, rng.choice((1, 10, 50, 1000)))]
                consumer.positions[tp] = first + len(records)
                if self.setting.fetch_gap:
                    for _ in range(rng.randint(0, 3)):
                        await asyncio.sleep(rng.choice((0, 0, 0.01)))
                    if self.rebalances != rebalances:
                        return
                ledger = consumer.ledgers.setdefault(tp, Ledger())
                chunk: Any = Chunk(tp, list(records), ledger.hand_out(records[0].offset, records[-1].offset), ledger)  # type: ignore[arg-type]
                self.monitoring.fetched(chunk)
                self.queues[tp.topic].put_nowait(chunk)
                pause = busy_pause * rng.random()
            await asyncio.sleep(pause)
            if self.rebalances != rebalances:
                return

    def commit(self) -> None:
        """Commit what is done."""
        if self.is_outside:
            return
        for tp, ledger in self.consumer.ledgers.items():
            if ledger.committable is not None and ledger.committable > (self.consumer.own[tp] or 0):
                self._broker.committed[tp] = self.consumer.own[tp] = ledger.committable

    async def _commit(self) -> None:
        while True:
            await asyncio.sleep(self._rng.choice((0.05, 0.3, 1.5)))
            self.commit()

    def run(self, until: int, steps: int | None = None) -> None:
        """Live; raises what the worker could not live with."""
        self.loop.run(until, steps)
        if self.error is not None:
            raise self.error

    def crash(self, *, strays: bool = False) -> None:
        """Die on the spot; if ``strays``, hang and lose the partitions instead, and what was sent arrives later."""
        self.log.crash(strays=strays)
        self.loop.destroy()

    def stop(self) -> None:
        """Stop in good order: fetch no more, drain, commit."""
        for task in self._tasks:
            task.cancel()
        done = self.loop.create_task(self.monitoring.stop())
        done.add_done_callback(lambda _: setattr(self.loop, "has_to_stop", True))
        until = self.loop.now + 60_000_000
        while not done.done() and self.loop.now < until:
            self.loop.has_to_stop = False
            self.loop.run(until)
        done.result()
        self.commit()
        self.crash()

    @property
    def monitors(self) -> list[Any]:
        return [owned.worker.monitor for owned in self.monitoring._owned.values()]

    @property
    def own_waiting(self) -> int:
        """How many records wait that it has read itself."""
        return sum(monitor.waiting.count for monitor in self.monitors) - self.restored_waiting

    @property
    def restored_waiting(self) -> int:
        """How many records wait that an earlier process has read."""
        return sum(waiter.restored and not waiter.gone for monitor in self.monitors for waiters in monitor.waiting._by_variant.values() for waiter in waiters)

    @property
    def has_to_flush(self) -> bool:
        """Whether there are dead letters to send, or a flush is under way that may have some."""
        return any(owned.worker._dead_letters or owned.worker._flushing.locked() for owned in self.monitoring._owned.values())

    def busy_workers(self) -> int:
        return sum(len(owned.worker._tasks) for owned in self.monitoring._owned.values())

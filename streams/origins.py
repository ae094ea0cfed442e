"""Notices that Kafka no longer holds what a monitor's state was made from: offsets would mean other records, or counts start at zero.

Beside the state of each partition stands which topics it comes from, by their ids. A topic that was deleted and made anew has
another id. The monitor then stops, rather than take new records for such as it has had.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import faust
from aiokafka.errors import KafkaError
from faust.types import TP

from models.errors import Retry, Stop
from streams.ports import Appender
from streams.topic_ids import TopicIdentity

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from streams.tables import StateTable
    from streams.transport import ChunkedConsumer

LOOK_SECONDS = 5.0
"""Pause between two looks at the topics while the monitor runs."""
MISSING_LOOKS = 2
"""Looks in a row at which a topic is missing until it counts as deleted: a broker that has just started may not know all."""
ASK_AGAIN_SECONDS = 1.0
MISSING_ANSWERS = 5
"""Answers in a row that leave a topic out until a takeover believes them: changelogs are made just before, and a broker may take seconds to know of many partitions."""
ANEW = "To begin anew with what is on the topics, give all workers a new EARLY_KILL_APP_ID"

log = logging.getLogger(__name__)


Identities = Mapping[str, TopicIdentity]


class Origins:
    """What one monitor knows of the topics that its state comes from.

    Args:
        app: For the partitions it owns.
        sources: The topics that it reads.
        tables: Its state; their changelogs are watched too.
        table: Where the ids are kept, for each partition.
        log: Writes them.
        identities: Asks Kafka what topics of these names are now.
        partitions: How many each of them has to have.
        lost: Told of records that retention has removed before they were read: topic and number.
    """

    def __init__(
        self,
        app: faust.App,
        sources: Sequence[str],
        tables: Sequence[StateTable],
        table: StateTable,
        log: Appender,
        *,
        identities: Callable[[Sequence[str]], Awaitable[Identities]],
        partitions: int,
        lost: Callable[[str, int], None],
    ) -> None:
        self._app, self._sources, self._tables, self._table, self._log = app, sources, tables, table, log
        self._identities, self._partitions, self._lost = identities, partitions, lost
        self._key = table.key("topics")
        self._known: dict[str, str] = {}
        self._missing = self._generation = 0
        self._next: dict[TP, int] = {}
        self._gaps: list[tuple[TP, int, int]] = []

    @property
    def _names(self) -> list[str]:
        return [*self._sources, *(table.changelog_topic_name for table in self._tables)]

    @property
    def _consumer(self) -> ChunkedConsumer:
        return self._app.consumer  # type: ignore[no-any-return]

    def forget(self) -> None:
        """Drop what recovery has read: the assignment has changed."""
        self._generation += 1
        self._table.forget()
        self._next.clear()
        self._gaps = []  # another list: a look may be counting the old one

    async def check(self) -> bool:
        """Compare what the assigned partitions come from with what there is; to be called once they are recovered, before any record is read.

        Waits for Kafka as long as it takes.

        Returns:
            False if the assignment has changed meanwhile: what recovery had read is gone, and nothing may be taken over with what is left.

        Raises:
            Stop: A topic was deleted and made anew, or cut short, partitions were added, or the state is gone.
        """
        generation = self._generation
        partitions = sorted({tp.partition for tp in self._consumer.assignment() if tp.topic == self._sources[0]})
        noted = {partition: self._noted(partition) for partition in partitions}
        tps = [TP(name, partition) for partition in partitions for name in self._sources]
        if not tps:
            return True
        ids = self._ids(await self._told())
        positions = {TP(tp.topic, tp.partition): offset for tp, offset in (await self._consumer.seek_to_committed()).items()}
        committed = {tp: offset or 0 for tp, offset in positions.items()}
        starts, ends = await self._consumer.earliest_offsets(*tps), await self._consumer.highwaters(*tps)
        written, is_noted = await self._written(partitions, self._tables), await self._written(partitions, [self._table])
        if generation != self._generation:
            return False
        self._known = ids
        self._judge(noted, ids, written, is_noted, committed)
        self._look_for_positions(noted, positions, starts)
        for tp in tps:
            if ends[tp] < committed.get(tp, 0):
                raise cut_short(tp, committed[tp], f"ends at {ends[tp]}")
        for tp in tps:
            done = committed.get(tp, 0)
            self._next[tp] = max(done, starts[tp])
            if 0 < done < starts[tp]:
                self._tell(tp, starts[tp] - done)
        for partition in partitions:
            if noted[partition] != ids:
                await self._log.append(self._table.changelog_topic_name, self._key, json.dumps(ids).encode(), partition)
        return generation == self._generation

    def _judge(self, noted: Mapping[int, dict[str, str] | None], ids: dict[str, str], written: set[int], is_noted: set[int], committed: Mapping[TP, int]) -> None:
        for partition, noted_ids in noted.items():
            if noted_ids is None and partition in is_noted:
                raise Stop(f"the state of partition {partition} was not read back; this worker starts anew")
            _compare(noted_ids or {}, ids)
            if noted_ids is None and partition not in written:
                self._require_unread(partition, committed)

    def _look_for_positions(self, noted: Mapping[int, dict[str, str] | None], positions: Mapping[TP, int | None], starts: Mapping[TP, int]) -> None:
        """Say where nobody can tell whether records were lost: there is state, and the brokers have forgotten how far the group had read."""
        for partition, noted_ids in noted.items():
            tps = [TP(name, partition) for name in self._sources]
            if noted_ids is not None and all(positions.get(tp) is None for tp in tps) and any(starts[tp] for tp in tps):
                log.error(
                    "Kafka has forgotten how far consumer group %s had read partition %d (offsets.retention.minutes): it is read from its beginning, "
                    "and what retention has removed before it was read is lost and not counted",
                    self._app.conf.id,
                    partition,
                )

    def _require_unread(self, partition: int, committed: Mapping[TP, int]) -> None:
        if any(committed.get(TP(name, partition)) for name in self._sources):
            raise Stop(
                f"partition {partition} has been read before, but its state is gone: were the topics {self._app.conf.id}-…-changelog deleted? "
                f"Its counts would start at zero. {ANEW}"
            )

    def _noted(self, partition: int) -> dict[str, str] | None:
        value = self._table.take(partition).content.get(self._key)
        return None if value is None else json.loads(value)

    async def _written(self, partitions: Sequence[int], tables: Sequence[StateTable]) -> set[int]:
        """Return the partitions of which there is anything in the changelogs of ``tables``."""
        tps = [TP(table.changelog_topic_name, partition) for table in tables for partition in partitions]
        return {tp.partition for tp, end in (await self._consumer.highwaters(*tps)).items() if end}

    async def _told(self) -> Identities:
        answers = 0
        while True:
            try:
                told = await self._identities(self._names)
            except Retry as error:
                log.warning("waiting to hear what topics there are: %s", error)
            else:
                answers += 1
                if len(told) == len(self._names) or answers >= MISSING_ANSWERS:
                    return told
            await asyncio.sleep(ASK_AGAIN_SECONDS)

    async def look(self) -> float:
        """See whether the topics are still the same, and whether records were lost; returns seconds until the next look. Errors as ``check``, and ``Retry``."""
        if self._gaps:
            await self._count_lost()
        if self._known:
            now = await self._identities(self._names)
            self._missing = self._missing + 1 if len(now) < len(self._names) else 0
            if self._missing == 0 or self._missing >= MISSING_LOOKS:
                _compare(self._known, self._ids(now))
        return LOOK_SECONDS

    async def _count_lost(self) -> None:
        """Ask Kafka once where the partitions with gaps begin, and tell of what each has lost. What is noted meanwhile is for the next look."""
        noted, gaps = self._gaps, self._gaps.copy()
        try:
            starts = await self._consumer.earliest_offsets(*{tp for tp, _, _ in gaps})
        except (KafkaError, TimeoutError) as error:
            raise Retry(f"Kafka did not say where the partitions of {', '.join(sorted({tp.topic for tp, _, _ in gaps}))} begin: {error!r}") from None
        del noted[: len(gaps)]
        lost: Counter[TP] = Counter()
        for tp, wanted, found in gaps:
            lost[tp] += max(0, min(starts[tp], found) - wanted)
        for tp, records in lost.items():
            if records:
                self._tell(tp, records)

    def fetched(self, tp: TP, first: int, last: int) -> None:
        """Note that records from offset ``first`` to ``last`` come next. Those passed over are lost, or there are none (compaction, transactions)."""
        wanted = self._next.get(tp)
        if wanted is not None and first > wanted:
            self._gaps.append((tp, wanted, first))
        self._next[tp] = last + 1

    def _ids(self, now: Identities) -> dict[str, str]:
        for name in self._names:
            if name not in now:
                raise Stop(f"topic {name} was deleted")
            if now[name].partitions != self._partitions:
                raise Stop(
                    f"topic {name} has {now[name].partitions} partitions, this monitor's state was made with {self._partitions}: a variant's records would come "
                    "to another partition than its state. For another number, give all workers a new EARLY_KILL_TOPIC_PREFIX and EARLY_KILL_APP_ID"
                )
        return {name: now[name].id for name in self._names}

    def _tell(self, tp: TP, records: int) -> None:
        log.error("%d records of %s[%d] are lost: retention removed them before they were read", records, tp.topic, tp.partition)
        self._lost(tp.topic, records)


def cut_short(tp: TP, read_to: int, finding: str) -> Stop:
    """Return what to say of a partition that has been read further than it goes; ``finding`` says how far that is."""
    return Stop(f"{tp.topic}[{tp.partition}] {finding}, and was read up to {read_to}: Kafka has lost records, and counts may be of such as are gone. {ANEW}")


def _compare(noted: Mapping[str, str], ids: Mapping[str, str]) -> None:
    others = sorted(noted.keys() - ids.keys())
    if others:
        raise Stop(f"this monitor's state was made from other topics ({', '.join(others)}): with another EARLY_KILL_TOPIC_PREFIX give all workers another EARLY_KILL_APP_ID, too")
    for name, identity in noted.items():
        if ids.get(name, identity) != identity:
            raise Stop(f"topic {name} was deleted and made anew since the state of this monitor was written: offsets in it mean other records now. {ANEW}")

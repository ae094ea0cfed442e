"""A table's changelog as the owner of one of its partitions writes it: each record says whose it is, and none slips in between.

Kafka takes records for a changelog from whoever sends them, also from a worker that has lost the partition and does not
know. So each owner has a *generation*, in a header of each of its records, tombstones too: one more than the furthest that it
found there. It begins with a *claim*, and that has to be the next record after the last one it has read; if not, it reads
what is in between, and claims again. Every record that follows has to be the next after its last. If one is not, another has written: this worker has been overtaken, and must not
believe that what it wrote is durable. It starts anew. A producer that is made anew begins with a claim of one generation more, too: what the failed
one had handed to the network may arrive at any time. Whoever reads the changelog ignores records of a generation earlier
than one before them (``Recovered``), and the next owner writes again what they stand in front of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from models.errors import Stop
from streams.ports import Log
from streams.tables import CLAIM, GENERATION, Recovered, generation_of

FIRST = "f"
"""Header of a claim that is not an owner's first: the generation of that one, which no other owner has."""


class Overtaken(Stop):
    """Somebody else has written to a changelog partition that this worker took for its own."""


@dataclass(slots=True)
class _Course:
    """Records that follow one another in a log, as far as nobody else writes.

    Attributes:
        name: What ``Log.place`` says of them; another one means that records may have got lost in between.
        base: Offset of the first one; None until it is known.
        count: How many were sent.
    """

    name: object
    base: int | None = None
    count: int = 0


@dataclass(frozen=True, slots=True)
class _Ticket:
    sent: Any
    course: _Course
    position: int
    size: int


class Changelog:
    """The changelog partition of a table, from an assignment to its revocation.

    Args:
        log: Where it goes.
        topic: Its topic.
        partition: Its partition.
        recovered: What was found there.

    Attributes:
        topic: Its topic.
        is_let_go: The partition may be another's by now: nothing that happens in the log is an error any more, and nothing more is sent.
    """

    def __init__(self, log: Log, topic: str, partition: int, recovered: Recovered | None = None) -> None:
        self._log, self.topic, self._partition = log, topic, partition
        self._recovered = recovered or Recovered({})
        self._first = self._generation = self._recovered.furthest + 1
        self._course: _Course | None = None
        self._seen = self._recovered.end
        self._sending, self._picking_up = asyncio.Lock(), asyncio.Lock()
        self.is_let_go = False

    @property
    def _headers(self) -> Sequence[tuple[str, bytes]]:
        return ((GENERATION, b"%d" % self._generation),)

    @property
    def _by_us(self) -> tuple[str, bytes]:
        return FIRST, b"%d" % self._first

    async def claim(self) -> None:
        """Write the claim, and again what records of earlier generations stand in front of. Nothing else may be sent before it returns.

        Where records have arrived that were not found before, it reads them, and claims again.
        """
        recovered = self._recovered
        while (first := await self._claimed()) is not None and first > recovered.end:
            recovered.apply(await self._log.read(self.topic, self._partition, recovered.end, first + 1))
        hidden = [(key, recovered.content.get(key)) for key in recovered.hidden]
        while hidden and not await self.write(hidden):
            pass

    async def confirm(self) -> None:
        """Claim again what is claimed; raises ``Overtaken`` if somebody else has written since."""
        while not await self.write([(CLAIM, None)]):
            pass

    async def _claimed(self) -> int | None:
        """Write the claim; return where it stands, if that is known, and the partition has not been let go."""
        self._first = self._generation = self._recovered.furthest + 1
        ticket = await self._send_claim(*self._headers)
        while not await self._log.delivered(ticket.sent):
            if self.is_let_go:
                return None
            ticket = await self._send_claim(*self._headers)
        place = self._log.place(ticket.sent)
        if place is None:
            return None
        ticket.course.base = place.first - ticket.position
        self._seen = place.end
        return place.first

    def hand_over(self) -> dict[bytes, bytes]:
        """Return what was found in the changelog: key to value. It is forgotten here."""
        content, self._recovered = self._recovered.content, Recovered({}, self._recovered.furthest)
        return content

    async def write(self, records: Iterable[tuple[bytes, bytes | None]]) -> bool:
        """Append records and wait for the acknowledgement; False asks to do it again. Once the partition is let go there is nothing to do."""
        ticket = await self.send(records)
        return ticket is None or await self.delivered(ticket)

    async def send(self, records: Iterable[tuple[bytes, bytes | None]]) -> _Ticket | None:
        """Append records (key, value), behind those sent before; ask ``delivered`` whether they have arrived.

        Returns:
            None once the partition is let go: its next owner would take what comes behind its claim for another worker's, and start anew.
        """
        records = list(records)
        async with self._sending:  # several batches, with a pause between two: what came in between would look like another worker's
            while not self.is_let_go:
                course = None if self._course is None else self._course.name
                sent = await self._log.send_all(self.topic, self._partition, records, self._headers, course)
                if sent is not None:
                    return self._ticket(sent, len(records))
                await self._claim_again()
        return None

    async def _send_claim(self, *headers: tuple[str, bytes]) -> _Ticket:
        """Append a claim, on whatever course there is."""
        return self._ticket(await self._log.send_all(self.topic, self._partition, [(CLAIM, None)], headers), 1)

    def _ticket(self, sent: Any, size: int) -> _Ticket:
        name = self._log.course(sent)
        if self._course is None or self._course.name is not name:
            self._course = _Course(name)
        course, position = self._course, self._course.count
        course.count += size
        return _Ticket(sent, course, position, size)

    async def _claim_again(self) -> None:
        """Begin a course with a claim of the next generation: of what the last one had sent, some may have arrived, some not, and some may yet.

        Nothing of that generation may be sent before it is known that it is nobody else's; nor once the partition is let go.

        Raises:
            Overtaken: Before it is anything that this owner has not written.
        """
        while not self.is_let_go:
            ticket = await self._send_claim((GENERATION, b"%d" % (self._generation + 1)), self._by_us)
            place = self._log.place(ticket.sent) if await self._log.delivered(ticket.sent) else None
            if place is None:
                continue
            await self._require_own(place.first)
            if not self.is_let_go:
                ticket.course.base, self._seen = place.first - ticket.position, place.end
                self._generation += 1
            return

    async def delivered(self, ticket: _Ticket) -> bool:
        """Wait for the acknowledgement; False asks to send again.

        Raises:
            Overtaken: There are records of somebody else in between: what was sent may count for nothing.
        """
        if not await self._log.delivered(ticket.sent):
            return False
        place = self._log.place(ticket.sent)
        if place is not None and not self.is_let_go:
            course = ticket.course
            if course.base is None:
                await self._pick_up(course, place.first - ticket.position)
            expected = (course.base or 0) + ticket.position
            if place.first != expected or place.end != expected + ticket.size:
                self._overtaken(expected, max(place.first, place.end - ticket.size))
            self._seen = max(self._seen, place.end)
        return True

    def look(self, end: int) -> None:
        """Learn that the changelog ended at ``end`` a moment ago; raises ``Overtaken`` if that is behind what was sent, and nothing is on its way.

        For one that is seldom written to: compaction must not get to what somebody else's record hides.
        """
        course = self._course
        if course is None or course.base is None or self.is_let_go or self._sending.locked() or self._seen < course.base + course.count:
            return
        if end > self._seen:
            self._overtaken(self._seen, self._seen)

    async def _pick_up(self, course: _Course, base: int) -> None:
        """Find out where a new course begins: of what was sent before, some may have arrived and some not, but nothing of anybody else."""
        async with self._picking_up:
            if course.base is not None:
                return
            await self._require_own(base)
            course.base = base

    async def _require_own(self, end: int) -> None:
        """Read what is between the last record acknowledged and ``end``; raises ``Overtaken`` if this owner has not written all of it, unless the partition is let go."""
        for record in await self._log.read(self.topic, self._partition, self._seen, end):
            if not (self.is_let_go or self._first <= generation_of(record.headers) <= self._generation or self._by_us in record.headers):
                self._overtaken(self._seen, record.offset)

    def _overtaken(self, expected: int, found: int) -> None:
        raise Overtaken(f"another worker has written to {self.topic}[{self._partition}], where offset {expected} was next and {found} came; this one starts anew")


class Changelogs(NamedTuple):
    """The changelogs of a partition's tables."""

    engagement: Changelog
    event_id: Changelog
    waiting: Changelog


async def claim(changelogs: Changelogs) -> None:
    """Claim all changelogs of a partition, as ``Changelog.claim``.

    That of the sessions first: whoever has lost that one can write no state any more that counts on what is in the others. And
    once more in the end: if somebody else has claimed it meanwhile, the others may be theirs or ours.

    Raises:
        Overtaken: Somebody else has.
    """
    await changelogs.engagement.claim()
    await asyncio.gather(changelogs.event_id.claim(), changelogs.waiting.claim())
    await changelogs.engagement.confirm()

"""Record batches out of aiokafka as its C code has unpacked them: a list for each batch, where aiokafka makes an object and a turn of a generator for each record.

What may be read, and from which offset on, stays aiokafka's business (``PartitionRecords``): checksums, transactions, control
batches, positions. It is only told that a batch holds one record, which carries all of them.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import Any

from aiokafka.consumer.fetcher import Fetcher

from streams.ports import Incoming


class Bundle:
    """The records of one batch; to aiokafka, a record that stands at the last of them."""

    __slots__ = ("offset", "records")

    def __init__(self, records: list[Incoming]) -> None:
        self.records, self.offset = records, records[-1].offset


class _Batch:
    """A batch that yields one ``Bundle``, of the records from the next one to fetch on."""

    def __init__(self, batch: Any, fetched: Any) -> None:
        self._batch, self._fetched = batch, fetched

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __iter__(self) -> Iterator[Bundle]:
        records, first = list(self._batch), self._fetched.next_fetch_offset
        if records and records[0].offset < first:  # a fetch from the middle of a batch gets all of it
            records = [record for record in records if record.offset >= first]
        if records:
            yield Bundle(records)


class _Batches:
    """Stands between ``PartitionRecords``, which it knows weakly lest the two keep each other and all the bytes until garbage is searched, and its batches."""

    def __init__(self, batches: Any, fetched: Any) -> None:
        self._batches, self._fetched = batches, weakref.proxy(fetched)
        self.has_next = batches.has_next

    def next_batch(self) -> Any:
        batch = self._batches.next_batch()
        return batch if batch.is_control_batch else _Batch(batch, self._fetched)


def bundle(fetcher: Fetcher) -> None:
    """Let what lies in the fetcher's buffer, and is not being read yet, come out in ``Bundle``s."""
    for result in fetcher._records.values():  # noqa: SLF001 - Faust's consumer reads this buffer too
        fetched = getattr(result, "_partition_records", None)
        if fetched is not None and not isinstance(fetched._records, _Batches):  # noqa: SLF001 - there is no other way in
            fetched._records = _Batches(fetched._records, fetched)  # noqa: SLF001 - see above
            fetched._consumer_record = _as_it_is  # noqa: SLF001 - see above


def _as_it_is(_tp: object, record: Bundle) -> Bundle:
    return record


def unbundle(read: Iterable[Any]) -> list[Incoming]:
    """Return the records that were read, in order, those that were not bundled as well."""
    records: list[Incoming] = []
    for one in read:
        if type(one) is Bundle:
            records += one.records
        else:
            records.append(one)
    return records

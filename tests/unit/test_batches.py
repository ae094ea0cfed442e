"""Tests of records that come out of aiokafka by the batch: the same ones as otherwise."""

from __future__ import annotations

import gc
import inspect
import struct
import weakref
from types import SimpleNamespace
from typing import Any

import aiokafka.consumer.fetcher
import pytest
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, Fetcher, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import ConsumerRecord
from faust.types import TP

from streams.batches import Bundle, bundle, unbundle

ONE = TP("interaction", 0)
_CHECKED_FROM = 21  # where a batch's attributes begin, and what its checksum covers
_CONTROL = 0x20


def batch(first: int, count: int, *, compression: int = 0, producer: int = -1, is_transactional: bool = False, is_control: bool = False) -> bytes:
    """Bytes of a batch as a broker sends them."""
    builder = DefaultRecordBatchBuilder(2, compression, is_transactional=is_transactional, producer_id=producer, producer_epoch=0, base_sequence=0, batch_size=100_000)
    for number in range(count):
        builder.append(number, 5_000 + number, b"\0\0\0\0" if is_control else b"k", b"v%d" % (first + number), [])
    raw = bytearray(builder.build())
    struct.pack_into(">q", raw, 0, first)
    if is_control:
        raw[_CHECKED_FROM + 1] |= _CONTROL
        struct.pack_into(">I", raw, _CHECKED_FROM - 4, calc_crc32c(bytes(raw[_CHECKED_FROM:])))
    return bytes(raw)


def partition_records(raw: bytes, first: int = 0, isolation: int = READ_UNCOMMITTED, aborted: object = ()) -> PartitionRecords:
    return PartitionRecords(ONE, MemoryRecords(raw), aborted, first, None, None, check_crcs=True, isolation_level=isolation)


def bundled(records: PartitionRecords) -> PartitionRecords:
    fetcher: Any = SimpleNamespace(_records={ONE: SimpleNamespace(_partition_records=records), TP("other", 0): SimpleNamespace()})
    bundle(fetcher)
    bundle(fetcher)  # a second time changes nothing
    return records


def seen(records: list[Any]) -> list[tuple[Any, ...]]:
    return [(record.offset, record.timestamp, record.key, record.value) for record in records]


@pytest.mark.parametrize(
    ("raw", "first", "isolation", "aborted"),
    [
        (batch(0, 3), 0, READ_UNCOMMITTED, []),
        (batch(0, 3) + batch(3, 2), 1, READ_UNCOMMITTED, []),
        (batch(10, 5, compression=1) + batch(20, 1), 13, READ_UNCOMMITTED, []),  # a gap, and a fetch from the middle
        (batch(0, 3), 7, READ_UNCOMMITTED, []),  # all of it was read before
        (batch(0, 2, producer=7, is_transactional=True) + batch(2, 1, producer=7, is_transactional=True, is_control=True) + batch(3, 1), 0, READ_UNCOMMITTED, []),
        (batch(0, 2, producer=7, is_transactional=True) + batch(2, 1, producer=7, is_transactional=True, is_control=True) + batch(3, 1), 0, READ_COMMITTED, [(7, 0)]),
        (b"", 4, READ_UNCOMMITTED, []),
    ],
)
def test_the_same_records_come_out_and_the_same_offset_is_next(raw: bytes, first: int, isolation: int, aborted: list[tuple[int, int]]) -> None:
    """Whatever a fetch has brought."""
    plain, ours = partition_records(raw, first, isolation, aborted), bundled(partition_records(raw, first, isolation, aborted))
    assert seen(unbundle(list(ours))) == seen(list(plain))
    assert ours.next_fetch_offset == plain.next_fetch_offset


def test_a_batch_is_one_bundle_of_records_that_nobody_has_copied() -> None:
    """If aiokafka changes under this it has to be seen: nothing else would tell but the speed."""
    bundles = list(bundled(partition_records(batch(0, 3) + batch(3, 2))))
    assert [type(one) for one in bundles] == [Bundle, Bundle]
    assert [len(one.records) for one in bundles] == [3, 2]
    assert not any(isinstance(record, ConsumerRecord) for record in unbundle(bundles))


def test_what_has_been_read_is_freed_at_once() -> None:
    """Without a search for garbage: until that came, all bytes of the last seconds were kept, and it had thousands of objects more to look at."""
    gc.disable()
    try:
        records = bundled(partition_records(batch(0, 3)))
        watched = weakref.ref(records)
        list(records)
        del records
        assert watched() is None
    finally:
        gc.enable()


def test_a_wrong_checksum_is_found() -> None:
    """By aiokafka, as ever; what came before it is handed on."""
    broken = bytearray(batch(3, 2))
    broken[-1] ^= 1
    records = bundled(partition_records(batch(0, 3) + bytes(broken)))
    assert seen(unbundle([next(records)]))[-1][0] == 2
    with pytest.raises(CorruptRecordException):
        next(records)


def test_records_that_came_while_the_consumer_waited_are_taken_as_they_are() -> None:
    """Nobody could bundle those; their order stays."""
    both = [*bundled(partition_records(batch(0, 2))), *partition_records(batch(2, 2))]
    assert seen(unbundle(both)) == seen(list(partition_records(batch(0, 2) + batch(2, 2))))


def test_what_is_relied_on_of_aiokafka_is_still_there() -> None:
    """Private names."""
    assert "_partition_records" in inspect.getsource(FetchResult.__init__)
    unpack = inspect.getsource(PartitionRecords._unpack_records)
    for needed in (
        "records = self._records",
        "records.has_next()",
        "records.next_batch()",
        "for record in next_batch",
        "self._consumer_record(tp, record)",
        "self.next_fetch_offset",
    ):
        assert needed in unpack
    assert "self._records = " in inspect.getsource(Fetcher.__init__)
    assert "fetch_max_wait_ms=self._fetch_max_wait_ms" in inspect.getsource(aiokafka.AIOKafkaConsumer.start)

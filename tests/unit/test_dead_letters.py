"""Dead letters of a topic of which a partition does not answer, or has less to send than its offsets say."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from models.errors import Retry
from streams.dead_letters import DeadLetter, DeadLetters
from streams.settings import Settings

ENDS = (2, 3, 2)
LETTER = DeadLetter(topic="interaction", partition=1, offset=1, timestamp=0)


class Consumer:
    """Has three partitions; of the second, one fetch at a time: the ``answers``, each some offsets and the position then."""

    def __init__(self, answers: list[tuple[list[int], int]]) -> None:
        self._answers, self._positions = answers, dict.fromkeys(range(3), 0)
        self._client = SimpleNamespace(fetch_all_metadata=self._metadata)

    async def _metadata(self) -> Any:
        return SimpleNamespace(partitions_for_topic=lambda _topic: set(range(3)))

    async def beginning_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, 0)

    async def end_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {place: ENDS[place.partition] for place in places}

    def assignment(self) -> set[TopicPartition]:
        return set()

    def assign(self, places: list[TopicPartition]) -> None:
        """They are all there."""

    def seek(self, place: TopicPartition, offset: int) -> None:
        self._positions[place.partition] = offset

    async def position(self, place: TopicPartition) -> int:
        return self._positions[place.partition]

    async def getmany(self, place: TopicPartition, *, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        assert (timeout_ms, max_records) in ((10_000, 500), (10_000, 1))
        number = place.partition
        offsets, position = self._answers.pop(0) if number == 1 else ([0, 1], 2)
        self._positions[number] = position
        letters = [json.dumps({"topic": "interaction", "partition": number, "offset": offset, "timestamp": 0}).encode() for offset in offsets]
        return {place: [SimpleNamespace(offset=offset, value=letter) for offset, letter in zip(offsets, letters, strict=True)]} if offsets else {}


def dead_letters(*answers: tuple[list[int], int]) -> DeadLetters:
    return DeadLetters(Settings(), Consumer(list(answers)))  # type: ignore[arg-type]


@pytest.mark.parametrize("answers", [[([], 0)], [([0], 1), ([], 1)]])
async def test_a_partition_that_sends_nothing_is_an_error(answers: list[tuple[list[int], int]]) -> None:
    """Ended there without one, a list would look complete."""
    with pytest.raises(Retry, match="topic dead_letter does not answer: its partition 1 sent nothing within 10 s"):
        [letter async for letter in dead_letters(*answers).letters()]


@pytest.mark.parametrize("answers", [[([0], 1), ([], 3)], [([], 1), ([1, 2, 3], 4)], [([], 5)]])
async def test_offsets_without_records_are_passed_over(answers: list[tuple[list[int], int]]) -> None:
    """Marks of transactions, or what retention removed meanwhile. What came later is not of this moment."""
    found = [(letter.partition, letter.offset) async for letter in dead_letters(*answers).letters()]
    expected = [offset for offsets, _ in answers for offset in offsets if offset < 3]
    assert found == [(0, 0), (0, 1), *((1, offset) for offset in expected), (2, 0), (2, 1)]


async def test_an_original_that_does_not_come_is_not_said_to_be_gone() -> None:
    """Only what Kafka has passed over is."""
    with pytest.raises(Retry, match="topic interaction does not answer"):
        await dead_letters(([], 1)).resend(LETTER, 0)
    assert (await dead_letters(([], 2)).resend(LETTER, 0)).fate == "gone"

"""Dead letters, and where the fast way ends."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from models.events import parse_interaction
from streams import codec
from streams.codec import DEAD_LETTER_BYTES, dead_letter, decode_interaction, encode_json, microseconds

T = 1_700_000_000_000_000


def letter(key: bytes | None, value: bytes | None) -> tuple[bytes | None, dict[str, Any]]:
    sent_key, sent = dead_letter("interaction", 3, 7, T + 999, key, value, 'why "é"', T + 5)
    return sent_key, json.loads(sent)


def test_a_dead_letter_says_which_record_it_was_and_why() -> None:
    """Every field of the contract."""
    key, value = letter(b"v", b"\xff{")
    assert key == b"v"
    assert value == {
        "topic": "interaction",
        "partition": 3,
        "offset": 7,
        "timestamp": T // 1_000,
        "key_base64": base64.b64encode(b"v").decode(),
        "value_base64": base64.b64encode(b"\xff{").decode(),
        "key_size": 1,
        "value_size": 2,
        "reason": 'why "é"',
        "at": "2023-11-14T22:13:20.000005Z",
    }


def test_what_is_missing_is_null_in_the_letter() -> None:
    """Empty is not missing."""
    key, value = letter(None, None)
    assert (key, value["key_base64"], value["value_base64"], value["key_size"], value["value_size"]) == (None, None, None, None, None)
    key, value = letter(b"", b"")
    assert (key, value["key_base64"], value["value_base64"], value["key_size"], value["value_size"]) == (b"", "", "", 0, 0)


def test_four_kibibytes_of_each_are_kept() -> None:
    """On the bound all; beyond it the first, with the true size, and no key at all."""
    assert DEAD_LETTER_BYTES == 4096
    full, more = b"k" * 4096, b"k" * 4097
    assert letter(full, full)[0] == full
    key, value = letter(more, more)
    assert key is None
    assert base64.b64decode(value["key_base64"]) == base64.b64decode(value["value_base64"]) == full
    assert (value["key_size"], value["value_size"]) == (4097, 4097)


def test_a_thousand_characters_of_a_reason_are_kept() -> None:
    """It may repeat what it is about, which may have any length."""
    _, value = dead_letter("t", 0, 0, T, None, None, "é" * 50_000, T)
    assert json.loads(value)["reason"] == "é" * 1_000


def test_the_fast_way_is_taken_for_the_common_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would be no faster."""
    monkeypatch.setattr(codec, "parse_interaction", None)
    value = b'{"variant_id":"v","kind":"view","occurred_at":"2023-11-14T22:13:20.000001Z","event_id":"e","post_id":"q","count":2,"source":"s","schema_version":1}'
    event = decode_interaction(value, b"v", T)
    assert (event.occurred_at, event.count, event.event_id, event.post_id) == (T + 1, 2, "e", "q")
    assert decode_interaction(b'{"variant_id":"v","kind":"like"}', b"v", T).occurred_at == T


@pytest.mark.parametrize(
    "moment",
    [
        "2023-11-14T22:13:20.000001Z",
        "2023-11-14T22:13:20.00001+00:00",
        "2023-11-14 22:13:20.000001Z",
        "2023-11-14T22:12:60.5Z",
        1_700_000_000,
        1_700_000_000_000.5,
        "2023-11-14T22:13:20Z",
    ],
)
def test_both_ways_read_the_same_moment(moment: str | float) -> None:
    """The one that remembers whole seconds too, the second time as well."""
    value = encode_json({"variant_id": "v", "kind": "view", "occurred_at": moment})
    for _ in range(2):
        assert decode_interaction(value, b"v", T) == parse_interaction(value, b"v", T)


def test_kafka_timestamps_are_milliseconds() -> None:
    """Inside there are only microseconds."""
    assert microseconds(1_700_000_000_123) == 1_700_000_000_123_000

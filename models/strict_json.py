"""JSON as strictly as the contract asks: what a value on a topic, or a body over HTTP, has to be before its fields are looked at."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from models.errors import Reject

VALUE_LIMIT = 64 * 1024
"""Most bytes a value may have. Source: contract, section 2."""
DEPTH_LIMIT = 500
"""Most levels of objects and lists in a value: the JSON reader's own limit falls with the caller's stack, and a verdict must not."""
_LONGEST_NAME = 100
_SUSPECTS = (b"\\u", b"NaN", b"Infinity")
_LARGE_NUMBER = re.compile(rb"[0-9](?:[0-9]{199}|[eE]\+?[0-9]{2})")


def parse_json(value: bytes | None) -> dict[str, Any]:
    """Read a JSON object as strictly as the contract asks. Of a name given twice, the last counts.

    Raises:
        Reject: There is no value, or it is too large, not valid UTF-8, not one JSON object, nested too deeply, or has
            a non-finite number, a lone surrogate or U+0000 anywhere; of the last four it names the field.
    """
    if value is None:
        raise Reject("has no value")
    if len(value) > VALUE_LIMIT:
        raise Reject(f"is larger than {VALUE_LIMIT} bytes")
    is_suspect = _is_suspect(value)
    try:
        parsed = json.loads(value.decode("utf-8"), object_pairs_hook=_last_of_each if is_suspect else None)
    except UnicodeDecodeError:
        raise Reject("is not valid UTF-8") from None
    except RecursionError:
        raise Reject("is nested too deeply") from None
    except ValueError as error:
        if isinstance(error, json.JSONDecodeError):
            raise Reject(f"is not JSON: {error.msg} (character {error.pos})") from None
        raise Reject("has a number that is too long") from None
    if not isinstance(parsed, dict):
        raise Reject("is not a JSON object")
    if is_suspect:
        _check(parsed)
    return parsed


def is_deeper(value: dict[str, Any] | list[Any], levels: int) -> bool:
    """Tell whether ``value``, itself the first level, has more than ``levels`` of objects and lists."""
    level: list[Any] = [value]
    for _ in range(levels):
        level = [part for item in level for part in (item.values() if isinstance(item, dict) else item) if isinstance(part, dict | list)]
        if not level:
            return False
    return True


def _is_suspect(value: bytes) -> bool:
    """Tell whether a value may have U+0000, half of a surrogate pair, a number that is not finite, or too many levels: to look for them takes longer than to read it."""
    return any(mark in value for mark in _SUSPECTS) or value.count(b"[") + value.count(b"{") > DEPTH_LIMIT or _LARGE_NUMBER.search(value) is not None


def _check(parsed: dict[str, Any]) -> None:
    for name, item in parsed.items():
        _check_text(name)
        _check_field(name, item)


def _check_field(name: str, item: Any) -> None:
    try:
        _check_leaves([[item]])
    except Reject as error:
        raise Reject(error.reason, name if name.isprintable() and len(name) <= _LONGEST_NAME else None) from None


def _last_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Keep the last value of each name; those passed over are checked here, for nobody sees them later."""
    last = dict(pairs)
    if len(last) < len(pairs):
        last = {}
        for name, item in pairs:
            if name in last:
                _check_field(name, last[name])
            last[name] = item
    return last


def _check_leaves(level: list[Any]) -> None:  # noqa: C901 - a call for each leaf would take as long as all the rest
    for depth in range(1, DEPTH_LIMIT + 1):
        below: list[Any] = []
        for item in level:
            for part in (*item, *item.values()) if type(item) is dict else item:
                kind = type(part)
                if kind is str:
                    if "\x00" in part or not part.isascii():
                        _check_text(part)
                elif kind is float:
                    if not math.isfinite(part):
                        raise Reject("has a non-finite number")
                elif kind is dict or kind is list:
                    if part:
                        below.append(part)
                    elif depth == DEPTH_LIMIT:
                        raise Reject("is nested too deeply")
        if not below:
            return
        level = below
    raise Reject("is nested too deeply")


def _check_text(text: str) -> None:
    if "\x00" in text:
        raise Reject("has U+0000 in a string")
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise Reject("has a lone surrogate in a string")

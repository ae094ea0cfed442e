"""JSON as strictly as the contract asks: what a value on a topic, or a body over HTTP, has to be before its fields are looked at."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from models.errors import Reject

VALUE_LIMIT = 64 * 1024
"""Most bytes a value may have. Source: contract, section 2."""
DEPTH_LIMIT = 500
"""Most levels of objects and lists in a value: the JSON reader's own limit falls with the caller's stack, and a verdict must not."""


def parse_json(value: bytes | None) -> dict[str, Any]:
    """Read a JSON object as strictly as the contract asks. Of a name given twice, the last counts.

    Raises:
        Reject: There is no value, or it is too large, not valid UTF-8, not one JSON object, nested too deeply, or has
            a non-finite number, a lone surrogate or U+0000 anywhere.
    """
    if value is None:
        raise Reject("has no value")
    if len(value) > VALUE_LIMIT:
        raise Reject(f"is larger than {VALUE_LIMIT} bytes")
    try:
        parsed = json.loads(value.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_last_of_each)
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
    _check_leaves(parsed)
    return parsed


def _refuse_constant(name: str) -> NoReturn:
    raise Reject(f"has a non-finite number ({name})")


def _last_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Keep the last value of each name; those passed over are checked here, for nobody sees them later."""
    last: dict[str, Any] = {}
    passed_over = []
    for name, item in pairs:
        if name in last:
            passed_over.append(last[name])
        last[name] = item
    _check_leaves(passed_over)
    return last


def _check_leaves(root: dict[str, Any] | list[Any]) -> None:
    level: list[Any] = [root]
    for _ in range(DEPTH_LIMIT):
        below: list[Any] = []
        for item in level:
            for part in (*item, *item.values()) if isinstance(item, dict) else item:
                if isinstance(part, (dict, list)):
                    below.append(part)
                else:
                    _check_leaf(part)
        if not below:
            return
        level = below
    raise Reject("is nested too deeply")


def _check_leaf(leaf: object) -> None:
    if isinstance(leaf, str):
        if "\x00" in leaf:
            raise Reject("has U+0000 in a string")
        if not leaf.isascii() and any("\ud800" <= char <= "\udfff" for char in leaf):
            raise Reject("has a lone surrogate in a string")
    elif isinstance(leaf, float) and not math.isfinite(leaf):
        raise Reject("has a non-finite number")

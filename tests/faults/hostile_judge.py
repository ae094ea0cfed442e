"""What the contract makes of any record, however hostile: can it be used, and what does it change. Imports nothing of the project."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

SECOND = 1_000_000
DAY = 86_400 * SECOND
LARGEST_VALUE = 64 * 1024
LONGEST_ID = 200
DEEPEST_VALUE = 500
DEEPEST_METADATA = 100
LARGEST_METADATA = 4 * 1024
LONGEST_INTEGER = 4_300
KINDS = ("view", "like", "reply", "repost", "quote", "share", "click", "save")
TOTALS = ("views", "likes", "replies", "reposts", "quotes", "shares", "clicks", "saves")
RFC3339 = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})")


class Unusable(Exception):
    """A record for the dead letters, and why."""


class _Pairs(list[Any]):
    """An object with all its names, given twice or not."""


def read(value: bytes | None) -> dict[str, Any]:
    """Return a value's fields."""
    if value is None or len(value) > LARGEST_VALUE:
        raise Unusable("missing or too large")
    try:
        text = value.decode("utf-8")
        if _depth(text) > DEEPEST_VALUE:
            raise Unusable("too deep")
        parsed = json.loads(text, parse_constant=_refuse, parse_int=_whole, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise Unusable("not JSON") from error
    if not isinstance(parsed, _Pairs):
        raise Unusable("no object")
    _check_all(parsed)
    return dict(parsed)


def _depth(text: str) -> int:
    if text.count("[") + text.count("{") <= DEEPEST_VALUE:
        return 0
    depth = deepest = 0
    for bracket in re.sub(r'"(?:[^"\\]|\\.)*"', "", text):
        depth += (bracket in "[{") - (bracket in "]}")
        deepest = max(deepest, depth)
    return deepest


def _refuse(name: str) -> None:
    raise Unusable(name)


def _whole(digits: str) -> int:
    if len(digits.lstrip("-")) > LONGEST_INTEGER:
        raise Unusable("too many digits")
    return int(digits)


def _check_all(item: Any) -> None:
    left = [item]
    while left:
        item = left.pop()
        if isinstance(item, list):
            left += [part for pair in item for part in pair] if isinstance(item, _Pairs) else item
        elif isinstance(item, str):
            if "\0" in item or any(0xD800 <= ord(char) <= 0xDFFF for char in item):
                raise Unusable("U+0000 or half a surrogate pair")
        elif isinstance(item, float) and not math.isfinite(item):
            raise Unusable("not finite")


# -- fields ----------------------------------------------------------------------------------------------------------


def _text(fields: dict[str, Any], name: str, *, least: int = 0, most: float = math.inf, is_needed: bool = False, is_id: bool = False) -> str | None:
    text = fields.get(name)
    if text is None and not is_needed:
        return None
    if not isinstance(text, str) or not least <= len(text) <= most or (is_id and any(unicodedata.category(char) == "Cc" for char in text)):
        raise Unusable(name)
    return text


def _id(fields: dict[str, Any], name: str, *, is_needed: bool = True) -> Any:
    return _text(fields, name, least=1, most=LONGEST_ID, is_needed=is_needed, is_id=True)


def _integer(fields: dict[str, Any], name: str, least: int, most: int, default: Any) -> Any:
    number = fields.get(name)
    if number is None:
        return default
    if type(number) is not int or not least <= number <= most:
        raise Unusable(name)
    return number


def _number(fields: dict[str, Any], name: str, most: float, default: float) -> float:
    number = fields.get(name)
    if number is None:
        return default
    if type(number) not in (int, float) or not 0 < number <= most:
        raise Unusable(name)
    return float(number)


def _moment(raw: Any, appended: int) -> int:
    if raw is None:
        return appended
    if isinstance(raw, str):
        moment = _rfc3339(raw)
    elif type(raw) in (int, float) and abs(raw) < 1e16:
        moment = round(raw * SECOND) if raw < 2e10 else round(raw * 1_000)
    else:
        raise Unusable("no moment")
    if not 946_684_800 * SECOND <= moment <= appended + 300 * SECOND:
        raise Unusable("moment out of bounds")
    return moment


def _rfc3339(text: str) -> int:
    found = RFC3339.fullmatch(text)
    if found is None:
        raise Unusable("no moment")
    year, month, day, hour, minute, second = map(int, found.groups()[:6])
    zone = found[8]
    try:
        whole = datetime(year, month, day, hour, minute, 59 if second == 60 else second, tzinfo=UTC)
    except ValueError:
        raise Unusable("no such day or time") from None
    offset = timedelta()
    if zone not in "Zz":
        if int(zone[1:3]) > 23 or int(zone[4:]) > 59:
            raise Unusable("no such offset")
        offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[4:])) * (1 if zone[0] == "+" else -1)
    since = (whole - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) - offset // timedelta(microseconds=1)
    return since + (SECOND if second == 60 else 0) + round(float("0" + (found[7] or ".0")) * SECOND)


def _common(fields: dict[str, Any], key: bytes | None) -> str:
    variant: str = _id(fields, "variant_id")
    _integer(fields, "schema_version", 1, 1, 1)
    if key is None or key != variant.encode():
        raise Unusable("key")
    return variant


# -- topics ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Session:
    """One posting, and what has counted for it. Moments in microseconds."""

    posted_at: int
    deadline: int
    line: float
    min_interactions: int
    outcome: str | None = None
    increments: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    snapshots: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    seen: set[str] = field(default_factory=set)

    @property
    def counts(self) -> dict[str, int]:
        return {kind: max(self.increments[kind], self.snapshots[kind]) for kind in KINDS}


class Partition:
    """Reads the records of one partition in the order in which a monitor does, and says what becomes of each.

    Attributes:
        sessions: By (variant, post).
        late_results: What became of records that had been waiting.
    """

    def __init__(self, grace_seconds: float = 5.0) -> None:
        self.sessions: dict[tuple[str, str], Session] = {}
        self.late_results: list[str] = []
        self._grace = round(grace_seconds * SECOND)
        self._waiting: list[tuple[dict[str, Any], int]] = []

    def read(self, topic: str, value: bytes | None, key: bytes | None, appended: int) -> str:
        """Return the record's result; ``appended`` in microseconds."""
        try:
            fields = read(value)
            variant = _common(fields, key)
            if topic == "variant_posted":
                return self._post(fields, variant, appended)
            if topic == "monitoring_control":
                return self._stop(fields, variant, appended)
            return self._interact(fields, variant, appended)
        except Unusable:
            return "dead_letter"

    def _post(self, fields: dict[str, Any], variant: str, appended: int) -> str:
        _id(fields, "persona_id")
        name = variant, _id(fields, "post_id")
        expected, threshold = _number(fields, "expected_engagement_rate", 1, 0.06), _number(fields, "kill_threshold", 1, 0.5)
        fewest = _integer(fields, "min_interactions", 1, 1_000_000, 10)
        window = max(1, round(_number(fields, "timeout_minutes", 43_200, 10) * 60 * SECOND))
        _text(fields, "event_id")
        _text(fields, "source")
        if fields.get("policy") not in (None, "ratio"):
            raise Unusable("policy")
        metadata = fields.get("metadata")
        if metadata is not None and not (isinstance(metadata, _Pairs) and _levels(metadata) <= DEEPEST_METADATA and len(_compact(metadata)) <= LARGEST_METADATA):
            raise Unusable("metadata")
        posted_at = _moment(fields.get("posted_at"), appended)
        if name in self.sessions:
            return "duplicate"
        if appended > posted_at + window + DAY:
            raise Unusable("over for more than a day")
        session = self.sessions[name] = Session(posted_at, posted_at + window, threshold * expected, fewest)
        waiting, self._waiting = self._waiting, []
        for event, when in waiting:
            if event["variant_id"] == variant and (event["post"] == name[1] if event["post"] is not None else posted_at <= event["moment"] < session.deadline):
                self.late_results.append(self._count(session, event, when))
            else:
                self._waiting.append((event, when))
        return "counted"

    def _interact(self, fields: dict[str, Any], variant: str, appended: int) -> str:
        kind = fields.get("kind")
        if kind == "snapshot":
            if not isinstance(fields.get("totals"), _Pairs):
                raise Unusable("totals")
            totals = dict(fields["totals"])
            if all(totals.get(name) is None for name in TOTALS):
                raise Unusable("totals")
            amounts = {kind: _integer(totals, name, 0, 10**12, 0) for kind, name in zip(KINDS, TOTALS, strict=True)}
        elif isinstance(kind, str) and kind in KINDS:
            amounts = {kind: _integer(fields, "count", 1, 1_000_000, 1)}
        else:
            raise Unusable("kind")
        _text(fields, "source")
        post, event_id = _id(fields, "post_id", is_needed=False), _text(fields, "event_id", least=1, most=LONGEST_ID)
        moment = _moment(fields.get("occurred_at"), appended)
        event = {"variant_id": variant, "post": post, "moment": moment, "id": event_id, "amounts": amounts, "is_snapshot": kind == "snapshot"}
        if post is not None:
            session = self.sessions.get((variant, post))
        else:
            holding = [(found.posted_at, name) for name, found in self.sessions.items() if name[0] == variant and found.posted_at <= moment < found.deadline]
            session = self.sessions[max(holding)[1]] if holding else None
        if session is None:
            self._waiting.append((event, appended))
            return "waiting"
        return self._count(session, event, appended)

    def _count(self, session: Session, event: dict[str, Any], appended: int) -> str:
        if session.outcome is not None:
            return "after_end"
        if event["moment"] < session.posted_at:
            return "early"
        if event["moment"] >= session.deadline or appended >= session.deadline + self._grace:
            return "late"
        if event["id"] is not None and event["id"] in session.seen:
            return "duplicate"
        session.seen |= {event["id"]} - {None}
        for kind, amount in event["amounts"].items():
            if event["is_snapshot"]:
                session.snapshots[kind] = max(session.snapshots[kind], amount)
            else:
                session.increments[kind] += amount
        counts = session.counts
        views, interactions = counts["view"], sum(counts.values()) - counts["view"]
        if interactions >= session.min_interactions and views > 0 and interactions / views < session.line:
            session.outcome = "killed"
        return "counted"

    def _stop(self, fields: dict[str, Any], variant: str, appended: int) -> str:
        post = _id(fields, "post_id", is_needed=False)
        if fields.get("action") != "stop":
            raise Unusable("action")
        for name in ("request_id", "requested_by", "requested_at"):
            _text(fields, name)
        named = [session for name, session in self.sessions.items() if name[0] == variant and post in (None, name[1])]
        stopped = [session for session in named if session.outcome is None and appended < session.deadline + self._grace]
        for session in stopped:
            session.outcome = "stopped"
        return "counted" if stopped else "after_end"


def _levels(item: Any) -> int:
    level, levels = [item], 0
    while level := [part for part in level if isinstance(part, list)]:
        levels += 1
        level = [part for container in level for part in (dict(container).values() if isinstance(container, _Pairs) else container)]
    return levels


def _compact(item: Any) -> bytes:
    def plain(part: Any) -> Any:
        if isinstance(part, _Pairs):
            return {name: plain(inner) for name, inner in part}
        return [plain(inner) for inner in part] if isinstance(part, list) else part

    return json.dumps(plain(item), ensure_ascii=False, separators=(",", ":")).encode()

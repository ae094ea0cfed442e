"""Wire messages: the one truth about what a value on a topic may hold, and the frozen types the core works with.

``parse_variant_posted``, ``parse_interaction`` and ``parse_stop`` take a record's bytes and either return a typed event
or raise ``Reject`` with a reason for the dead letter. ``streams.codec`` has a faster way for the common case, which may
only accept what this module accepts.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict, Field, Strict, StringConstraints, ValidationError
from pydantic.functional_validators import AfterValidator, BeforeValidator

from models.engagement import KINDS, SNAPSHOT, TOTAL_NAMES
from models.errors import Reject
from models.moments import DAY, check_moment, parse_moment
from models.policy import Defaults, Policy
from models.rules import RULES
from models.stop_request import StopRequest
from models.strict_json import is_deeper, parse_json

ID_LIMIT = 200
"""Most characters of an id. Source: contract, section 2."""
METADATA_LIMIT = 4 * 1024
"""Most bytes ``metadata`` may have as compact JSON in UTF-8."""
METADATA_DEPTH = 100
"""Most levels of objects and lists in ``metadata``: whatever reads it later has a limit, and none is lower."""
SOURCE_KEPT = 1_000
"""So many characters of ``source`` are kept: it travels in every record of the session, which has to stay below the limit of a value."""
COUNT_LIMIT = 1_000_000
TOTAL_LIMIT = 10**12


def _no_control_characters(text: str) -> str:
    if not text.isprintable() and any(unicodedata.category(char) == "Cc" for char in text):
        raise ValueError("holds a control character")
    return text


def _known_rule(name: str) -> str:
    if name not in RULES:
        raise ValueError(f"is not a rule this service offers ({', '.join(sorted(RULES))})")
    return name


def _small(metadata: dict[str, Any]) -> dict[str, Any]:
    if is_deeper(metadata, METADATA_DEPTH):
        raise ValueError("is nested too deeply")
    if len(json.dumps(metadata, ensure_ascii=False, separators=(",", ":")).encode()) > METADATA_LIMIT:
        raise ValueError(f"is larger than {METADATA_LIMIT} bytes")
    return metadata


def _moment(raw: object) -> object:
    if raw is not None:
        if isinstance(raw, bool) or not isinstance(raw, (str, int, float)):
            raise ValueError("is not a moment (RFC 3339 with an offset, or a Unix time)")
        try:
            parse_moment(raw)
        except Reject as error:
            raise ValueError(error.reason) from error
    return raw


Text = Annotated[str, Strict()]
Identifier = Annotated[str, Strict(), StringConstraints(min_length=1, max_length=ID_LIMIT), AfterValidator(_no_control_characters)]
EventId = Annotated[str, Strict(), StringConstraints(min_length=1, max_length=ID_LIMIT)]
Number = Annotated[float, Strict(), Field(gt=0, le=1)]
Total = Annotated[int, Strict(), Field(ge=0, le=TOTAL_LIMIT)]
Moment = Annotated[str | int | float | None, BeforeValidator(_moment)]


def _integer_only(value: object) -> object:
    if isinstance(value, (bool, float)):
        raise ValueError("must be the integer 1")  # noqa: TRY004 - pydantic reports a ValueError as a problem of the field
    return value


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    event_id: Text | None = None
    source: Text | None = None
    schema_version: Annotated[Literal[1], BeforeValidator(_integer_only)] | None = None


class VariantPosted(_Message):
    """A variant went live: the value of a ``variant_posted`` record. Source: contract, section 2."""

    variant_id: Identifier
    persona_id: Identifier
    post_id: Identifier
    expected_engagement_rate: Number | None = None
    posted_at: Moment = None
    kill_threshold: Number | None = None
    min_interactions: Annotated[int, Strict(), Field(ge=1, le=COUNT_LIMIT)] | None = None
    timeout_minutes: Annotated[float, Strict(), Field(gt=0, le=43_200)] | None = None
    policy: Annotated[str, Strict(), AfterValidator(_known_rule)] | None = None
    metadata: Annotated[dict[str, Any], Strict(), AfterValidator(_small)] | None = None


class Totals(BaseModel):
    """Lifetime totals of a post; None or missing is unknown, not zero."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    views: Total | None = None
    likes: Total | None = None
    replies: Total | None = None
    reposts: Total | None = None
    quotes: Total | None = None
    shares: Total | None = None
    clicks: Total | None = None
    saves: Total | None = None


class InteractionMessage(_Message):
    """Somebody saw or acted: the value of an ``interaction`` record. Source: contract, section 2."""

    variant_id: Identifier
    kind: Literal[KINDS + (SNAPSHOT,)]  # type: ignore[valid-type]  # noqa: RUF005 - Literal takes an expression only as a tuple
    count: Annotated[int, Strict(), Field(ge=1, le=COUNT_LIMIT)] | None = None
    totals: Totals | None = None
    post_id: Identifier | None = None
    occurred_at: Moment = None
    event_id: EventId | None = None


class StopMessage(BaseModel):
    """Stop monitoring by hand: the value of a ``monitoring_control`` record."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    action: Literal["stop"]
    variant_id: Identifier
    post_id: Identifier | None = None
    request_id: Text | None = None
    requested_by: Text | None = None
    requested_at: Text | None = None
    schema_version: Annotated[Literal[1], BeforeValidator(_integer_only)] | None = None


@dataclass(frozen=True, slots=True)
class Posting:
    """A variant that went live, with all defaults filled in; ``posted_at`` in microseconds since the epoch."""

    variant_id: str
    persona_id: str
    post_id: str
    policy: Policy
    posted_at: int
    source: str | None = None
    metadata: dict[str, Any] | None = None

    @property
    def too_late_after(self) -> int:
        """Appended later than this, it starts no session any more: a day after its own deadline. Source: contract, section 4."""
        return self.posted_at + self.policy.timeout + DAY


class Interaction(msgspec.Struct, frozen=True, gc=False):
    """Somebody saw or acted. An increment of ``kind`` by ``count``, or, if ``totals`` is set, a snapshot.

    ``occurred_at`` is in microseconds since the epoch; ``totals`` has one entry for each of ``engagement.KINDS``.
    """

    variant_id: str
    kind: str
    occurred_at: int
    count: int = 1
    post_id: str | None = None
    event_id: str | None = None
    totals: tuple[int | None, ...] | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """Somebody wants monitoring of a variant to end; of one posting, if ``post_id`` is set."""

    variant_id: str
    post_id: str | None = None
    request: StopRequest | None = None


M = TypeVar("M", bound=BaseModel)


def validation_problems(error: ValidationError) -> list[tuple[str, str]]:
    """Return (dotted field, plain words) of each thing that is wrong; the same field may come twice."""
    found = []
    for problem in error.errors(include_url=False, include_input=False):
        detail = problem["msg"].removeprefix("Value error, ")
        field = ".".join(str(part) for part in problem["loc"] if not str(part).startswith(("function-", "constrained-", "literal[", "lax-or-")))
        found.append((field, detail if problem["type"] == "value_error" else detail[:1].lower() + detail[1:]))
    return found


def _validate(model: type[M], value: bytes | None, key: bytes | None) -> M:
    parsed = parse_json(value)
    if model is InteractionMessage:
        parsed.pop("count" if parsed.get("kind") == SNAPSHOT else "totals", None)  # of the other form: an unknown field here
    try:
        message = model.model_validate(parsed)
    except ValidationError as error:
        field, detail = validation_problems(error)[0]
        raise Reject(detail, field or None) from None
    if key is None:
        raise Reject("the record has no key")
    if key != message.variant_id.encode():  # type: ignore[attr-defined]
        raise Reject("the record's key differs from variant_id")
    return message


def _at(raw: str | float | None, append_us: int, field: str) -> int:
    if raw is None:
        return append_us
    try:
        return check_moment(parse_moment(raw), append_us)
    except Reject as error:
        raise Reject(error.reason, field) from None


def parse_variant_posted(value: bytes | None, key: bytes | None, append_us: int, defaults: Defaults) -> Posting:
    """Read a ``variant_posted`` record.

    Args:
        value: The record's value.
        key: The record's key; has to be ``variant_id`` in UTF-8.
        append_us: The record's append time, microseconds since the epoch; stands in for an absent ``posted_at``.
        defaults: What holds where the event does not say.

    Raises:
        Reject: The record cannot be used; says why, and names the field where one is at fault.
    """
    message = _validate(VariantPosted, value, key)
    return posting(message, append_us, defaults)


def posting(message: VariantPosted, append_us: int, defaults: Defaults) -> Posting:
    """Fill in what ``message`` leaves to the defaults; raises as ``parse_variant_posted``."""
    policy = Policy.of(
        expected_engagement_rate=_or(message.expected_engagement_rate, defaults.expected_engagement_rate),
        kill_threshold=_or(message.kill_threshold, defaults.kill_threshold),
        min_interactions=_or(message.min_interactions, defaults.min_interactions),
        timeout_minutes=_or(message.timeout_minutes, defaults.timeout_minutes),
        rule=_or(message.policy, "ratio"),
    )
    return Posting(
        variant_id=message.variant_id,
        persona_id=sys.intern(message.persona_id),  # few personas post many variants
        post_id=message.post_id,
        policy=policy,
        posted_at=_at(message.posted_at, append_us, "posted_at"),
        source=None if message.source is None else message.source[:SOURCE_KEPT],
        metadata=message.metadata,
    )


V = TypeVar("V")


def _or(value: V | None, default: V) -> V:
    return default if value is None else value


def parse_interaction(value: bytes | None, key: bytes | None, append_us: int) -> Interaction:
    """Read an ``interaction`` record; arguments and errors as in ``parse_variant_posted``."""
    message = _validate(InteractionMessage, value, key)
    totals: tuple[int | None, ...] | None = None
    if message.kind == SNAPSHOT:
        if message.totals is None:
            raise Reject("a snapshot needs totals", "totals")
        totals = tuple(getattr(message.totals, name) for name in TOTAL_NAMES)
        if all(total is None for total in totals):
            raise Reject("has none of " + ", ".join(TOTAL_NAMES), "totals")
    return Interaction(
        variant_id=message.variant_id,
        kind=message.kind,
        occurred_at=_at(message.occurred_at, append_us, "occurred_at"),
        count=_or(message.count, 1),
        post_id=message.post_id,
        event_id=message.event_id,
        totals=totals,
    )


def parse_stop(value: bytes | None, key: bytes | None) -> Stop:
    """Read a ``monitoring_control`` record; errors as in ``parse_variant_posted``."""
    message = _validate(StopMessage, value, key)
    return Stop(message.variant_id, message.post_id, StopRequest.of(message.requested_by, message.request_id))

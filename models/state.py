"""The durable form of what a partition remembers: one value for each session, segments for its event ids and for what waits."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from models.duplicates import EventIds
from models.engagement import Engagement
from models.errors import Reject, Stop
from models.events import Interaction, parse_interaction
from models.policy import Policy
from models.session import End, Origin, Outcome, Session
from models.stop_request import StopRequest
from models.waiting import Waiter


class _Versioned(msgspec.Struct, frozen=True, array_like=True):
    """What a state of any version begins with."""

    version: int


class _State(_Versioned, frozen=True, array_like=True):
    """The fields of a session in the order they are stored; new ones go to the end, with a default."""

    variant_id: str
    persona_id: str
    post_id: str
    policy: tuple[float, float, int, float, str]
    posted_at: int
    posted_offset: int
    applied: int
    floor: int
    increments: list[int]
    snapshots: list[int] | None
    id_tail: bytes
    first_id_segment: int
    id_segments: int
    start_pending: bool
    end_pending: bool
    end: tuple[str, str, int, int, tuple[str, int, int, int] | None, str] | None
    source: str | None
    metadata: bytes | None
    request: tuple[str, str] | None = None


Parse = Callable[[bytes | None, bytes | None, int], Interaction]
"""Reads the value and key of a record that was appended at a moment (microseconds); raises ``Reject``."""
_VERSION = 2
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_State)
_version_decoder = msgspec.msgpack.Decoder(_Versioned)
_waiters_decoder = msgspec.msgpack.Decoder(list[tuple[int, int, int, bytes, bytes]])


@dataclass(frozen=True, slots=True)
class SegmentChanges:
    """What to do with a session's segments of event ids.

    Attributes:
        written: (number, packed hashes) of new ones; they have to be durable before the state that counts on them.
        dropped: Numbers of those that may go once the state that no longer counts on them is durable.
        growth: How many more event ids the session remembers than it did the last time; less than 0 if it has forgotten some.
    """

    written: list[tuple[int, bytes]]
    dropped: list[int]
    growth: int = 0


def seal_event_ids(session: Session) -> SegmentChanges:
    """Move event ids from the session's state into segments where they have grown too many; an ended session lets all go."""
    event_ids = session.event_ids
    if event_ids is None:
        return SegmentChanges([], [])
    if session.end is not None:
        session.event_ids = None
        grown = event_ids.growth() - len(event_ids)
        return SegmentChanges([], list(range(event_ids.first, event_ids.first + len(event_ids.segments))), grown)
    return SegmentChanges(*event_ids.seal(), event_ids.growth())


def encode_session(session: Session) -> bytes:
    """Return the value that makes ``session`` durable as it is now."""
    policy, end = session.policy, session.end
    event_ids = session.event_ids if end is None else None  # an ended session looks at no event id again
    return _encoder.encode(
        _State(
            version=_VERSION,
            variant_id=session.variant_id,
            persona_id=session.persona_id,
            post_id=session.post_id,
            policy=(policy.expected_engagement_rate, policy.kill_threshold, policy.min_interactions, policy.timeout_minutes, policy.rule),
            posted_at=session.posted_at,
            posted_offset=session.posted_offset,
            applied=session.applied,
            floor=session.floor,
            increments=session.counts.increments,
            snapshots=session.counts.snapshots,
            id_tail=event_ids.packed_tail() if event_ids else b"",
            first_id_segment=event_ids.first if event_ids else 0,
            id_segments=len(event_ids.segments) if event_ids else 0,
            start_pending=session.start_pending,
            end_pending=session.end_pending,
            end=(end.outcome.value, end.reason, end.ended_at, end.decided_at, _origin(end.origin), end.label) if end else None,
            source=session.source,
            metadata=None if session.metadata is None else msgspec.json.encode(session.metadata),  # MessagePack's integers have 64 bits, JSON's any size
            request=(end.request.requested_by, end.request.request_id) if end and end.request else None,
        )
    )


def _origin(origin: Origin | None) -> tuple[str, int, int, int] | None:
    return (origin.topic, origin.partition, origin.offset, origin.occurred_at) if origin else None


def decode_session(value: bytes, segment: Callable[[Session, int], bytes | None]) -> Session:
    """Rebuild a session from its state; ``segment(session, number)`` finds its segments of event ids.

    Raises:
        Stop: The state was written by another version, or a segment it counts on is missing.
    """
    try:
        state = _decoder.decode(value)
    except msgspec.DecodeError as error:
        raise _unreadable(value, error) from error
    if state.version != _VERSION:
        raise _another_version(state)
    session = Session(
        variant_id=state.variant_id,
        persona_id=sys.intern(state.persona_id),
        post_id=state.post_id,
        policy=Policy.of(*state.policy),
        posted_at=state.posted_at,
        deadline=0,
        posted_offset=state.posted_offset,
        applied=state.applied,
        floor=state.floor,
        counts=Engagement(state.increments, state.snapshots),
        start_pending=state.start_pending,
        end_pending=state.end_pending,
        source=state.source,
        metadata=None if state.metadata is None else json.loads(state.metadata),
    )
    session.deadline = session.posted_at + session.policy.timeout
    if state.end is not None:
        outcome, reason, ended_at, decided_at, origin, label = state.end
        session.is_end_durable = True
        session.end = End(Outcome(outcome), reason, ended_at, decided_at, Origin(*origin) if origin else None, label, StopRequest(*state.request) if state.request else None)
    if state.id_tail or state.id_segments:
        segments = []
        for number in range(state.first_id_segment, state.first_id_segment + state.id_segments):
            packed = segment(session, number)
            if packed is None:
                raise Stop(f"the state of session {session.id} is incomplete: segment {number} of its event ids is missing")
            segments.append(packed)
        session.event_ids = EventIds(memoryview(state.id_tail).cast("Q"), state.first_id_segment, segments)
    return session


def _another_version(state: _Versioned) -> Stop:
    return Stop(f"a session's state has version {state.version}; this program knows version {_VERSION}")


def _unreadable(value: bytes, error: msgspec.DecodeError) -> Stop:
    """Say that another version wrote it, if so: its other fields may have another form."""
    try:
        begin = _version_decoder.decode(value)
    except msgspec.DecodeError:
        begin = None
    return Stop(f"a session's state cannot be read: {error}") if begin is None or begin.version == _VERSION else _another_version(begin)


def encode_waiters(waiters: Iterable[Waiter]) -> bytes:
    """Return the durable form of one segment of waiting interactions."""
    return _encoder.encode([(waiter.offset, waiter.append_us, waiter.until, waiter.key, waiter.value) for waiter in waiters])


def decode_waiters(packed: bytes, segment: int, parse: Parse = parse_interaction) -> list[Waiter]:
    """Rebuild a segment of waiting interactions, with a way to read them that is as good as ``parse_interaction``; raises ``Stop`` if it cannot be read."""
    try:
        rows = _waiters_decoder.decode(packed)
        return [Waiter(parse(value, key, append_us), offset, append_us, key, value, until, segment, restored=True) for offset, append_us, until, key, value in rows]
    except (msgspec.DecodeError, Reject) as error:
        raise Stop(f"a segment of waiting interactions cannot be read: {error}") from error

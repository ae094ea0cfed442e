"""Names of sessions and kills: the same however often, and wherever, they are worked out."""

from __future__ import annotations

import json
import uuid

import xxhash

NAMESPACE = uuid.UUID("6f1d0f5e-3c0b-5b7e-9a55-0d7c1f2b8e41")
"""Namespace of every uuid5 of this project. Never change it: ids in topics and tables depend on it."""


def session_key(variant_id: str, post_id: str) -> str:
    """Return the compact JSON array ``[variant_id, post_id]`` (not ASCII-escaped): what identifies a session."""
    return json.dumps([variant_id, post_id], ensure_ascii=False, separators=(",", ":"))


def session_id(variant_id: str, post_id: str) -> uuid.UUID:
    """Return the id of the session of one posting: uuid5 of its ``session_key`` in UTF-8."""
    return uuid.uuid5(NAMESPACE, session_key(variant_id, post_id))


def kill_id(session: uuid.UUID) -> uuid.UUID:
    """Return the id of the one kill that this session can have."""
    return uuid.uuid5(session, "kill")


def record_id(session: uuid.UUID, kind: str) -> uuid.UUID:
    """Return the id of the session's ``monitoring_record`` of this kind (``started``, ``killed``, …)."""
    return uuid.uuid5(session, kind)


def event_hash(event_id: str) -> int:
    """Return 64 bits that stand for an event id, the same in every process.

    Two of 100,000 different ids in one session share them with a probability of 3e-10 (birthday bound).
    """
    return xxhash.xxh3_64_intdigest(event_id.encode())

"""Makes a worker one of a later version, as ``LATER`` says. Python runs this at its start."""

from __future__ import annotations

import json
import os
import sys

import msgspec

sys.path.insert(0, os.getcwd())  # noqa: PTH109 - Path would do nothing else


def more_fields() -> None:
    """States have a field more, at the end, and so have the records for the sink."""
    from models import state
    from models.monitoring_record import MonitoringRecord

    class Later(state._State, frozen=True, array_like=True):
        mood: str = "unknown so far"

    state._State, state._decoder = Later, msgspec.msgpack.Decoder(Later)  # type: ignore[misc, assignment]
    encode = MonitoringRecord.to_bytes
    MonitoringRecord.to_bytes = lambda self: json.dumps({**json.loads(encode(self)), "mood": "unknown so far"}).encode()  # type: ignore[method-assign]


def next_version() -> None:
    """States say that they are of the next version."""
    from models import state

    state._VERSION += 1


def another_form() -> None:
    """States say that they are of the next version, and have another form."""
    from models import state

    class Later(state._State, frozen=True, array_like=True):
        mood: str = "unknown so far"

    next_version()
    encoder = state._encoder

    class Encoder:
        def encode(self, value: object) -> bytes:
            packed = encoder.encode(value)
            return encoder.encode([state._VERSION, {"another": "form"}, packed]) if isinstance(value, state._State) else packed

    state._encoder = Encoder()  # type: ignore[assignment]


LATER = {"more-fields": more_fields, "next-version": next_version, "another-form": another_form}

if os.environ.get("LATER"):
    LATER[os.environ["LATER"]]()

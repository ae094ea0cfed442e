"""Who asked for a stop: read from its record, kept with the end that it brings, and told to the sink, which writes it into the audit."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

NAME_LIMIT = 200
"""So many characters of a name are kept: it travels in a record of the session, which has to stay below the limit of a value."""


@dataclass(frozen=True, slots=True)
class StopRequest:
    """One request for a stop, as the audit has it.

    Attributes:
        requested_by: Name of who asked.
        request_id: A UUID: with it, and the session, the audit knows a request that it has already.
    """

    requested_by: str
    request_id: str

    @classmethod
    def of(cls, requested_by: object, request_id: object) -> StopRequest | None:
        """Return the request; None where it says nothing that the audit can hold. A stop is a stop all the same."""
        if not isinstance(requested_by, str) or not requested_by or not isinstance(request_id, str):
            return None
        try:
            return cls(requested_by[:NAME_LIMIT], str(UUID(request_id)))
        except ValueError:
            return None

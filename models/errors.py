"""Errors, sorted by what the caller has to do next: reject, retry, stop."""


class EarlyKillError(Exception):
    """Base of all errors this project raises on purpose; its text is fit for a person to read."""


class Reject(EarlyKillError):
    """This input can never be used: refuse it (HTTP 4xx, dead letter) and go on with the next.

    Attributes:
        field: Dotted name of the offending field, or None if the input as a whole is at fault.
    """

    def __init__(self, reason: str, field: str | None = None) -> None:
        super().__init__(reason if field is None else f"{field}: {reason}")
        self.reason = reason
        self.field = field


class NotKilled(Reject):
    """There is no kill to undo: the variant is known, and not killed."""


class Retry(EarlyKillError):
    """A dependency failed for now: do the same thing again after a pause, and drop nothing."""


class Stop(EarlyKillError):
    """The set-up is wrong and no repetition mends it: say so in one line and exit non-zero."""

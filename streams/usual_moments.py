"""Moments as producers mostly write them, read fast: ``2019-11-29T12:45:13.822505Z``, also with three digits, also with ``+00:00``.

Their whole seconds are remembered, for neighbours share them. What has another form is read by ``models.moments``, so this can only be faster, never different.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from operator import add, itemgetter, mul
from typing import NamedTuple

from models.errors import Reject
from models.moments import MILLISECOND, parse_moment

KEPT = 100_000
_WHOLE = len("2019-11-29T12:45:13.")


class Form(NamedTuple):
    """How a moment goes on after its whole seconds and the dot."""

    digits: int
    zone: str

    @property
    def length(self) -> int:
        """Characters of the whole moment."""
        return _WHOLE + self.digits + len(self.zone)


FORMS = {form.length: form for form in (Form(digits, zone) for digits in (3, 6) for zone in ("Z", "+00:00"))}
"""What is read fast, by length; each has one of its own."""


class WholeSeconds(dict[str, int]):
    """Microseconds since the epoch by ``2019-11-29T12:45:13.``, the dot included; reads what it does not know yet.

    Raises:
        Reject: There is no such moment.
    """

    def __missing__(self, prefix: str) -> int:
        """Read and remember a second; all are forgotten once there are ``KEPT``."""
        if prefix[-1:] != ".":
            raise Reject("is not a moment (RFC 3339 with an offset, or a Unix time)")
        if len(self) >= KEPT:
            self.clear()
        moment = self[prefix] = parse_moment(prefix[:-1] + "Z")
        return moment


whole_seconds = WholeSeconds()


def read_moment(raw: str | float) -> int:
    """Return what ``parse_moment`` returns."""
    if isinstance(raw, str) and (form := FORMS.get(len(raw))) is not None:
        digits = raw[_WHOLE : _WHOLE + form.digits]
        if raw.endswith(form.zone) and digits.isdigit() and digits.isascii():
            return whole_seconds[raw[:_WHOLE]] + int(digits.ljust(6, "0"))
    return parse_moment(raw)


def read_moments(raws: Sequence[str | float | None], append_ms: Sequence[int]) -> list[int]:
    """Read many; one that is missing is its record's append time (milliseconds).

    Raises:
        Reject: One of them is no moment.
    """
    lengths = {len(raw) if isinstance(raw, str) else 0 for raw in raws}
    form = FORMS.get(lengths.pop()) if len(lengths) == 1 else None
    moments = _alike(raws, form) if form is not None else None  # type: ignore[arg-type] # all have a length
    if moments is None:
        moments = [ms * MILLISECOND if raw is None else read_moment(raw) for raw, ms in zip(raws, append_ms, strict=True)]
    return moments


def _alike(raws: Sequence[str], form: Form) -> list[int] | None:
    """Read moments of one length, each step over all of them in C: that takes half as long as one by one. None if one of them is not of this form."""
    end = _WHOLE + form.digits
    fractions = list(map(itemgetter(slice(_WHOLE, end)), raws))
    digits = "".join(fractions)
    if set(map(itemgetter(slice(end, None)), raws)) != {form.zone} or not (digits.isascii() and digits.isdigit()):
        return None
    micros = map(int, fractions) if form.digits == 6 else map(mul, map(int, fractions), repeat(MILLISECOND))  # noqa: PLR2004 - microseconds already
    return list(map(add, map(whole_seconds.__getitem__, map(itemgetter(slice(_WHOLE)), raws)), micros))

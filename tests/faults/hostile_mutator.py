"""Records that go wrong at random, seeded: byte flips, cuts, splices, other keys, other types, names twice, fields nobody knows. Imports nothing of the project."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence

from tests.faults.hostile import good_moments, moment, write

TOPICS = ("interaction", "variant_posted", "monitoring_control")
KINDS = ("view", "like", "reply", "repost", "quote", "share", "click", "save")
TOTALS = ("views", "likes", "replies", "reposts", "quotes", "shares", "clicks", "saves")
TOKENS = (
    *("null", "true", "false", '""', '"x"', '"5"', "[]", "{}", "[1]", '{"views":1}', "0", "-0", "1", "-1", "5", "1.0", "1.5", "0.5", "1e0", "1E+2", "1e-400", "1e999", "-1e999"),
    *("NaN", "Infinity", "-Infinity", "1000000", "1000001", "43200", "1e12", "1000000000000", "1000000000001", "9" * 30, "9" * 4_300, "9" * 4_301, "01", "1.", ".5", "+1", "0x1"),
    *(
        '"\\u0000"',
        '"\\ud800"',
        '"\\ud83d\\ude00"',
        '"\\n"',
        '"\x7f"',
        '"\u0085"',
        '"é"',
        '"😀"',
        '"view"',
        '"snapshot"',
        '"ratio"',
        '"stop"',
        "[" * 300 + "]" * 300,
        "[" * 700 + "]" * 700,
    ),
    *('{"a":{"b":[1,2,{"c":null}]}}', "[NaN]", '{"x":1e999}', '{"x":"\\u0000"}', '"' + "y" * 200 + '"', '"' + "y" * 201 + '"', '"' + "y" * 5_000 + '"', "tru", "'x'", ""),
)
NAMES = (
    "later",
    "__faust",
    "",
    "count",
    "totals",
    "kind",
    "post_id",
    "event_id",
    "occurred_at",
    "posted_at",
    "metadata",
    "schema_version",
    "source",
    "Kind",
    "variant_id",
    "\\u006bind",
)
SNIPPETS = (
    b'"',
    b"\\",
    b"\\u0000",
    b",",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b" ",
    b"\n",
    b"\t",
    b"\x00",
    b"\x7f",
    b"\xff",
    b"\xc2\x85",
    b"\xed\xa0\x80",
    b"1",
    b"e9",
    b"-",
    b"null",
    b"\xef\xbb\xbf",
)

Pairs = list[tuple[str, str]]


class Mutator:
    """Makes records of the three source topics; the same seed makes the same ones.

    Args:
        rng: Where chance comes from.
        now: Seconds since the epoch, about when the records are appended.
        variants: Ids of interactions, by topic of posts and stops. They may be the same.
    """

    def __init__(self, rng: random.Random, now: float, variants: Sequence[str], others: Sequence[str] = ()) -> None:
        self._rng, self._now = rng, now
        self._variants, self._others = variants, others or variants
        self._last = b"{}"
        self._rest: tuple[str, bytes | None, bytes | None] | None = None
        self._moments = [write(item) for _, item in good_moments(now)] + [write(moment(now, seconds)) for seconds in (-7_200, -3_000, -600, 290, 310)]

    def record(self, harm: float = 1.0) -> tuple[str, bytes | None, bytes | None]:
        """Return (topic, value, key) of the next; ``harm`` scales how likely anything is wrong with it."""
        rng = self._rng
        if self._rest is not None:
            rest, self._rest = self._rest, None
            return rest
        topic = rng.choices(TOPICS, (70, 20, 10))[0]
        pairs = {"interaction": self._interaction, "variant_posted": self._posted, "monitoring_control": self._stop}[topic]()
        key: bytes | None = json.loads(dict(pairs)["variant_id"]).encode()
        if rng.random() < 0.75 * harm:
            for _ in range(rng.choice((1, 1, 1, 2, 3))):
                rng.choice(self._changes)(self, pairs)
        value: bytes | None = ("{" + ",".join(f'"{name}":{item}' for name, item in pairs) + "}").encode()
        if rng.random() < 0.3 * harm:
            for _ in range(rng.choice((1, 1, 2, 4))):
                value = self._damage(value or b"")
        if rng.random() < 0.05 * harm:
            key = rng.choice((None, b"", b"other", key + b" ", key.upper(), b"\xff", key * 50))
        if rng.random() < 0.005 * harm:
            value = None
        elif rng.random() < 0.02 * harm:  # one in two records, of which neither is one
            at = rng.choice([place for place, byte in enumerate(value) if byte in b"{},"] or [0]) + rng.randrange(2)
            value, self._rest = value[:at], (topic, value[at:], key)
        self._last = value or self._last
        return topic, value, key

    # -- good ones

    def _interaction(self) -> Pairs:
        rng = self._rng
        pairs = [("variant_id", f'"{rng.choice(self._variants)}"'), ("kind", f'"{rng.choice(KINDS)}"')]
        if rng.random() < 0.2:
            pairs[1:] = [("kind", '"snapshot"'), ("totals", write({rng.choice(TOTALS): rng.choice((None, 0, rng.randrange(500))) for _ in range(3)}))]
        elif rng.random() < 0.4:
            pairs.append(("count", str(rng.randrange(1, 20))))
        for chance, name, token in (
            (0.8, "post_id", f'"q{rng.randrange(3)}"'),
            (0.6, "event_id", f'"e{rng.randrange(400)}"'),
            (0.8, "occurred_at", rng.choice(self._moments)),
            (0.2, "source", '"poller"'),
            (0.2, "schema_version", "1"),
            (0.2, "later", '{"trace":"3f2e1e555","n":[1,2.5,-1e3]}'),
        ):
            if rng.random() < chance:
                pairs.append((name, token))
        return pairs

    def _posted(self) -> Pairs:
        rng = self._rng
        pairs = [("variant_id", f'"{rng.choice(self._others)}"'), ("persona_id", '"p"'), ("post_id", f'"q{rng.randrange(3)}"')]
        for chance, name, token in (
            (0.5, "posted_at", rng.choice(self._moments)),
            (0.4, "timeout_minutes", rng.choice(("60", "0.5", "43200", "1000.25"))),
            (0.7, "min_interactions", rng.choice(("1000000", "1000000", "10", "50"))),
            (0.3, "expected_engagement_rate", rng.choice(("0.06", "1", "0.5", "1e-3"))),
            (0.3, "kill_threshold", rng.choice(("0.5", "1", "0.25"))),
            (0.2, "policy", '"ratio"'),
            (0.2, "metadata", '{"campaign":{"id":7,"tags":["a","é"]}}'),
            (0.2, "source", '"adaptor"'),
        ):
            if rng.random() < chance:
                pairs.append((name, token))
        return pairs

    def _stop(self) -> Pairs:
        rng = self._rng
        pairs = [("action", '"stop"'), ("variant_id", f'"{rng.choice(self._others)}"'), ("post_id", f'"q{rng.randrange(40)}"')]
        return [*pairs, ("schema_version", "1"), ("request_id", '"00000000-0000-0000-0000-000000000001"'), ("requested_by", '"x"')][: rng.randrange(3, 7)]

    # -- what goes wrong

    def _another_token(self, pairs: Pairs) -> None:
        at = self._rng.randrange(len(pairs))
        pairs[at] = (pairs[at][0], self._rng.choice(TOKENS))

    def _another_moment(self, pairs: Pairs) -> None:
        fields = [at for at, (name, _) in enumerate(pairs) if name.endswith("ed_at")]
        token = self._rng.choice(
            (str(self._rng.randrange(10**10)), f'"{moment(self._now, self._rng.uniform(-1e6, 600))}"', '"2024-02-30T00:00:00Z"', "1e300", str(self._now * 1e6))
        )
        for at in fields:
            pairs[at] = (pairs[at][0], token)

    def _leave_out(self, pairs: Pairs) -> None:
        if len(pairs) > 1:
            pairs.pop(self._rng.randrange(len(pairs)))

    def _another_name(self, pairs: Pairs) -> None:
        at = self._rng.randrange(len(pairs))
        pairs[at] = (self._rng.choice(NAMES), pairs[at][1])

    def _one_more(self, pairs: Pairs) -> None:
        pairs.insert(self._rng.randrange(len(pairs) + 1), (self._rng.choice(NAMES), self._rng.choice(TOKENS)))

    def _unknown(self, pairs: Pairs) -> None:
        pairs.insert(self._rng.randrange(len(pairs) + 1), (f"later-{self._rng.randrange(9)}", self._rng.choice(TOKENS)))

    def _twice(self, pairs: Pairs) -> None:
        pairs.append(self._rng.choice(pairs))

    def _swap(self, pairs: Pairs) -> None:
        one, other = self._rng.randrange(len(pairs)), self._rng.randrange(len(pairs))
        pairs[one], pairs[other] = (pairs[one][0], pairs[other][1]), (pairs[other][0], pairs[one][1])

    def _shuffle(self, pairs: Pairs) -> None:
        self._rng.shuffle(pairs)

    def _white_space(self, pairs: Pairs) -> None:
        pairs[0] = (pairs[0][0], self._rng.choice((" ", "\n", "\t", "\r\n  ", "\v", "\u00a0")) + pairs[0][1])

    _changes: tuple[Callable[[Mutator, Pairs], None], ...] = (
        *(_another_token, _another_token, _another_token, _another_moment, _leave_out, _another_name, _one_more, _unknown, _unknown),
        *(_twice, _swap, _shuffle, _white_space),
    )

    def _damage(self, value: bytes) -> bytes:
        rng = self._rng
        at, end = sorted((rng.randrange(len(value) + 1), rng.randrange(len(value) + 1)))
        flipped = bytearray(value or b"{")
        flipped[at % len(flipped)] ^= 1 << rng.randrange(8)
        return rng.choice(
            (
                value[:at],
                value[:at] + rng.choice(SNIPPETS) + value[at:],
                value[:at] + value[min(end, at + 4) :],
                value[:at] + self._last[rng.randrange(len(self._last) + 1) :],
                value + rng.choice((value, b" ", b"\n", b"x", b"\x00", b"\n" + self._last)),
                value[:end] + value[at:],
                bytes(flipped),
            )
        )

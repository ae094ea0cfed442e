"""A simulated posting day: who posts what when, and how people react. Pure: the same seed gives the same day."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import merge
from typing import Any, Literal

Quality = Literal["good", "bad", "dead"]

DAY_SECONDS = 110.0
"""Time over which variants are posted; a real day, some 780 times faster."""
WINDOW_MINUTES = 1.0
"""How long each variant is monitored."""
PERSONAS = {"ada": 0.06, "bruno": 0.05, "chidi": 0.07, "dana": 0.06}
"""Who posts, and the engagement rate that is expected of their posts."""
QUALITIES: tuple[Quality, ...] = ("good",) * 10 + ("bad",) * 6 + ("dead",) * 3
"""What is posted after the first variant, which is a bad one that many people see at once."""
TITLES = ("behind-the-scenes", "hot-take", "how-to", "throwback", "poll", "launch-teaser", "thread", "meme", "quote-card", "ask-me-anything")
KINDS = {"like": 70, "reply": 10, "repost": 8, "share": 5, "click": 5, "quote": 1, "save": 1}
"""How people act when they act, by weight."""
INTERACTION_DELAY_SECONDS = 0.8
"""Median time between seeing a post and acting on it; log-normal."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One variant of the day.

    Attributes:
        quality: ``good`` posts get the engagement that is expected, ``bad`` ones far less, ``dead`` ones are hardly seen at all.
        posted_after: Seconds after the day's start.
        rate: How likely it is that somebody who sees it acts.
        views: How many people see it.
        burst: Seconds in which views come at first; the smaller, the faster they come and the sooner they cease.
        scheduled_posts: How often it is scheduled to go out again.
    """

    variant_id: str
    persona_id: str
    post_id: str
    quality: Quality
    posted_after: float
    expected_engagement_rate: float
    rate: float
    views: int
    burst: float
    scheduled_posts: int


@dataclass(frozen=True, slots=True)
class Happening:
    """One event of the day: what to publish, so many seconds after the day's start. Its moment is left to the publisher."""

    after: float
    topic: str
    value: dict[str, Any]


def plan_day(seed: int, run: str) -> list[Variant]:
    """Return the variants of a day in the order in which they are posted.

    Args:
        seed: Of the randomness.
        run: Ends every id, so that days do not meet.
    """
    chance = random.Random(seed)  # noqa: S311 - a simulation, not a secret
    qualities = list(QUALITIES)
    chance.shuffle(qualities)
    pauses = [chance.uniform(0.3, 1.7) for _ in qualities]
    variants = [_variant(chance, 0, "bad", 0.0, run, views=1_300, burst=2.2)]
    posted_after = 0.0
    for number, (quality, pause) in enumerate(zip(qualities, pauses, strict=True), start=1):
        posted_after += pause * DAY_SECONDS / sum(pauses)
        variants.append(_variant(chance, number, quality, posted_after, run))
    return variants


def _variant(chance: random.Random, number: int, quality: Quality, posted_after: float, run: str, *, views: int | None = None, burst: float | None = None) -> Variant:
    persona, expected = chance.choice(list(PERSONAS.items()))
    share = {"good": (0.85, 1.6), "bad": (0.2, 0.32), "dead": (0.0, 0.5)}[quality]
    seen = {"good": (450, 0.4), "bad": (1_100, 0.25), "dead": (15, 0.6)}[quality]
    variant_id = f"{persona}-{chance.choice(TITLES)}-{number:02d}-{run}"
    return Variant(
        variant_id=variant_id,
        persona_id=persona,
        post_id=f"{variant_id}-post",
        quality=quality,
        posted_after=posted_after,
        expected_engagement_rate=expected,
        rate=expected * chance.uniform(*share),
        views=views or round(seen[0] * chance.lognormvariate(0, seen[1])),
        burst=burst or chance.uniform(3, 8),
        scheduled_posts=chance.randint(1, 4),
    )


def react(variant: Variant, seed: int) -> Iterator[Happening]:
    """Yield the posting of a variant and all that follows from it, in order of time.

    Views burst and decay (a gamma distribution over the time since the posting); who acts does so a little after seeing it.
    """
    chance = random.Random(f"{seed}:{variant.variant_id}")  # noqa: S311 - a simulation, not a secret
    posted = {
        "variant_id": variant.variant_id,
        "persona_id": variant.persona_id,
        "post_id": variant.post_id,
        "expected_engagement_rate": variant.expected_engagement_rate,
        "timeout_minutes": WINDOW_MINUTES,
        "source": "demo",
    }
    yield Happening(variant.posted_after, "variant_posted", posted)
    events: list[tuple[float, int, str]] = []
    for viewer in range(variant.views):
        seen_after = chance.gammavariate(1.5, variant.burst)
        events.append((seen_after, viewer, "view"))
        if chance.random() < variant.rate:
            delay = chance.lognormvariate(math.log(INTERACTION_DELAY_SECONDS), 0.8)
            events.append((seen_after + delay, viewer, chance.choices(list(KINDS), list(KINDS.values()))[0]))
    for number, (after, _, kind) in enumerate(sorted(events)):
        value = {"variant_id": variant.variant_id, "post_id": variant.post_id, "kind": kind, "event_id": f"{variant.post_id}-{number}", "source": "demo"}
        yield Happening(variant.posted_after + after, "interaction", value)


def happenings(variants: list[Variant], seed: int) -> Iterator[Happening]:
    """Yield all that happens on a day, in order of time."""
    return merge(*(react(variant, seed) for variant in variants), key=lambda happening: happening.after)

"""The simulated posting day: repeatable, and shaped like people."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.policy import Defaults
from streams.backtest import backtest
from streams.event_log import to_bytes
from streams.integration.checking import checked
from streams.traffic import DAY_SECONDS, Variant, happenings, plan_day


def test_the_same_seed_gives_the_same_day() -> None:
    """Down to the last event; another seed gives another one."""
    first, second, other = (list(happenings(plan_day(seed, "r"), seed)) for seed in (7, 7, 8))
    assert first == second
    assert first != other


@pytest.mark.parametrize("seed", range(5))
def test_everything_that_happens_may_be_published_and_comes_in_order(seed: int) -> None:
    """Each event is as the contract wants it, on a clock that does not go back, and nobody reacts before the post."""
    variants = plan_day(seed, "r")
    posted_after = {variant.variant_id: variant.posted_after for variant in variants}
    latest = 0.0
    for happening in happenings(variants, seed):
        checked(happening.topic, happening.value)
        assert happening.after >= latest
        assert happening.after >= posted_after[happening.value["variant_id"]]
        latest = happening.after
    assert max(posted_after.values()) == pytest.approx(DAY_SECONDS)


@pytest.mark.parametrize("seed", range(3))
def test_views_burst_and_decay_and_people_act_after_they_have_seen(seed: int) -> None:
    """Of a variant's views more than half come in the first fifth of its window, and the median act comes after the median view."""
    variant = max((variant for variant in plan_day(seed, "r") if variant.quality == "good"), key=lambda variant: variant.views)
    events = [happening for happening in happenings([variant], seed) if happening.topic == "interaction"]
    views = sorted(event.after - variant.posted_after for event in events if event.value["kind"] == "view")
    acts = sorted(event.after - variant.posted_after for event in events if event.value["kind"] != "view")
    assert views[len(views) // 2] < 12
    assert acts[len(acts) // 2] > views[len(views) // 2]
    assert len({event.value["event_id"] for event in events}) == len(events)


@pytest.mark.parametrize("seed", range(4))
def test_bad_variants_are_killed_good_and_dead_ones_are_not(tmp_path: Path, seed: int) -> None:
    """And the first one, bad, within a few seconds, so that there is something to see at once."""
    variants = plan_day(seed, "r")
    log = tmp_path / "day"
    with log.open("wb") as file:
        for happening in happenings(variants, seed):
            moment = {"posted_at" if happening.topic == "variant_posted" else "occurred_at": 1_600_000_000 + happening.after}
            file.write(to_bytes({"topic": happening.topic, "value": {**happening.value, **moment}}) + b"\n")
    ends = {decided.session.variant_id: decided.as_json() for decided in backtest([log], defaults=Defaults()).sessions}

    def killed(quality: str) -> list[Variant]:
        return [variant for variant in variants if variant.quality == quality and ends[variant.variant_id]["was_killed"]]

    assert variants[0] in killed("bad")
    assert ends[variants[0].variant_id]["ended_at"] < "2020-09-13T12:26:50"
    assert len(killed("bad")) >= 4
    assert killed("dead") == []
    assert len(killed("good")) <= 1

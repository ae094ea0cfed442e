"""What benchmarks rest on: a backlog whose right result is known, and honest arithmetic."""

from __future__ import annotations

import asyncio
import math
import re
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import aiokafka
import faust
import mode
import pytest

from benchmarks.__main__ import benchmarks, plan
from benchmarks.backlog import KINDS, Backlog, Counts
from benchmarks.contestants import Pace, check
from benchmarks.cpu_by_stage import STAGES, as_fetched, work_off
from benchmarks.peers import jars
from benchmarks.report import median_ratio, row, table
from benchmarks.sampling import sitecustomize as sampling
from models.engagement import Engagement
from models.errors import Stop
from models.events import Interaction, parse_interaction, parse_variant_posted
from models.policy import Defaults, Policy
from models.rules import Kill, ratio

ROOT = Path(__file__).parents[2]
START = 1_700_000_400
"""A multiple of ten minutes."""
SMALL = Backlog(events=8_041, variants=20, window_start=START)


def read(backlog: Backlog) -> list[Interaction]:
    """All interactions, as the project parses them when they were appended at the end of the window."""
    return [parse_interaction(value, backlog.variant_id(variant).encode(), (START + 600) * 1_000_000) for variant, value in backlog.interactions()]


def test_what_is_expected_is_what_the_rule_makes_of_the_events() -> None:
    """One by one, by the project's own parser and rule; some are killed, and the events do not fill all variants alike."""
    counted: dict[str, Engagement] = {}
    killed: set[str] = set()
    for event in read(SMALL):
        if event.variant_id not in killed:
            counts = counted.setdefault(event.variant_id, Engagement())
            counts.add(event.kind, event.count)
            if isinstance(ratio(counts, Policy()), Kill):
                killed.add(event.variant_id)
    assert SMALL.expected() == {variant: Counts(counts.views, counts.interactions, variant in killed) for variant, counts in counted.items()}
    assert killed == {"variant-0"}
    assert len({counts.views for counts in SMALL.expected().values()}) > 1


def test_every_event_is_one_that_counts() -> None:
    """Of its variant, in the one window, ids never twice, in the order of event time; all kinds come."""
    events = read(SMALL)
    assert len({event.event_id for event in events}) == len(events) == SMALL.events
    assert all(earlier.occurred_at < later.occurred_at for earlier, later in pairwise(events))
    assert events[0].occurred_at == START * 1_000_000
    assert events[-1].occurred_at < (START + 600) * 1_000_000
    assert set(Counter(event.kind for event in events)) == {"view", *KINDS}


def test_posts_are_taken_and_last_longer_than_the_benchmark() -> None:
    """One a variant, from the window's start."""
    posts = [parse_variant_posted(value, SMALL.variant_id(variant).encode(), (START + 600) * 1_000_000, Defaults()) for variant, value in SMALL.posts()]
    assert {post.variant_id for post in posts} == SMALL.expected().keys()
    assert {(post.post_id, post.posted_at, post.policy.timeout_minutes) for post in posts} == {("post", START * 1_000_000, 600)}


def test_a_prefix_tells_variants_and_topics_apart() -> None:
    """A smaller backlog lies beside the whole one."""
    assert Backlog(1, prefix="quix.", window_start=START).expected() == {"quix.variant-0": Counts(1, 0, was_killed=False)}


def test_a_peer_that_counts_wrongly_is_found_out() -> None:
    """One too many, another window, a variant missing or made up."""
    right = {(variant, START): counts for variant, counts in SMALL.expected().items()}
    check("peer", right, SMALL)
    counts = right["variant-7", START]
    for wrong in (
        right | {("variant-7", START): Counts(counts.views + 1, counts.interactions, counts.was_killed)},
        right | {("variant-7", START + 600): counts},
        {key: value for key, value in right.items() if key[0] != "variant-7"},
        right | {("variant-0", START): Counts(right["variant-0", START].views, 10, was_killed=False)},
    ):
        with pytest.raises(Stop, match=r"peer came to .*which is wrong"):
            check("peer", wrong, SMALL)


def test_the_first_third_is_not_what_is_compared() -> None:
    """Warming up belongs to the whole, not to the pace."""
    pace = Pace.of([(10.0, 0, 1.0), (13.0, 1_000, 3.0), (15.0, 3_000, 4.0)])
    assert (pace.per_second, pace.per_second_whole, pace.cpu_microseconds) == (1_000, 600, 500)


def test_ratios_are_of_the_same_round() -> None:
    """A machine that was slow for both in one round does not show."""
    assert median_ratio([10, 20, 90], [20, 40, 100]) == 0.5


@pytest.mark.parametrize(("measured", "is_good_enough", "is_as_aimed"), [(0.59, False, False), (0.6, True, False), (1.0, True, True)])
def test_a_goal_is_reached_on_its_bound(measured: float, is_good_enough: bool, is_as_aimed: bool) -> None:
    """Inclusive."""
    found = row("ratio", measured, "", at_least=0.6, aim=1.0)
    assert (found["is_good_enough"], found["is_as_aimed"]) == (is_good_enough, is_as_aimed)
    assert ("short of" in table([found])) is not is_as_aimed


@pytest.mark.parametrize(("measured", "is_good_enough"), [(50.0, True), (math.nextafter(50, 51), False)])
def test_where_less_is_better_the_goal_is_not_to_be_exceeded(measured: float, is_good_enough: bool) -> None:
    """On the bound it is reached."""
    assert row("latency", measured, "ms", at_least=50, lower_is_better=True)["is_good_enough"] is is_good_enough


def test_each_benchmark_gets_the_options_behind_its_name(tmp_path: Path) -> None:
    """Those before the first name are the runner's; without a name all run."""
    known = benchmarks()
    own, planned = plan(known, ["--json", str(tmp_path / "found.json"), "throughput", "--rounds", "1"])
    assert own.json == tmp_path / "found.json"
    assert [(one.name, one.arguments.rounds, one.arguments.events) for one in planned] == [("throughput", 1, 3_000_000)]
    _, planned = plan(known, [])
    assert [one.name for one in planned] == list(known)
    assert next(iter(known)) == "throughput"


@pytest.mark.parametrize("words", [["nothing-like-that"], ["throughput", "--nothing-like-that"]])
def test_what_does_not_exist_is_refused(words: list[str]) -> None:
    """With the exit code of wrong usage."""
    with pytest.raises(SystemExit) as refused:
        plan(benchmarks(), words)
    assert refused.value.code == 2


def test_the_peers_are_pinned() -> None:
    """Kafka Streams at the broker's version, everything by a whole hash, and no registry named."""
    assert {jar.artifact: jar.version for jar in jars.listed()}["kafka-streams"] == "4.3.1"
    assert all(len(jar.sha256) == 64 for jar in jars.listed())
    text = Path(jars.__file__).with_name("requirements-quix.txt").read_text(encoding="utf-8")
    assert "quixstreams==3." in text
    assert not re.search(r"https?:|--index|--find", text)
    assert text.count("==") <= text.count("--hash=sha256:")


def test_cpu_time_by_stage_is_of_right_counts() -> None:
    """A stage that loses an event has no time."""
    backlog = Backlog(events=8_000, variants=20, partitions=1, window_start=START)
    posts, batches = as_fetched(backlog, backlog.posts()), as_fetched(backlog, backlog.interactions())
    spent = work_off(backlog, posts, batches, per_flush=3_000)
    assert set(spent) == set(STAGES)
    assert min(spent.values()) > 0
    with pytest.raises(SystemExit, match="wrong counts"):
        work_off(backlog, posts, batches[:-1], per_flush=3_000)


def test_each_place_that_a_profile_knows_a_stage_by_exists() -> None:
    """After a renaming its time would count for another stage."""
    homes = [ROOT / "streams", ROOT / "models", *(Path(str(module.__file__)).parent for module in (aiokafka, asyncio, faust, mode))]
    sources = {path.relative_to(home.parent).as_posix(): path.read_text() for home in homes for path in home.rglob("*.py")}
    sources |= {"selectors.py": ""}
    for _, known in sampling.STAGES:
        for part in known:
            file, _, function = part.rpartition(":")
            found = [name for name, text in sources.items() if file in name and f"def {function.rpartition('.')[2]}" in text] if ":" in part else [n for n in sources if part in n]
            assert found, part


def test_a_sample_counts_for_the_innermost_frame_that_has_a_stage() -> None:
    """What is called from there, and has none itself, counts for who called it."""
    seen = []

    class Spy:
        @property
        def interactions(self) -> int:
            seen.append(sampling.stage_of(sys._getframe()))
            return 0

    ratio(Spy(), Policy())  # type: ignore[arg-type]
    assert seen == ["fold"]
    assert sampling.stage_of(sys._getframe()) == "other"

"""What the README and docs/ say without anything running: examples of records, the rule's table, links, names of commands and targets."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import msgspec
import pytest

from models.engagement import Engagement
from models.events import parse_interaction, parse_stop, parse_variant_posted
from models.monitoring_record import parse
from models.policy import Defaults, Policy
from models.rules import Kill, ratio
from models.session import Result
from streams.dead_letters import DeadLetter
from streams.integration.kills import parse_kill
from streams.topics import RETENTION_DAYS
from streams.web.routes import ROUTES

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "examples/README.md")] + sorted((ROOT / "docs").rglob("*.md"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
RECORDS = re.findall(r"^```json (\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_there_is_an_example_of_a_record_on_each_topic():
    """None is missing, none is of a topic that does not exist."""
    assert {topic for topic, _ in RECORDS} == set(RETENTION_DAYS)


@pytest.mark.parametrize(("topic", "example"), RECORDS)
def test_an_example_is_a_record_that_would_be_taken(topic: str, example: str):
    """By whoever reads that topic."""
    value = example.encode()
    key = json.loads(value).get("variant_id", "").encode()
    now = time.time_ns() // 1_000 + 10**15  # examples may be of any year
    match topic:
        case "variant_posted":
            parse_variant_posted(value, key, now, Defaults())
        case "interaction":
            parse_interaction(value, key, now)
        case "monitoring_control":
            parse_stop(value, key)
        case "variant_killed":
            parse_kill(value)
        case "monitoring_record":
            parse(value)
        case _:
            msgspec.json.decode(value, type=DeadLetter)


def test_the_table_of_decisions_is_what_the_rule_decides():
    """With the defaults that are named above it."""
    rows = re.findall(r"^\| (\d+) \| (\d+) \| [\d.%none]+ \| (kill|keep)", README, re.MULTILINE)
    assert len(rows) == 7
    for interactions, views, decision in rows:
        counts = Engagement()
        counts.add("view", int(views))
        counts.add("like", int(interactions))
        assert isinstance(ratio(counts, Policy(0.06, 0.5, 10)), Kill) == (decision == "kill"), (interactions, views)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    """To a file of the project, and to a heading that is in it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            path, _, heading = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            assert file.exists(), target
            if heading:
                titles = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
                assert heading in [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles], target


def test_every_make_target_that_is_named_exists():
    """In any of the pages."""
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for page in PAGES for target in re.findall(r"(?:`|^\$ )make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)}
    assert named
    assert named <= targets


def test_every_call_and_every_result_is_told():
    """Calls in the README, results of events in docs/topics.md."""
    topics = (ROOT / "docs" / "topics.md").read_text(encoding="utf-8")
    assert [result for result in Result if f"`{result}`" not in topics] == []
    calls = [route.path.removeprefix("/performance-monitor").partition("{")[0] for route in ROUTES if not route.is_internal]
    assert [call for call in calls if call not in README] == []

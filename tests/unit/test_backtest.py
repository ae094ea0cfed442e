"""What a log decides, offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from models.policy import Defaults
from streams.backtest import Outcomes, backtest
from streams.event_log import BadLine

EXAMPLE = Path(__file__).parents[2] / "examples" / "open_bandit_events.jsonl.gz"
OPEN_BANDIT = {
    "all-bts-position-1": ("killed", "2019-11-29T12:45:13.822505Z", 2751, 11),
    "all-bts-position-2": ("killed", "2019-11-29T03:56:51.131955Z", 2501, 10),
    "all-bts-position-3": ("timed_out", "2019-12-01T00:00:00.000000Z", 3321, 16),
    "all-random-position-1": ("killed", "2019-11-29T03:59:11.902941Z", 2501, 10),
    "all-random-position-2": ("timed_out", "2019-12-01T00:00:00.000000Z", 3412, 14),
    "all-random-position-3": ("killed", "2019-11-29T09:08:26.806670Z", 2540, 10),
    "women-bts-position-1": ("killed", "2019-11-29T12:13:09.241200Z", 2684, 10),
    "women-bts-position-2": ("killed", "2019-11-29T04:57:53.673615Z", 2577, 10),
    "women-bts-position-3": ("killed", "2019-11-29T21:48:30.643376Z", 2889, 10),
    "women-random-position-1": ("killed", "2019-11-29T03:07:58.188408Z", 2534, 10),
    "women-random-position-2": ("timed_out", "2019-12-01T00:00:00.000000Z", 3374, 15),
    "women-random-position-3": ("killed", "2019-11-29T13:34:48.920100Z", 2751, 11),
}
"""Outcome, end, views and interactions of each variant. Source: examples/README.md."""


def write(path: Path, *events: tuple[str, dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps({"topic": topic, "value": value}) + "\n" for topic, value in events))
    return path


def post(**more: Any) -> tuple[str, dict[str, Any]]:
    return "variant_posted", {"variant_id": "v", "persona_id": "p", "post_id": "post-1", "posted_at": "2020-01-01T00:00:00Z", **more}


def seen(kind: str, count: int, second: float = 1, **more: Any) -> tuple[str, dict[str, Any]]:
    return "interaction", {"variant_id": "v", "kind": kind, "count": count, "occurred_at": 1_577_836_800 + second, **more}


def run(*paths: Path, policy: str | None = None, bad: list[tuple[Path, BadLine]] | None = None) -> Outcomes:
    return backtest(paths, defaults=Defaults(), policy=policy, on_bad=lambda path, line: (bad if bad is not None else []).append((path, line)))


def test_the_open_bandit_log_has_nine_kills_and_three_time_outs() -> None:
    """The shipped example, to the microsecond and the last view."""
    outcomes = run(EXAMPLE)
    found = {
        row["variant_id"].removeprefix("open-bandit-"): (row["outcome"], row["ended_at"], row["final_view_count"], row["final_interaction_count"])
        for row in (decided.as_json() for decided in outcomes.sessions)
    }
    assert found == OPEN_BANDIT
    assert outcomes.without_post == 0


@pytest.mark.parametrize(
    ("interactions", "views", "outcome"),
    [(10, 500, "killed"), (9, 450, "timed_out"), (18, 500, "timed_out"), (18, 600, "timed_out"), (10, 334, "killed"), (10, 333, "timed_out"), (10, 0, "timed_out")],
)
def test_the_examples_of_the_rule(tmp_path: Path, interactions: int, views: int, outcome: str) -> None:
    """The contract's examples, at 0.06, 0.5 and 10."""
    events = [seen("view", views)] if views else []
    (decided,) = run(write(tmp_path / "log", post(), *events, seen("like", interactions))).sessions
    row = decided.as_json()
    assert row["outcome"] == outcome
    assert (row["final_view_count"], row["final_interaction_count"]) == (views, interactions)
    assert row["deciding_event"] == ({"file": str(tmp_path / "log"), "line": 3} if outcome == "killed" else None)


def test_an_interaction_ahead_of_its_post_counts(tmp_path: Path) -> None:
    """Two topics have no common order; it is applied as if the post had come first, and named as what decided."""
    (decided,) = run(write(tmp_path / "log", seen("view", 500), seen("like", 10), post())).sessions
    row = decided.as_json()
    assert row["outcome"] == "killed"
    assert row["deciding_event"]["line"] == 2


def test_several_files_are_one_log(tmp_path: Path) -> None:
    """A log that was rotated; the line that decided is named with its file."""
    first, second = write(tmp_path / "log.1", post(), seen("view", 500)), write(tmp_path / "log.2", seen("view", 1), seen("like", 10))
    (decided,) = run(first, second).sessions
    assert decided.as_json()["deciding_event"] == {"file": str(second), "line": 2}


def test_bad_lines_are_told_with_file_and_line_and_decide_nothing(tmp_path: Path) -> None:
    """A worker would send them to the dead letters."""
    bad: list[tuple[Path, BadLine]] = []
    log = write(tmp_path / "log", post(), seen("view", 0), seen("view", 500), ("interaction", {"variant_id": "", "kind": "view"}), seen("like", 10))
    (decided,) = run(log, bad=bad).sessions
    assert decided.as_json()["final_view_count"] == 500
    assert [(path, line.line) for path, line in bad] == [(log, 2), (log, 4)]


def test_interactions_whose_post_is_missing_are_counted(tmp_path: Path) -> None:
    """They would be dead-lettered with ``no post``."""
    outcomes = run(write(tmp_path / "log", seen("view", 5), seen("like", 5)))
    assert (outcomes.sessions, outcomes.without_post) == ([], 2)


def test_a_repeated_event_id_counts_once(tmp_path: Path) -> None:
    """As live."""
    (decided,) = run(write(tmp_path / "log", post(), *[seen("view", 500, event_id="same")] * 3, seen("like", 9))).sessions
    assert decided.as_json()["final_view_count"] == 500


def test_another_policy_stands_in_for_the_one_in_the_log(tmp_path: Path) -> None:
    """``--policy`` wins over the posts' own; a log may name one that is not offered here."""
    log = write(tmp_path / "log", post(policy="of-another-day"), seen("view", 500), seen("like", 10))
    bad: list[tuple[Path, BadLine]] = []
    assert run(log, bad=bad).sessions == []
    assert len(bad) == 1
    assert run(log, policy="ratio").sessions[0].as_json()["outcome"] == "killed"

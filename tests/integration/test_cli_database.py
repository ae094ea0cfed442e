"""``migrate``, ``revive``, ``purge`` and ``outbound`` as people run them, on a real PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

ROOT = Path(__file__).parents[2]
KILL_ID = "00000000-0000-0000-0000-000000000001"


def early_kill(database: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command against a test's own database."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DATABASE_URL": database}
    return subprocess.run([sys.executable, "-m", "streams.cli", *arguments], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def migrated(database: str) -> str:
    """A database with the schema in it, made by the command."""
    for _ in range(2):
        run = early_kill(database, "migrate")
        assert (run.returncode, run.stdout, run.stderr) == (0, "", "the schema is up to date\n")
    return database


def test_a_kill_is_undone_and_told(migrated: str) -> None:
    """One JSON object; a second time there is nothing to undo."""
    with psycopg.connect(migrated) as connection:
        connection.execute("INSERT INTO variant_pool (variant_id, persona_id, status, killed_at, kill_id) VALUES ('v', 'p', 'killed', now(), %s)", [KILL_ID])
        connection.execute(
            "INSERT INTO scheduled_post (variant_id, scheduled_for, status, cancelled_at, cancel_reason) VALUES ('v', now() + interval '1 day', 'cancelled', now(), %s)",
            [f"Below 50% of expected engagement rate (kill {KILL_ID})"],
        )
    run = early_kill(migrated, "revive", "v")
    assert (run.returncode, run.stderr) == (0, "")
    revived = json.loads(run.stdout)
    assert (revived["variant_id"], revived["kill_id"], revived["is_in_pool"], len(revived["posts"]), revived["posts_passed"]) == ("v", KILL_ID, True, 1, 0)
    with psycopg.connect(migrated) as connection:
        assert connection.execute("SELECT status FROM variant_pool").fetchall() == [("active",)]
        assert connection.execute("SELECT status FROM scheduled_post").fetchall() == [("scheduled",)]
        assert connection.execute("SELECT count(*) FROM monitoring_audit WHERE actor LIKE 'cli:%'").fetchall() == [(1,)]
    again = early_kill(migrated, "revive", "v")
    assert (again.returncode, again.stdout, again.stderr.count("\n")) == (1, "", 1)


def test_an_unknown_variant_cannot_be_revived(migrated: str) -> None:
    """One line, exit code 1."""
    run = early_kill(migrated, "revive", "nobody")
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (1, "", 1)


def test_what_is_old_is_removed_and_counted(migrated: str) -> None:
    """Ended sessions and audit rows; what is active stays."""
    with psycopg.connect(migrated) as connection:
        for number, ended in enumerate(("now() - interval '40 days'", "now() - interval '2 days'", "NULL")):
            connection.execute(
                f"""INSERT INTO variant_monitoring (session_id, variant_id, persona_id, post_id, expected_engagement_rate, kill_threshold, min_interactions, timeout_minutes,
                    started_at, ended_at, is_active, was_killed, outcome, kill_reason, final_interaction_count, final_view_count)
                    VALUES (gen_random_uuid(), 'v', 'p', %s, 0.06, 0.5, 10, 10, now() - interval '50 days', {ended}, {ended} IS NULL, false,
                    CASE WHEN {ended} IS NULL THEN NULL ELSE 'timed_out' END, CASE WHEN {ended} IS NULL THEN NULL ELSE 'over' END,
                    CASE WHEN {ended} IS NULL THEN NULL ELSE 0 END, CASE WHEN {ended} IS NULL THEN NULL ELSE 0 END)""",  # noqa: S608 - the test's own words
                [str(number)],
            )
    run = early_kill(migrated, "purge", "--older-than", "30")
    assert (run.returncode, json.loads(run.stdout)) == (0, {"sessions": 1, "audit_rows": 0, "outbound_calls": 0})


def test_a_database_without_schema_is_said_in_one_line(database: str) -> None:
    """It is a matter of set-up, not of waiting."""
    run = early_kill(database, "revive", "v")
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (1, "", 1)
    assert "Traceback" not in run.stderr


def test_calls_are_listed_and_tried_again(migrated: str) -> None:
    """Those that want a look by default; exit code 1 names the ones that cannot be tried again."""
    with psycopg.connect(migrated) as connection:
        for state in ("pending", "confirmed", "given_up", "withdrawn"):
            connection.execute(
                """INSERT INTO outbound_call (idempotency_key, event, kill_id, session_id, variant_id, target, body, state, attempts, last_status, last_error, finished_at)
                   VALUES (gen_random_uuid(), 'variant_killed', gen_random_uuid(), gen_random_uuid(), %(state)s, 'https://there', '{}', %(state)s, 3, 500, 'answered 500',
                           CASE WHEN %(state)s = 'pending' THEN NULL ELSE now() END)""",
                {"state": state},
            )
    listed = [json.loads(line) for line in early_kill(migrated, "outbound", "list").stdout.splitlines()]
    assert [(call["id"], call["state"], call["attempts"], call["last_error"]) for call in listed] == [(3, "given_up", 3, "answered 500"), (1, "pending", 3, "answered 500")]
    assert listed[0]["next_attempt_at"] is None
    assert listed[1]["next_attempt_at"].endswith("Z")
    assert [json.loads(line)["id"] for line in early_kill(migrated, "outbound", "list", "--state", "all", "--limit", "3").stdout.splitlines()] == [4, 3, 2]
    named = early_kill(migrated, "outbound", "retry", "1", "2", "99")
    assert (named.returncode, json.loads(named.stdout), named.stderr) == (1, {"retried": [1]}, "not retried, for they are confirmed, withdrawn or unknown: 2, 99\n")
    rest = early_kill(migrated, "outbound", "retry", "--all")
    assert (rest.returncode, json.loads(rest.stdout)) == (0, {"retried": [3]})
    with psycopg.connect(migrated) as connection:
        assert connection.execute("SELECT id FROM outbound_call WHERE state = 'pending' AND finished_at IS NULL ORDER BY id").fetchall() == [(1,), (3,)]
        assert connection.execute("SELECT count(*) FROM monitoring_audit WHERE action = 'call_retried' AND actor LIKE 'cli:%'").fetchone() == (2,)

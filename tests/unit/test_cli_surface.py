"""The command line without servers: help, errors in one line, exit codes, results on stdout."""

from __future__ import annotations

import json
import os
import re
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "open_bandit_events.jsonl.gz"
COMMANDS = ("up", "demo", "worker", "topics", "migrate", "publish", "replay", "backtest", "kills", "dead-letters", "revive", "purge", "outbound")
SUBCOMMANDS = ("publish variant-posted", "publish interaction", "dead-letters list", "dead-letters resend", "outbound list", "outbound retry")


def early_kill(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, with nothing of this one's configuration."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EARLY_KILL_", "KAFKA_", "DATABASE_URL"))}
    return subprocess.run(
        [sys.executable, "-m", "streams.cli", *arguments],
        env={**kept, "PYTHONPATH": str(ROOT), **environment},
        cwd=cwd or ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_lists_every_command() -> None:
    """What the contract names is there."""
    run = early_kill("--help")
    assert run.returncode == 0
    assert [command for command in COMMANDS if not re.search(rf"^  {command} ", run.stdout, re.MULTILINE)] == []


@pytest.mark.parametrize("command", [*COMMANDS, *SUBCOMMANDS])
def test_every_command_explains_itself(command: str) -> None:
    """On stdout, with a usage line."""
    run = early_kill(*command.split(), "--help")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith(f"Usage: early-kill {command} ")


def test_help_is_quick() -> None:
    """Nothing heavy is imported before a command runs. Counted in processor time: the machine may have other things to do."""
    before = os.times()
    early_kill("--help")
    after = os.times()
    assert after.children_user + after.children_system - before.children_user - before.children_system < 0.5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "early-kill: Missing command. `early-kill --help` lists them."),
        ("outbound", "early-kill outbound: Missing command. `early-kill outbound --help` lists them."),
        ("nonsense", "early-kill: No such command 'nonsense'. `early-kill --help` lists them."),
        ("backtest", "early-kill backtest: Missing argument"),
        (f"backtest {EXAMPLE} --policy best", "'best' is not one of ratio"),
        (f"replay {EXAMPLE} --speed fast", "'fast' is not a number"),
        (f"replay {EXAMPLE} --speed 0", "is not between"),
        ("up --kafka-port 70000", "--kafka-port"),
        ("up --workers -1", "--workers"),
        ("worker --role boss", "--role"),
        ("worker", "--role"),
        ("purge", "--older-than"),
        ("purge --older-than -1", "--older-than"),
        ("kills --count 0", "--count"),
        ("publish", "name a file with --file, or an event"),
        ("publish --file x interaction --variant-id v --kind view", "either a file or one event"),
        ("publish interaction --variant-id v", "--kind"),
        ("publish interaction --variant-id v --kind applaud", "kind: "),
        ("publish interaction --variant-id v --kind view --count 0", "count: "),
        ("publish interaction --variant-id v --kind view --occurred-at yesterday", "occurred_at: "),
        ("publish interaction --variant-id v --kind view --views 5", "totals belong to a snapshot"),
        ("publish interaction --variant-id v --kind snapshot", "totals: "),
        ("publish variant-posted --variant-id v --persona-id p --post-id o --metadata []", "is not a JSON object"),
        ("publish variant-posted --variant-id v --persona-id p --post-id o --metadata {", "is not JSON"),
        ("publish variant-posted --variant-id v --persona-id p --post-id o --expected-engagement-rate 2", "expected_engagement_rate: "),
        ("publish variant-posted --variant-id v --persona-id p --post-id o --policy best", "policy: "),
        ("dead-letters resend", "name one record by --topic, --partition and --offset, or say --all"),
        ("dead-letters resend --partition 1 --offset 2", "name one record"),
        ("dead-letters resend --all --topic t --partition 1 --offset 2", "name one record"),
        ("dead-letters --limit 3 resend --all", "options go after resend"),
        ("outbound retry", "name calls by their id, or say --all"),
        ("outbound retry 7 --all", "name calls by their id, or say --all"),
        ("outbound retry seven", "Input should be a valid integer"),
        ("outbound list --state lost", "'lost' is not one of"),
    ],
)
def test_a_bad_argument_is_one_line_and_exit_code_2(arguments: str, said: str) -> None:
    """On stderr, nothing on stdout, no traceback; before any server is looked for."""
    run = early_kill(*arguments.split())
    assert (run.returncode, run.stdout) == (2, "")
    assert said in run.stderr
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("backtest /no/such/file", "/no/such/file: No such file or directory"),
        ("replay /no/such/file --speed 10", "/no/such/file: No such file or directory"),
        ("publish --file /no/such/file", "/no/such/file: No such file or directory"),
        ("backtest /", "Is a directory"),
        ("publish interaction --variant-id v --kind view", "no Kafka broker answers at 127.0.0.1:9"),
        ("kills", "no Kafka broker answers at 127.0.0.1:9"),
        ("dead-letters", "Kafka at 127.0.0.1:9 does not answer"),
        ("migrate", "127.0.0.1"),
        ("revive v", "127.0.0.1"),
        ("purge --older-than 3", "127.0.0.1"),
        ("outbound list", "127.0.0.1"),
        ("outbound retry --all", "127.0.0.1"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_1(arguments: str, said: str, tmp_path: Path) -> None:
    """A missing file or server is named; secrets are not."""
    run = early_kill(*arguments.split(), cwd=tmp_path, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9", DATABASE_URL="postgresql://someone:hidden-word@127.0.0.1:9/db")
    assert (run.returncode, run.stdout) == (1, "")
    assert said in run.stderr
    assert run.stderr.strip().count("\n") == (1 if arguments.startswith("replay") else 0), run.stderr
    assert "hidden-word" not in run.stderr
    assert "Traceback" not in run.stderr


def test_following_kills_of_a_kafka_that_says_nothing_is_an_error() -> None:
    """Not the same as that there were none."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = f"127.0.0.1:{silent.getsockname()[1]}"
        run = early_kill("kills", "--timeout", "1", KAFKA_BOOTSTRAP_SERVERS=server)
    assert (run.returncode, run.stdout, run.stderr) == (1, "", f"early-kill: Kafka at {server} does not answer within 1 s\n")


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("EARLY_KILL_WEB_PORT", "70000", "EARLY_KILL_WEB_PORT: "),
        ("EARLY_KILL_TIMEOUT_MINUTES", "soon", "EARLY_KILL_TIMEOUT_MINUTES: "),
        ("KAFKA_SECURITY_PROTOCOL", "hidden-word", "KAFKA_SECURITY_PROTOCOL: "),
        ("DATABASE_URL", "mysql://x:hidden-word@host/db", "DATABASE_URL: must start with postgresql://"),
        ("EARLY_KILL_READ_TOKENS", "hidden-word", "EARLY_KILL_READ_TOKENS: must be a JSON list"),
    ],
)
def test_a_wrong_setting_is_named_and_its_value_is_not_shown(variable: str, value: str, said: str, tmp_path: Path) -> None:
    """It may be a secret. So also where a port on the command line says all that the command itself wants to know."""
    for command in (("backtest", str(EXAMPLE)), ("up", "--data-dir", str(tmp_path / "d"), "--web-port", "0", "--kafka-port", "0", "--postgres-port", "0", "--workers", "0")):
        run = early_kill(*command, **{variable: value})
        assert run.returncode == 1
        assert said in run.stderr
        assert "hidden-word" not in run.stderr
        assert run.stderr.count("\n") == 1


def test_backtest_prints_one_json_object_a_line() -> None:
    """And nothing else on stdout; the shipped log takes less than ten seconds of a processor, whatever else that has to do."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = early_kill("backtest", str(EXAMPLE), "--json")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    assert sum(row["outcome"] == "killed" for row in rows) == 9
    assert sum(row["outcome"] == "timed_out" for row in rows) == 3
    first = rows[0]
    assert (first["variant_id"], first["ended_at"], first["final_view_count"], first["final_interaction_count"], first["final_engagement_rate"], first["kill_reason"]) == (
        "open-bandit-all-bts-position-1",
        "2019-11-29T12:45:13.822505Z",
        2751,
        11,
        11 / 2751,
        "Below 50% of expected engagement rate",
    )


def test_backtest_without_json_is_a_table_for_people() -> None:
    """One line a session under a line of names."""
    lines = early_kill("backtest", str(EXAMPLE)).stdout.splitlines()
    assert len(lines) == 13
    assert lines[0].split() == ["variant", "post", "outcome", "ended", "at", "views", "interactions", "rate", "line"]
    assert "2,751" in lines[1]


def test_bad_lines_are_counted_on_stderr_and_the_rest_is_decided(tmp_path: Path) -> None:
    """With their numbers; a log with faults still has its answer."""
    log = tmp_path / "log"
    log.write_text('nonsense\n{"topic": "variant_posted", "value": {"variant_id": "v", "persona_id": "p", "post_id": "o", "posted_at": 1600000000}}\n{"topic": "x", "value": {}}\n')
    run = early_kill("backtest", str(log), "--json")
    assert run.returncode == 0
    assert json.loads(run.stdout)["outcome"] == "timed_out"
    assert f"{log}:1: " in run.stderr
    assert f"{log}:3: " in run.stderr
    assert "2 bad lines left out" in run.stderr


def test_a_reader_that_leaves_early_is_no_error() -> None:
    """``early-kill backtest … | head -1``."""
    pipe = f"{sys.executable} -m streams.cli backtest {EXAMPLE} --json | head -1"
    run = subprocess.run(["/bin/sh", "-c", pipe], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert json.loads(run.stdout)["outcome"] == "killed"
    assert "Error" not in run.stderr
    assert "Traceback" not in run.stderr


def test_ctrl_c_is_quiet() -> None:
    """Exit code 130, no traceback."""
    interrupt = "lambda *_, **__: os.kill(os.getpid(), signal.SIGINT) or threading.Event().wait()"
    code = f"import os, signal, threading, streams.cli as c, streams.backtest as b\nb.backtest = {interrupt}\nc.main()"
    run = subprocess.run([sys.executable, "-c", code, "backtest", str(EXAMPLE)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (130, "", "")


def test_even_a_bug_is_one_line_unless_debugging() -> None:
    """A traceback is for those who asked for it."""
    code = "import streams.cli as c, streams.backtest as b\nb.backtest = lambda *_, **__: 1 / 0\nc.main()"
    run, debug = (
        subprocess.run(
            [sys.executable, "-c", code, "backtest", str(EXAMPLE)],
            env={**os.environ, "EARLY_KILL_LOG_LEVEL": level},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        for level in ("INFO", "DEBUG")
    )
    assert (run.returncode, debug.returncode, run.stderr.count("\n")) == (1, 1, 1)
    assert "ZeroDivisionError" in run.stderr
    assert "Traceback" in debug.stderr

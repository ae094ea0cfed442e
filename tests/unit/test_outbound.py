"""Where calls go, how they are signed, when they are made again; without a server."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from models.errors import Reject, Retry, Stop
from streams.chores import AWAY_SECONDS, keep_doing
from streams.outbound.messages import idempotency_key, signature
from streams.outbound.relay import pause_seconds
from streams.outbound.sending import retry_after_seconds
from streams.outbound.target import target_of
from streams.settings import Settings

ROOT = Path(__file__).parents[2]
SECRET = "0123456789abcdef"  # noqa: S105 - nobody else's
NOW_US = 1_800_000_000_000_000


def settings(url: str | None = "https://receiver.example/hook", **more: Any) -> Settings:
    """Settings with a target."""
    return Settings.model_validate({"outbound_url": url, "outbound_secret": SECRET} | more)


@pytest.fixture
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Five hours behind UTC."""
    with monkeypatch.context() as there:
        there.setenv("TZ", "EST5")
        time.tzset()
        yield
    time.tzset()


def test_without_a_url_there_is_no_target():
    """Off by default; an empty variable is none."""
    assert target_of(Settings()) is None
    assert target_of(settings(None)) is None
    assert target_of(settings(" ")) is None


@pytest.mark.parametrize(
    "url",
    ["https://receiver.example/hook", "https://receiver.example:8443/?key=hidden", "http://127.0.0.1:8080/hook", "http://localhost/hook", "http://[::1]:80/", "http://127.9.9.9/"],
)
def test_https_anywhere_and_http_on_this_machine_are_fine(url: str):
    """What people see of a target has neither path nor query."""
    target = target_of(settings(url))
    assert target is not None
    assert target.url.get_secret_value() == url.replace("[::1]:80/", "[::1]/") or target.url.get_secret_value() == url
    assert "hook" not in target.name
    assert "hidden" not in f"{target.name} {target!r}"
    assert SECRET not in repr(target)


@pytest.mark.parametrize("url", ["http://receiver.example/hook", "http://10.0.0.7/", "http://0.0.0.0/", "http://localhost.example/", "http://127.0.0.1.nip.io/"])
def test_plain_http_to_other_machines_takes_leave(url: str):
    """The body is signed, not hidden."""
    with pytest.raises(Stop, match="plain HTTP to another machine"):
        target_of(settings(url))
    assert target_of(settings(url, outbound_allow_http=True)) is not None


@pytest.mark.parametrize(
    "url",
    ["receiver.example", "ftp://receiver.example/x", "https://", "https:///hidden", "https://user:hidden@receiver.example/", "https://receiver.example:99999/hidden", "hidden"],
)
def test_a_url_that_cannot_be_used_is_refused_without_quoting_it(url: str):
    """It may hold a secret."""
    with pytest.raises(Stop, match="EARLY_KILL_OUTBOUND_URL") as caught:
        target_of(settings(url))
    assert "hidden" not in str(caught.value)


def test_the_secret_comes_from_one_place(tmp_path: Path):
    """The environment or a file, not both, not neither; a file's last newline is none of it."""
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    file.chmod(0o600)
    target = target_of(settings(outbound_secret=None, outbound_secret_file=file))
    assert target is not None
    assert target.secret.get_secret_value() == SECRET
    assert target_of(settings(outbound_secret="", outbound_secret_file=file)) == target
    for wrong in ({"outbound_secret": None}, {"outbound_secret": ""}, {"outbound_secret_file": file}):
        with pytest.raises(Stop, match="either EARLY_KILL_OUTBOUND_SECRET or EARLY_KILL_OUTBOUND_SECRET_FILE"):
            target_of(settings(**wrong))
    with pytest.raises(Stop, match="EARLY_KILL_OUTBOUND_SECRET_FILE cannot be read: No such file"):
        target_of(settings(outbound_secret=None, outbound_secret_file=tmp_path / "nothing"))


def test_a_secret_has_16_characters_or_more():
    """15 are too few."""
    with pytest.raises(Stop, match="16 characters or more") as caught:
        target_of(settings(outbound_secret=SECRET[:15]))
    assert SECRET[:15] not in str(caught.value)


def test_a_key_is_the_same_wherever_it_is_worked_out():
    """It depends on event, kill and target, and on nothing else."""
    kill = uuid.UUID("f4dda470-6bc4-5d7e-afae-6c3e434c141f")
    key = idempotency_key("variant_killed", kill, "https://receiver.example")
    assert str(key) == "d5a11d06-7cb3-50a8-9493-83d37e58592a"
    others = {idempotency_key("variant_revived", kill, "https://receiver.example"), idempotency_key("variant_killed", kill, "https://other.example")}
    assert len(others | {key}) == 3


def test_the_verification_in_the_docs_takes_what_is_signed_and_nothing_else():
    """The example is run as it stands."""
    [example] = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "outbound.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)  # noqa: S102 - the project's own docs
    is_genuine, body, now = names["is_genuine"], b'{"event": "variant_killed"}', 1_800_000_000
    signed = signature(SECRET, now, body)
    assert is_genuine(body, str(now), signed, SECRET, now=now + 300)
    assert is_genuine(body, str(now), signed, SECRET, now=now - 300)
    assert not is_genuine(body, str(now), signed, SECRET, now=now + 301)
    assert not is_genuine(body, str(now + 1), signed, SECRET, now=now)
    assert not is_genuine(body + b" ", str(now), signed, SECRET, now=now)
    assert not is_genuine(body, str(now), signed, SECRET + "x", now=now)
    for timestamp, given in ((None, signed), ("", signed), ("soon", signed), (str(now), None), (str(now), ""), (str(now), "v1=é")):
        assert not is_genuine(body, timestamp, given, SECRET, now=now)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0),
        (" 120 ", 120),
        ("999999999999999999999", 999_999_999),
        ("Fri, 15 Jan 2027 08:00:30 GMT", 30),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0),
        ("Fri Jan 15 08:00:30 2027", 30),
        ("Fri Jan  1 08:00:30 2027", 0),
        ("-1", None),
        ("soon", None),
        ("", None),
        ("1.5", None),
        ("٣", None),
        ("Fri, 99 Jan 2027 08:00:30 GMT", None),
    ],
)
@pytest.mark.usefixtures("far_from_greenwich")
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None):
    """Or nothing that is heeded. A date that names no zone is of UTC, wherever this machine stands."""
    assert retry_after_seconds(header, NOW_US) == seconds


@pytest.mark.parametrize(
    ("attempt", "jitter", "retry_after", "seconds"),
    [
        (1, 1.0, None, 1),
        (2, 1.0, None, 2),
        (9, 1.0, None, 256),
        (10, 1.0, None, 300),
        (10_000, 1.0, None, 300),
        (10_000, 0.5, None, 150),
        (5, 0.0, None, 0),
        (1, 0.0, 7.0, 7),
        (2, 1.0, 9_999.0, 3_602),
    ],
)
def test_pauses_double_from_a_second_to_five_minutes(attempt: int, jitter: float, retry_after: float | None, seconds: float):
    """With full jitter, and on top of what the receiver asks for, which is heeded up to an hour."""
    assert pause_seconds(attempt, jitter, retry_after) == pytest.approx(seconds)


async def test_a_chore_waits_out_an_outage_and_stops_at_a_mistake(caplog: pytest.LogCaptureFixture):
    """One line when it begins, one when it is over; what cannot be waited out is handed on, and the chore is over."""
    caplog.set_level("INFO")
    script: list[Exception | float] = [0.5, Retry("away"), Reject("refused"), 0.5, Stop("wrong")]
    pauses: list[float] = []
    failures: list[BaseException] = []

    async def step() -> float:
        outcome = script.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    await keep_doing("the sweep", step, failures.append, sleep)
    assert pauses == [0.5, AWAY_SECONDS, AWAY_SECONDS, 0.5]
    assert [str(failure) for failure in failures] == ["wrong"]
    assert [record.getMessage() for record in caplog.records] == ["the sweep has to wait: away", "the sweep goes on"]


def test_settings_do_not_show_the_secret_or_the_url():
    """However they are printed."""
    shown = repr(settings("https://receiver.example/hidden"))
    assert SECRET not in shown
    assert "hidden" not in shown
    assert isinstance(settings().outbound_url, SecretStr)

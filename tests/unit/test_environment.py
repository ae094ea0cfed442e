"""The settings of a process, as it finds them in its environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.errors import Stop
from streams.environment import load_settings
from streams.integration import EventPublisher, KillSubscriber, on_variant_posted
from streams.settings import Settings


@pytest.mark.parametrize(
    "use", [lambda: on_variant_posted({}), EventPublisher, lambda: KillSubscriber(group_id="g")], ids=["on_variant_posted", "EventPublisher", "KillSubscriber"]
)
def test_a_library_names_the_wrong_variable_and_not_its_value(monkeypatch: pytest.MonkeyPatch, use: object) -> None:
    """It may be a secret, and the error may be logged by the program that it is raised in."""
    monkeypatch.setenv("DATABASE_URL", "mysql://x:hidden-word@host/db")
    with pytest.raises(Stop, match=r"^DATABASE_URL: must start with postgresql://$") as caught:
        use()  # type: ignore[operator]
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_no_error_of_the_settings_themselves_shows_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody may read them without ``load_settings``."""
    monkeypatch.setenv("EARLY_KILL_MIN_INTERACTIONS", "hidden-word")
    with pytest.raises(ValueError, match="min_interactions") as caught:
        Settings()
    assert "hidden-word" not in str(caught.value)


@pytest.mark.parametrize(
    ("prefix", "named", "group"), [("", None, "early-kill"), ("a.", None, "a.early-kill"), ("a.", "mine", "mine"), ("", "mine", "mine")], ids=["plain", "prefix", "both", "named"]
)
def test_a_topic_prefix_alone_keeps_two_systems_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, prefix: str, named: str | None, group: str) -> None:
    """Their consumer groups and states too, unless a group is named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EARLY_KILL_TOPIC_PREFIX", prefix)
    if named is not None:
        monkeypatch.setenv("EARLY_KILL_APP_ID", named)
    assert load_settings().app_id == group

"""Kafka's jars: pinned, checked, and told about when they are missing."""

import hashlib
from pathlib import Path

import pytest

from models.errors import Stop
from streams.local import fetch as module
from streams.local.fetch import Jar, classpath, fetch, listed, parse


@pytest.fixture
def one_jar(monkeypatch: pytest.MonkeyPatch) -> Jar:
    """The list, reduced to one small file."""
    jar = Jar("org.example", "thing", "1.0", hashlib.sha256(b"right").hexdigest())
    monkeypatch.setattr(module, "listed", lambda: [jar])
    return jar


def served(monkeypatch: pytest.MonkeyPatch, *contents: bytes) -> list[bytes]:
    """Let the repository answer with these, one a request; returns those not asked for yet."""
    left = list(contents)

    def resolve(jar: Jar, scratch: Path) -> Path:
        path = scratch / f"got-{jar.filename}"
        path.write_bytes(left.pop(0))
        return path

    monkeypatch.setattr(module, "_resolve", resolve)
    return left


def test_every_jar_is_pinned_by_a_whole_hash():
    """Coordinates are complete and no file is listed twice."""
    jars = listed()
    assert all(len(jar.sha256) == 64 and jar.group and jar.version for jar in jars)
    assert len({jar.filename for jar in jars}) == len(jars)


def test_broker_and_client_are_of_one_version():
    """A logging BOM would pull the client down, and Kafka would not start."""
    versions = {jar.artifact: jar.version for jar in listed()}
    assert versions["kafka_2.13"] == versions["kafka-clients"] == "4.3.1"


def test_missing_jars_are_told_with_the_command_that_brings_them(tmp_path: Path):
    """In one line."""
    with pytest.raises(Stop, match=r"not installed.*make install"):
        classpath(tmp_path)


def test_a_jar_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_jar: Jar):
    """What is there and right is not asked for again."""
    served(monkeypatch, b"right")
    assert fetch(tmp_path) == 1
    assert fetch(tmp_path) == 0
    assert classpath(tmp_path) == str(tmp_path / one_jar.filename)


def test_a_damaged_jar_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_jar: Jar):
    """A half-written file of a crash mends itself."""
    (tmp_path / one_jar.filename).write_bytes(b"ri")
    served(monkeypatch, b"right")
    assert fetch(tmp_path) == 1
    assert (tmp_path / one_jar.filename).read_bytes() == b"right"


def test_a_truncated_download_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_jar: Jar):
    """Networks do that."""
    served(monkeypatch, b"ri", b"right")
    assert fetch(tmp_path) == 1
    assert (tmp_path / one_jar.filename).is_file()


def test_another_file_than_the_pinned_one_is_never_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_jar: Jar):
    """After four tries it is an error that names the jar, and nothing is left behind."""
    left = served(monkeypatch, *[b"wrong"] * 5)
    with pytest.raises(Stop, match=f"cannot fetch org.example:{one_jar.artifact}:1.0: its SHA-256 is not the pinned one"):
        fetch(tmp_path)
    assert len(left) == 1
    assert list(tmp_path.iterdir()) == []


def test_other_jars_than_the_brokers_can_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """From a list of the same form: the benchmarks have one."""
    served(monkeypatch, b"right")
    jars = parse(f"# comment\n{hashlib.sha256(b'right').hexdigest()}  org.example:other:2.0\n")
    assert fetch(tmp_path, jars) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["other-2.0.jar"]

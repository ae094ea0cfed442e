"""Secrets in files, and where each may come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.errors import Stop
from streams.kafka_access import kafka_client_options
from streams.secret_files import LONGEST_BYTES, read_secret, read_tokens
from streams.settings import Settings

SASL = {"kafka_security_protocol": "SASL_PLAINTEXT", "kafka_sasl_username": "me"}


def secret(path: Path, content: bytes = b"a secret\n", mode: int = 0o600) -> Path:
    """A file that holds it."""
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
def test_the_owner_and_its_group_may_read_a_secret(tmp_path: Path, mode: int):
    """Systems that hand secrets out do it either way. Blanks around it are none of it."""
    assert read_secret(secret(tmp_path / "file", b" a secret\r\n", mode), "NAME") == "a secret"


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o601, 0o620, 0o660, 0o777])
def test_others_may_not(tmp_path: Path, mode: int):
    """One line says what to do, and quotes nothing."""
    with pytest.raises(Stop, match=rf"NAME: other users can get at .*file \(mode {mode:04o}\): chmod 600 it") as caught:
        read_secret(secret(tmp_path / "file", mode=mode), "NAME")
    assert "a secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "there is nothing in"),
        (b" \n", "there is nothing in"),
        (b"\xff", "not UTF-8"),
        (b"x" * (LONGEST_BYTES + 1), "longer than 65,536 bytes"),
        ("é".encode() * LONGEST_BYTES, "longer than 65,536 bytes"),
    ],
)
def test_a_file_without_a_secret_is_refused(tmp_path: Path, content: bytes, says: str):
    """So is one that is not a file at all."""
    with pytest.raises(Stop, match=says):
        read_secret(secret(tmp_path / "file", content), "NAME")
    with pytest.raises(Stop, match="NAME cannot be read: Is a directory"):
        read_secret(tmp_path, "NAME")


def test_a_secret_on_the_bound_is_read(tmp_path: Path):
    """64 KiB."""
    assert len(read_secret(secret(tmp_path / "file", b"x" * LONGEST_BYTES), "NAME")) == LONGEST_BYTES


def test_tokens_stand_on_lines(tmp_path: Path):
    """Empty ones are none."""
    assert read_tokens(secret(tmp_path / "file", b"a\n\n b \r\na\n"), "NAME") == {"a", "b"}


def test_the_database_url_comes_from_one_place(tmp_path: Path):
    """The environment or a file, not both; what is in the file is checked like the other."""
    file = secret(tmp_path / "file", b"postgres://me:word@db/x\n")
    assert Settings.model_validate({"database_url_file": file}).sqlalchemy_url == "postgresql+psycopg://me:word@db/x"
    assert Settings.model_validate({"database_url_file": "", "database_url": "postgresql://db/y"}).sqlalchemy_url == "postgresql+psycopg://db/y"
    with pytest.raises(Stop, match="set either DATABASE_URL or DATABASE_URL_FILE"):
        _ = Settings.model_validate({"database_url_file": file, "database_url": "postgresql://db/y"}).sqlalchemy_url
    with pytest.raises(Stop, match="DATABASE_URL_FILE: the URL in it must start with postgresql://") as caught:
        _ = Settings.model_validate({"database_url_file": secret(file, b"mysql://me:word@db/x")}).sqlalchemy_url
    assert "word" not in str(caught.value)


def test_the_kafka_password_comes_from_one_place(tmp_path: Path):
    """As above."""
    file = secret(tmp_path / "file")
    assert kafka_client_options(Settings.model_validate({**SASL, "kafka_sasl_password_file": file}))["sasl_plain_password"] == read_secret(file, "")
    assert kafka_client_options(Settings.model_validate({**SASL, "kafka_sasl_password_file": file, "kafka_sasl_password": ""}))["sasl_plain_password"] == read_secret(file, "")
    with pytest.raises(Stop, match="set either KAFKA_SASL_PASSWORD or KAFKA_SASL_PASSWORD_FILE"):
        kafka_client_options(Settings.model_validate({**SASL, "kafka_sasl_password_file": file, "kafka_sasl_password": "x"}))


def test_settings_can_be_shown():
    """In whatever way somebody prints them."""
    words = {"database_url": "postgresql://me:hidden-1@db/x", "kafka_sasl_password": "hidden-2", "read_tokens": ["hidden-3"], "operate_tokens": ["hidden-4"]}
    settings = Settings.model_validate({**words, "outbound_url": "https://there/hidden-5", "outbound_secret": "hidden-6 and some more"})
    for shown in (repr(settings), str(settings), f"{settings.model_dump()}", settings.model_dump_json()):
        assert "hidden" not in shown

"""What commands print: one line each, whatever stands in it."""

from __future__ import annotations

import json

import pytest

from streams.commands.common import put, put_json, shown, tell

HOSTILE = ("\x1b[31mred", "two\nKILLED lines", "back\rspace\x08", "\x7f", "\x9b2J", "\u202eturned", "\u2028", "\u200b", "\U000e0001", "\ud800")


@pytest.mark.parametrize("text", HOSTILE)
def test_no_character_steers_a_terminal(text: str):
    """Neither in a line for people nor in JSON, which says the same afterwards."""
    assert shown(text).isprintable()
    line = json.dumps({"variant_id": text}, ensure_ascii=False)
    assert shown(line).isprintable()
    assert json.loads(shown(line)) == {"variant_id": text}


def test_what_can_be_printed_stays_as_it_is():
    """In any script."""
    assert shown("dana-ümläut-絵文字-🎉  |  3.0%") == "dana-ümläut-絵文字-🎉  |  3.0%"


def test_commands_print_one_line_for_each_result(capsys: pytest.CaptureFixture[str]):
    """To stdout and to stderr."""
    put("a\nb")
    put_json({"a": "\x9b\n"})
    tell("one\x1b\ntwo")
    out, err = capsys.readouterr()
    assert out == 'a\\u000ab\n{"a":"\\u009b\\n"}\n'
    assert err == "one\\u001b\ntwo\n"

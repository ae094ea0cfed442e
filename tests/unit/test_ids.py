"""Ids never change: topics, tables and subscribers hold them."""

from __future__ import annotations

from models import ids


def test_ids_are_what_they_have_always_been() -> None:
    """Pinned: a change would end sessions a second time."""
    session = ids.session_id("v1", "p1")
    assert str(session) == "bf89a034-ab08-56bd-bd29-525e46d0ab32"
    assert str(ids.kill_id(session)) == "91eb78f8-8f91-5146-9151-fd7121fc9cb9"
    assert str(ids.record_id(session, "started")) == "4640b061-8087-5d32-b67b-03c47fc5d7d2"
    assert str(ids.session_id("vé 😀", "p")) == "35cc76a5-9f1b-571e-9689-a584d6a1680d"
    assert ids.event_hash("e1") == 2269290854245001967


def test_a_session_is_named_by_a_compact_json_array_in_utf8() -> None:
    """Not escaped, so that anybody can work it out in any language."""
    assert ids.session_key("vé", 'p"1') == '["vé","p\\"1"]'


def test_ids_do_not_run_into_each_other() -> None:
    """Where one id ends and the next begins is part of the name."""
    assert ids.session_id("a", "b,c") != ids.session_id("a,b", "c")
    assert ids.session_id("a", "b") != ids.session_id("b", "a")
    session = ids.session_id("a", "b")
    assert len({session, ids.kill_id(session), *(ids.record_id(session, kind) for kind in ("started", "killed", "timed_out", "stopped"))}) == 6

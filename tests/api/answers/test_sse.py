"""Server-sent events."""

from __future__ import annotations

from plato.api.answers import sse


def test_an_event_ends_with_a_blank_line() -> None:
    assert sse.event('{"a": "é"}') == 'data: {"a": "é"}\n\n'.encode()


def test_every_line_of_the_data_has_its_own_field() -> None:
    assert sse.event("a\nb") == b"data: a\ndata: b\n\n"


def test_an_event_has_its_type_and_its_id() -> None:
    assert sse.event("a", name="end", id="1-2") == b"id: 1-2\nevent: end\ndata: a\n\n"


def test_a_ping_is_a_comment() -> None:
    assert sse.PING.startswith(b":")
    assert sse.PING.endswith(b"\n\n")

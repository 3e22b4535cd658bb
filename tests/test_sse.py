"""Events are found however the bytes are cut, and what is no event stream is an error."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plato import sse
from plato.sse import EventParser, EventStreamError

STREAM = (
    ': ping\n\nevent: x\ndata: {"a": "é"}\n\ndata:1\r\n\r\nid: 7\nretry: 1\n\ndata: a\ndata: b\n\n'
)
EVENTS = ['{"a": "é"}', "1", "a\nb"]


@given(st.lists(st.integers(0, len(STREAM.encode())), max_size=8))
def test_events_do_not_depend_on_how_bytes_are_cut(cuts: list[int]) -> None:
    content = STREAM.encode()
    edges = [0, *sorted(cuts), len(content)]
    parser = EventParser()
    pieces = (content[start:stop] for start, stop in pairwise(edges))
    assert [event for piece in pieces for event in parser.feed(piece)] == EVENTS
    assert not parser.within_event


@pytest.mark.parametrize("rest", [b"d", b"data: {", b"data: {}\n"])
def test_an_event_that_has_begun_is_known(rest: bytes) -> None:
    parser = EventParser()
    assert parser.feed(b"data: 1\n\n" + rest) == ["1"]
    assert parser.within_event


@pytest.mark.parametrize(
    "garbage", [b"<html>\n", b'{"error": "x"}\n', b"data: \xff\xfe\n", b"Internal Server Error\n"]
)
def test_garbage_is_shown_in_the_error(garbage: bytes) -> None:
    with pytest.raises(EventStreamError, match="no stream of server-sent events") as raised:
        EventParser().feed(garbage)
    assert repr(garbage.strip())[:10] in str(raised.value)


def test_lines_and_events_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 20)
    with pytest.raises(EventStreamError, match="longer than 20 bytes"):
        EventParser().feed(b"data: " + b"x" * 20)
    with pytest.raises(EventStreamError, match="longer than 20 bytes"):
        EventParser().feed(b"data: 1234\n" * 3)

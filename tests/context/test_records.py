import msgpack
import pytest

from plato.context import NodeRecord, RunRecord
from plato.context.records import (
    VERSION,
    KVEventRecord,
    UnreadableRecordError,
    pack,
    pack_events,
    unpack,
    unpack_events,
)
from plato.engine import SamplingParams
from plato.runs import Mode, RunRequest

from .examples import CHANGE, EVENTS, NODE, REQUEST, RUN

SMALLEST = RunRequest("r", (), Mode.AUTO, SamplingParams(), max_nodes=2, deadline_s=1.0)


@pytest.mark.parametrize("record", [RUN, NODE, CHANGE, REQUEST, SMALLEST])
def test_a_record_comes_back_as_it_was(record):
    assert unpack(type(record), pack(record)) == record


def test_nested_values_come_back_with_their_types():
    request = unpack(RunRequest, pack(REQUEST))
    assert request.mode is REQUEST.mode
    assert isinstance(request.sampling.penalty_exempt, frozenset)
    assert isinstance(request.plan, tuple)
    assert request.plan[1].dependencies == (1,)
    assert unpack(RunRecord, pack(RUN)).request == RUN.request


def test_the_version_stands_in_front():
    assert msgpack.unpackb(pack(CHANGE))[0] == VERSION


def test_a_record_of_another_version_is_unreadable():
    _, kind, fields = msgpack.unpackb(pack(NODE))
    with pytest.raises(UnreadableRecordError, match="version 99"):
        unpack(NodeRecord, msgpack.packb([99, kind, fields]))


def test_a_record_of_another_kind_is_unreadable():
    with pytest.raises(UnreadableRecordError, match="NodeRecord"):
        unpack(RunRecord, pack(NODE))


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"garbage",
        b"\xc1",
        pack(CHANGE)[:-1],
        pack(CHANGE) + b"\x00",
        msgpack.packb(7),
        msgpack.packb([VERSION, "KVEventRecord", {"replica": "r"}]),
        msgpack.packb([VERSION, "KVEventRecord", 7]),
        msgpack.packb({"version": VERSION}),
    ],
)
def test_garbage_is_unreadable(garbage):
    with pytest.raises(UnreadableRecordError):
        unpack(KVEventRecord, garbage)


def test_equal_records_give_equal_bytes():
    assert pack(REQUEST) == pack(unpack(RunRequest, pack(REQUEST)))


def test_events_of_every_kind_come_back_as_they_were_with_their_ids():
    events = unpack_events(pack_events(EVENTS))
    assert events == EVENTS
    assert [event.id for event in events] == [event.id for event in EVENTS]
    assert [type(event) for event in events] == [type(event) for event in EVENTS]


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        pack(NODE),
        pack_events(EVENTS)[:-1],
        msgpack.packb([VERSION, "events", [["Nothing", {}]]]),
        msgpack.packb([VERSION, "events", [["NodeOutput", {}]]]),
        msgpack.packb([VERSION + 1, "events", []]),
    ],
)
def test_garbage_is_no_events(garbage):
    with pytest.raises(UnreadableRecordError):
        unpack_events(garbage)

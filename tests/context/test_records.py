import msgpack
import pytest

from plato.context import KVHandle, NodeRecord, RunRecord
from plato.context.records import VERSION, UnreadableRecordError, pack, unpack
from plato.runs import RunRequest

from .examples import HANDLE, NODE, REQUEST, RUN


@pytest.mark.parametrize("record", [RUN, NODE, HANDLE, REQUEST, RunRequest("r", ())])
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
    assert msgpack.unpackb(pack(HANDLE))[0] == VERSION


def test_a_record_of_another_version_is_unreadable():
    _, kind, fields = msgpack.unpackb(pack(NODE))
    with pytest.raises(UnreadableRecordError, match="version 2"):
        unpack(NodeRecord, msgpack.packb([2, kind, fields]))


def test_a_record_of_another_kind_is_unreadable():
    with pytest.raises(UnreadableRecordError, match="NodeRecord"):
        unpack(RunRecord, pack(NODE))


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"garbage",
        b"\xc1",
        pack(HANDLE)[:-1],
        pack(HANDLE) + b"\x00",
        msgpack.packb(7),
        msgpack.packb([VERSION, "KVHandle", {"chain": b"c"}]),
        msgpack.packb([VERSION, "KVHandle", 7]),
        msgpack.packb({"version": VERSION}),
    ],
)
def test_garbage_is_unreadable(garbage):
    with pytest.raises(UnreadableRecordError):
        unpack(KVHandle, garbage)


def test_equal_records_give_equal_bytes():
    assert pack(REQUEST) == pack(unpack(RunRequest, pack(REQUEST)))

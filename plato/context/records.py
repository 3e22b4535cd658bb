"""Serialisation of records in the store: msgpack with a version.

A packed record is the list `[version, kind, fields]`. Raise the version whenever the fields of a
kind change their meaning; records with another version are treated as unreadable. So two releases
can share a store, each ignoring the records of the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import msgpack
from pydantic import TypeAdapter

from plato.context.protocol import NodeRecord, RunRecord
from plato.engine import KVEventBatch
from plato.runs import (
    Event,
    ModeChosen,
    NodeCancelled,
    NodeFailed,
    NodeFinished,
    NodeOutput,
    NodePlanned,
    NodeQueued,
    NodeStarted,
    PlanFinished,
    RunEvent,
    RunFailed,
    RunFinished,
    RunRequest,
)

VERSION = 7


@dataclass(frozen=True, slots=True)
class KVEventRecord:
    """A batch of KV events of one replica and epoch."""

    replica: str
    epoch: str
    batch: KVEventBatch


EVENTS = "events"

Record = TypeVar("Record", RunRecord, NodeRecord, KVEventRecord, RunRequest)

_ADAPTERS: dict[type, TypeAdapter[Any]] = {
    kind: TypeAdapter(kind) for kind in (RunRecord, NodeRecord, KVEventRecord, RunRequest)
}
_EVENT_KINDS: dict[str, type[Event]] = {
    kind.__name__: kind
    for kind in (
        ModeChosen,
        NodePlanned,
        PlanFinished,
        NodeQueued,
        NodeStarted,
        NodeOutput,
        NodeFinished,
        NodeFailed,
        NodeCancelled,
        RunFinished,
        RunFailed,
    )
}
_EVENT_ADAPTERS: dict[str, TypeAdapter[Any]] = {
    name: TypeAdapter(kind) for name, kind in _EVENT_KINDS.items()
}


class UnreadableRecordError(ValueError):
    """The bytes are not a record of this version and kind."""


def pack(record: RunRecord | NodeRecord | KVEventRecord | RunRequest) -> bytes:
    """Serialise `record`; equal records give equal bytes."""
    kind = type(record)
    fields = _ADAPTERS[kind].dump_python(record)
    packed: bytes = msgpack.packb([VERSION, kind.__name__, fields], default=_plain)
    return packed


def unpack(kind: type[Record], data: bytes) -> Record:
    """Deserialise a record of `kind`. Raises `UnreadableRecordError`."""
    try:
        version, name, fields = msgpack.unpackb(data)
        if (version, name) != (VERSION, kind.__name__):
            raise UnreadableRecordError(
                f"{name!r}, version {version!r}, instead of {kind.__name__!r}, version {VERSION}"
            )
        record: Record = _ADAPTERS[kind].validate_python(fields)
    except UnreadableRecordError:
        raise
    except (ValueError, TypeError) as error:
        # ValueError includes the format errors of msgpack and the validation errors of pydantic.
        raise UnreadableRecordError(
            f"unreadable {kind.__name__}: {type(error).__name__}"
        ) from error
    return record


def pack_events(events: tuple[RunEvent, ...]) -> bytes:
    """Serialise events of a run."""
    fields = []
    for event in events:
        name = type(event).__name__
        fields.append([name, _EVENT_ADAPTERS[name].dump_python(event)])
    packed: bytes = msgpack.packb([VERSION, EVENTS, fields], default=_plain)
    return packed


def unpack_events(data: bytes) -> tuple[RunEvent, ...]:
    """Deserialise events. Raises `UnreadableRecordError`."""
    try:
        version, name, fields = msgpack.unpackb(data)
        if (version, name) != (VERSION, EVENTS):
            raise UnreadableRecordError(
                f"{name!r}, version {version!r}, instead of {EVENTS!r}, version {VERSION}"
            )
        return tuple(_EVENT_ADAPTERS[kind].validate_python(event) for kind, event in fields)
    except UnreadableRecordError:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise UnreadableRecordError(f"unreadable events: {type(error).__name__}") from error


def _plain(value: object) -> object:
    if isinstance(value, frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} cannot be packed")

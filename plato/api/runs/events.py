"""The events of a run as JSON, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import MISSING
from typing import Any, Literal, get_type_hints

from pydantic import TypeAdapter, create_model

from plato.api.wire import AnswerModel
from plato.runs import (
    Event,
    EventId,
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
)

_EVENT_TYPES: dict[type[Event], str] = {
    ModeChosen: "mode_chosen",
    NodePlanned: "node_planned",
    PlanFinished: "plan_finished",
    NodeQueued: "node_queued",
    NodeStarted: "node_started",
    NodeOutput: "node_output",
    NodeFinished: "node_finished",
    NodeFailed: "node_failed",
    NodeCancelled: "node_cancelled",
}
_EVENT_KINDS = {name: kind for kind, name in _EVENT_TYPES.items()}
_ADAPTERS: dict[type[Event], TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in _EVENT_TYPES}


def _described_type(kind: type[Event], name: str) -> type[AnswerModel]:
    """The type of what `describe_event` gives for events of one kind."""
    hints = get_type_hints(kind)
    fields: dict[str, Any] = {
        field.name: (hints[field.name], ... if field.default is MISSING else field.default)
        for field in dataclasses.fields(kind)
    }
    del fields["run_id"]
    fields |= {"type": (Literal[name], ...), "run": (str, ...), "id": (str, ...)}
    described: type[AnswerModel] = create_model(
        kind.__name__, __base__=AnswerModel, __doc__=(kind.__doc__ or "").strip(), **fields
    )
    return described


DESCRIBED_TYPES = tuple(_described_type(kind, name) for kind, name in _EVENT_TYPES.items())
"""For the OpenAPI document."""


def describe_event(event: Event) -> dict[str, Any] | None:
    """An event as JSON values with its `type`; None for the end of a run, reported elsewhere."""
    kind = type(event)
    if kind not in _EVENT_TYPES:
        return None
    fields: dict[str, Any] = _ADAPTERS[kind].dump_python(event, mode="json")
    run_id = fields.pop("run_id")
    return {"type": _EVENT_TYPES[kind], "run": run_id, **fields, "id": str(event.id)}


def read_event(described: Mapping[str, Any]) -> RunEvent | None:
    """The inverse of `describe_event`; None for an unknown type."""
    kind = _EVENT_KINDS.get(described["type"])
    if kind is None:
        return None
    fields = {**described, "run_id": described["run"], "id": EventId.parse(described["id"])}
    event: RunEvent = _ADAPTERS[kind].validate_python(fields)
    return event

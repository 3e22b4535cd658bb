"""The events of a run as a stream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal, Union

from plato.api.answers import sse
from plato.api.errors import ErrorBody, error_text
from plato.api.runs.events import DESCRIBED_TYPES, describe_event
from plato.api.runs.object import RunObject
from plato.api.wire import AnswerModel
from plato.errors import PlatoError
from plato.runs import EventId, RunEvent, RunFinished, RunState


class RunEnd(AnswerModel):
    """The last event of a run."""

    type: Literal["run_finished", "run_failed"]
    id: str
    run: RunObject
    text: str
    text_offset: int


STREAMED: Any = Union[(*DESCRIBED_TYPES, RunEnd, ErrorBody)]
"""The type of the data of all events."""


def event_data(event: RunEvent, state: RunState, model: str) -> dict[str, Any]:
    """The `data` of the last event of `state`: its `type`, its fields, and the text it releases.

    `text` begins at byte (UTF-8) `text_offset` of the answer, at which clients cut theirs; after
    a takeover a client that reconnects may get some text again.
    """
    described = describe_event(event)
    if described is not None:
        return described
    return RunEnd(
        type="run_finished" if isinstance(event, RunFinished) else "run_failed",
        id=str(event.id),
        run=RunObject.of(state, model),
        text=event.text,
        text_offset=event.text_offset,
    ).model_dump(mode="json")


class RunStream:
    """A `StreamFormat`, which can resume behind any event."""

    def __init__(self, state: RunState, model: str, after: EventId) -> None:
        """Of the run of `state`, which is fed by its owner; only events after `after` are sent."""
        self._state = state
        self._model = model
        self._after = after

    def begin(self) -> Iterator[bytes]:
        """See `StreamFormat`."""
        return iter(())

    def follow(self, event: RunEvent) -> Iterator[bytes]:
        """See `StreamFormat`."""
        if event.id > self._after:
            data = event_data(event, self._state, self._model)
            yield sse.event(json.dumps(data), name=data["type"], id=data["id"])

    def fail(self, error: PlatoError) -> bytes:
        """See `StreamFormat`."""
        return sse.event(error_text(error), name="error")

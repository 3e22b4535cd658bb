"""Runs over HTTP: a run as an object, and its events as they can be resumed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from plato.answering import Answering
from plato.api import sse
from plato.api.errors import RunError, error_body
from plato.api.responses import PlatoInfo, Usage, describe_event
from plato.composing import AnswerFinish
from plato.runs import EventId, RunEvent, RunFailed, RunFinished

RunStatus = Literal["running", "done", "failed", "cancelled"]


class RunObject(BaseModel):
    """What `/v1/runs/{id}` shows."""

    id: str
    object: Literal["run"] = "run"
    status: RunStatus
    model: str
    answer: str
    """The text so far."""
    finish_reason: AnswerFinish | None = None
    """Set when it is done."""
    error: dict[str, str | None] | None = None
    """Set when it has failed or was cancelled; as in the body of an error."""
    usage: Usage | None = None
    """Set when it is done."""
    plato: PlatoInfo


@dataclass(frozen=True, slots=True)
class RunResponse:
    """Builds the bodies about one run."""

    model: str
    answering: Answering

    def run(self) -> RunObject:
        """The run as it stands."""
        answering = self.answering
        ended = answering.ended
        fields: dict[str, Any] = {"status": "running"}
        if isinstance(ended, RunFinished):
            answer = answering.answer()
            fields = {
                "status": "done",
                "finish_reason": answer.finish_reason,
                "usage": Usage.of(answer),
            }
        elif isinstance(ended, RunFailed):
            fields = {
                "status": "cancelled" if ended.code == "cancelled" else "failed",
                "error": error_body(RunError(ended))["error"],
            }
        report = answering.report
        return RunObject(
            id=report.run,
            model=self.model,
            answer=answering.text,
            plato=PlatoInfo.of_report(report, answering.first_text_s),
            **fields,
        )

    def take(self, event: RunEvent, after: EventId) -> bytes | None:
        """Take an event: it as a server-sent event, or `None` if `after` is behind it.

        `data` holds the event's `type` and fields, the `text` that it releases, and at which
        character of the answer that begins: a client that reconnects to a run whose scheduler has
        changed may get some of the text again, at its place.
        """
        offset = len(self.answering.text)
        text = self.answering.take(event)
        if event.id <= after:
            return None
        described = describe_event(event)
        if described is None:
            name = "run_finished" if isinstance(event, RunFinished) else "run_failed"
            run = self.run().model_dump(mode="json")
            described = {"type": name, "id": str(event.id), "run": run}
        described |= {"text": text, "text_offset": offset}
        return sse.event(json.dumps(described), name=described["type"], id=str(event.id))

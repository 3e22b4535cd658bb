"""The object of `/v1/runs/{id}`: a run, with everything that is known of it."""

from __future__ import annotations

from typing import Any, Literal

from plato.api.answers.run_info import PlatoInfo, Usage
from plato.api.errors import ErrorInfo
from plato.api.runs.list import RunStatus
from plato.api.wire import AnswerModel
from plato.runs import AnswerFinish, Mode, RunError, RunFailed, RunFinished, RunState


class RunOptions(AnswerModel):
    """What was asked for; how it is sampled is in `plato.sampling`."""

    mode: Mode
    max_nodes: int
    max_tokens: int | None
    stop: tuple[str, ...]
    headings: bool
    deadline_s: float


class RunObject(AnswerModel):
    """The body of `/v1/runs/{id}`."""

    id: str
    object: Literal["run"] = "run"
    status: RunStatus
    model: str
    created: int
    """Unix time in seconds."""
    question: str
    """The last message; only its beginning once the run has ended."""
    options: RunOptions
    metadata: dict[str, str]
    answer: str
    """The text so far."""
    texts: dict[int, str]
    """The text of every part so far, by its number."""
    finish_reason: AnswerFinish | None = None
    """Set if `done`."""
    error: ErrorInfo | None = None
    """Set if `failed` or `cancelled`; as in the body of an error."""
    usage: Usage | None = None
    """Set if `done`."""
    plato: PlatoInfo

    @classmethod
    def of(cls, state: RunState, model: str) -> RunObject:
        """Describe the current state of a run."""
        ended = state.ended
        fields: dict[str, Any] = {"status": "running"}
        if isinstance(ended, RunFinished):
            answer = state.answer()
            fields = {
                "status": "done",
                "finish_reason": answer.finish_reason,
                "usage": Usage.of(answer.report),
            }
        elif isinstance(ended, RunFailed):
            fields = {
                "status": "cancelled" if ended.code == "cancelled" else "failed",
                "error": ErrorInfo.of(RunError(ended)),
            }
        asked = state.request
        return cls(
            id=asked.run_id,
            model=model,
            created=int(asked.created_unix_s),
            question=asked.messages[-1].content,
            options=RunOptions.model_validate(asked),
            metadata=dict(asked.metadata),
            answer=state.text,
            texts={number: node.text for number, node in sorted(state.nodes.items())},
            plato=PlatoInfo.of(state.report()),
            **fields,
        )

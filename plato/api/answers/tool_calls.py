"""Tool calls in chat completions and responses; `questions.tools` says when there is one."""

from __future__ import annotations

from typing import Literal

from plato.api.wire import OMITTED, AnswerModel


class CalledFunction(AnswerModel):
    """The function that is called."""

    name: str
    arguments: str
    """JSON, which `max_tokens` can cut."""


class ToolCall(AnswerModel):
    """The only call of an answer."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class CalledFunctionDelta(AnswerModel):
    """What a chunk adds to it."""

    name: str | None = OMITTED
    """Only in the first chunk."""
    arguments: str = ""


class ToolCallDelta(AnswerModel):
    """What a chunk adds to the only call; its id and type are only in the first chunk."""

    index: Literal[0] = 0
    id: str | None = OMITTED
    type: Literal["function"] | None = OMITTED
    function: CalledFunctionDelta


def call_id(run_id: str) -> str:
    """The id of the call that is the answer of a run."""
    return f"call_{run_id}"

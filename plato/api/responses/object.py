"""The object of `/v1/responses`: a run, as OpenAI's clients of that endpoint read it."""

from __future__ import annotations

from typing import Any, Literal

from plato.api.answers.run_info import PlatoInfo, Usage
from plato.api.answers.tool_calls import call_id
from plato.api.wire import AnswerModel
from plato.errors import PlatoError
from plato.runs import Answer, RunError, RunFailed, RunReport, RunRequest, RunState

ResponseStatus = Literal["in_progress", "completed", "incomplete", "failed", "cancelled"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]
_ITEM_STATUS: dict[ResponseStatus, ItemStatus] = {
    "in_progress": "in_progress",
    "completed": "completed",
    "incomplete": "incomplete",
    "failed": "incomplete",
    "cancelled": "incomplete",
}
TOO_MANY_REQUESTS = 429


class InputTokensDetails(AnswerModel):
    """Details of the input tokens."""

    cached_tokens: int
    cache_write_tokens: Literal[0] = 0


class OutputTokensDetails(AnswerModel):
    """Details of the output tokens."""

    reasoning_tokens: int
    """Tokens of the plan."""


class ResponseUsage(AnswerModel):
    """The same as `Usage`, by other names."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int

    @classmethod
    def of(cls, report: RunReport) -> ResponseUsage:
        """The usage of a run that has ended."""
        usage = Usage.of(report)
        return cls(
            input_tokens=usage.prompt_tokens,
            input_tokens_details=InputTokensDetails(
                cached_tokens=usage.prompt_tokens_details.cached_tokens
            ),
            output_tokens=usage.completion_tokens,
            output_tokens_details=OutputTokensDetails(
                reasoning_tokens=usage.completion_tokens_details.reasoning_tokens
            ),
            total_tokens=usage.total_tokens,
        )


class OutputText(AnswerModel):
    """The text of the answer."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: tuple[()] = ()
    logprobs: tuple[()] = ()


class OutputMessage(AnswerModel):
    """The only output item of an answer in text."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    status: ItemStatus
    content: tuple[OutputText, ...]


class FunctionCall(AnswerModel):
    """The only output item of an answer that calls a function."""

    id: str
    type: Literal["function_call"] = "function_call"
    call_id: str
    name: str
    arguments: str
    """JSON, which `max_output_tokens` can cut."""
    status: ItemStatus


class NamedFunction(AnswerModel):
    """The function of a demanded call, as a `tool_choice` names it."""

    type: Literal["function"] = "function"
    name: str


class FunctionTool(NamedFunction):
    """The same among the tools."""

    parameters: None = None
    strict: Literal[True] = True


class ResponseObject(AnswerModel):
    """A run that is being answered, or has been.

    What is not stored of a request, and so could not be told later, is null.
    """

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: ResponseStatus
    model: str
    output: tuple[OutputMessage | FunctionCall, ...]
    error: dict[str, str] | None = None
    """Set if `failed`."""
    incomplete_details: dict[str, str] | None = None
    """Set if `incomplete`."""
    usage: ResponseUsage | None = None
    """Set if `completed` or `incomplete`."""
    metadata: dict[str, str]
    max_output_tokens: int | None
    temperature: float
    top_p: float
    instructions: None = None
    previous_response_id: None = None
    store: Literal[True] = True
    parallel_tool_calls: Literal[True] = True
    background: bool
    tool_choice: Literal["auto"] | NamedFunction = "auto"
    """The function whose call was demanded; `auto` if the answer is text."""
    tools: tuple[FunctionTool, ...] = ()
    """That function; others had no effect."""
    truncation: Literal["disabled"] = "disabled"
    plato: PlatoInfo | None = None

    @classmethod
    def of(cls, state: RunState, model: str) -> ResponseObject:
        """Describe the current state of a run."""
        info = PlatoInfo.of(state.report())
        if isinstance(state.ended, RunFailed):
            failed = cls.failed(state.request, model, state.text, RunError(state.ended))
            return failed.model_copy(update={"plato": info})
        if state.ended is not None:
            return cls.answered(state.request, model, state.answer())
        return cls.begun(state.request, model, state.text, plato=info)

    @classmethod
    def begun(
        cls,
        asked: RunRequest,
        model: str,
        text: str = "",
        status: ResponseStatus = "in_progress",
        **fields: Any,
    ) -> ResponseObject:
        """Describe a run with `text` so far."""
        item = output_item(asked, status, text)
        if asked.function is not None:
            fields["tool_choice"] = NamedFunction(name=asked.function)
            fields["tools"] = (FunctionTool(name=asked.function),)
        return cls(
            id=f"resp_{asked.run_id}",
            created_at=int(asked.created_unix_s),
            status=status,
            model=model,
            output=(item,) if text or status in ("completed", "incomplete") else (),
            metadata=dict(asked.metadata),
            max_output_tokens=asked.max_tokens,
            temperature=asked.sampling.temperature,
            top_p=asked.sampling.top_p,
            background=asked.detached,
            **fields,
        )

    @classmethod
    def answered(cls, asked: RunRequest, model: str, answer: Answer) -> ResponseObject:
        """Describe a run that went well."""
        cut = answer.finish_reason == "length"
        return cls.begun(
            asked,
            model,
            answer.text,
            "incomplete" if cut else "completed",
            incomplete_details={"reason": "max_output_tokens"} if cut else None,
            usage=ResponseUsage.of(answer.report),
            plato=PlatoInfo.of(answer.report),
        )

    @classmethod
    def failed(cls, asked: RunRequest, model: str, text: str, error: PlatoError) -> ResponseObject:
        """Describe a run that failed, or was cancelled, after `text`."""
        if error.code == "cancelled":
            return cls.begun(asked, model, text, "cancelled")
        code = "server_error" if error.status >= 500 else "invalid_prompt"
        if error.status == TOO_MANY_REQUESTS:
            code = "rate_limit_exceeded"
        reported = {"code": code, "message": error.message}
        return cls.begun(asked, model, text, "failed", error=reported)


def item_id(asked: RunRequest) -> str:
    """The id of the output item of a run."""
    return f"{'msg' if asked.function is None else 'fc'}_{asked.run_id}"


def output_item(
    asked: RunRequest, status: ResponseStatus, text: str | None
) -> OutputMessage | FunctionCall:
    """The output item of a run; a message without a text has no part yet."""
    if asked.function is not None:
        return FunctionCall(
            id=item_id(asked),
            call_id=call_id(asked.run_id),
            name=asked.function,
            arguments=text or "",
            status=_ITEM_STATUS[status],
        )
    return OutputMessage(
        id=item_id(asked),
        status=_ITEM_STATUS[status],
        content=() if text is None else (OutputText(text=text),),
    )

"""What every response says of its run: the usage, and the `plato` object."""

from __future__ import annotations

from typing import Any

from plato.api.wire import AnswerModel
from plato.runs import Mode, NodeReport, PlanReport, RunReport


class PromptTokensDetails(AnswerModel):
    """Details of the prompt tokens."""

    cached_tokens: int


class CompletionTokensDetails(AnswerModel):
    """Details of the completion tokens."""

    reasoning_tokens: int
    """Tokens of the plan."""


class Usage(AnswerModel):
    """What a caller is billed: the tokens of an ordinary answer, and those of the plan.

    The prompt is the caller's own conversation. Plan tokens count as completion tokens, as
    reasoning does at OpenAI. `Work` has everything else that the answer took.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails

    @classmethod
    def of(cls, report: RunReport) -> Usage:
        """The usage of a run that has ended."""
        completion = report.answer_tokens + report.plan.tokens
        return cls(
            prompt_tokens=report.conversation_tokens,
            completion_tokens=completion,
            total_tokens=report.billed_tokens,
            prompt_tokens_details=PromptTokensDetails(
                cached_tokens=report.conversation_cached_tokens
            ),
            completion_tokens_details=CompletionTokensDetails(reasoning_tokens=report.plan.tokens),
        )


class Work(AnswerModel):
    """Tokens that engines have processed for an answer, of the plan and all parts."""

    prompt_tokens: int
    cached_tokens: int
    """The part of `prompt_tokens` that was cached."""
    output_tokens: int
    """Decoded tokens of the parts, including what is not in the answer."""
    plan_tokens: int

    @classmethod
    def of(cls, report: RunReport) -> Work:
        """The work of a run, ended or not."""
        return cls(
            prompt_tokens=report.prompt_tokens,
            cached_tokens=report.cached_tokens,
            output_tokens=report.output_tokens,
            plan_tokens=report.plan.tokens,
        )


class Graph(AnswerModel):
    """The plan graph and the state of every node."""

    nodes: tuple[NodeReport, ...]


class Timings(AnswerModel):
    """Seconds."""

    duration_s: float
    first_text_s: float | None
    """Until the first text of the answer could be shown."""
    plan_s: float
    """Decoding of the plan, its prompt included."""


class Sampling(AnswerModel):
    """How the answer was sampled: the request's parameters, else the deployment's.

    Sent as a request's fields, they give the same text again.
    """

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    seed: int


class PlatoInfo(AnswerModel):
    """The `plato` object of a response."""

    run: str
    mode: Mode
    requested_mode: Mode
    reason: str | None
    """Why the mode is not the requested one, or how `auto` decided."""
    plan: PlanReport
    graph: Graph
    timings: Timings
    sampling: Sampling
    usage: Work
    degraded: tuple[str, ...]
    """Services that were unavailable during the run."""
    ignored: tuple[str, ...] = ()
    """Names of the request's parameters that had no effect; see `plato.api.questions.schemas`."""

    @classmethod
    def of(cls, report: RunReport) -> PlatoInfo:
        """Describe a run, ended or not."""
        return cls(
            run=report.run_id,
            mode=report.mode,
            requested_mode=report.requested_mode,
            reason=report.reason,
            plan=report.plan,
            graph=Graph(nodes=report.nodes),
            timings=Timings(
                duration_s=report.duration_s,
                first_text_s=report.first_text_s,
                plan_s=report.plan.finished_s - report.plan.started_s,
            ),
            sampling=Sampling.model_validate(report.sampling),
            usage=Work.of(report),
            degraded=report.degraded,
            ignored=report.ignored,
        )


class PlatoEvent(AnswerModel):
    """The `plato` object of a chunk that reports an event."""

    event: dict[str, Any]
    """`type` (for example `node_started`) and the fields of that event in `plato.runs`."""

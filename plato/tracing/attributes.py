"""Names and values of span attributes; docs/tracing.md lists them.

`gen_ai.*` and `error.type` are OpenTelemetry's semantic conventions, everything else begins
with `plato.`. Nothing here is text of a question or an answer but what `texts_of_run` and
`texts_of_node` return.
"""

from __future__ import annotations

import json

from plato.runs import (
    NodeReport,
    NodeStatus,
    PlanReport,
    RunFailed,
    RunReport,
    RunRequest,
    RunState,
)
from plato.tracing.span import Value

RUN_ID = "plato.run.id"
OUTCOME = "plato.outcome"
ERROR_TYPE = "error.type"
NODE = "plato.node.number"
DEPENDENCIES = "plato.node.dependencies"
ATTEMPT = "plato.node.attempt"
REPLICA = "plato.replica"
REASON = "plato.reason"
TITLE = "plato.node.title"
FIRST_TOKEN_S = "gen_ai.response.time_to_first_chunk"

PLATO = "plato"

Values = dict[str, Value | None]


def of_run(request: RunRequest, report: RunReport, model: str) -> Values:
    """Attributes of a run that has ended.

    Tokens of the engines are at the plan and the nodes, so that sums over spans count them once.
    """
    sampling = request.sampling
    return {
        "gen_ai.operation.name": "invoke_workflow",
        "gen_ai.workflow.name": PLATO,
        "gen_ai.request.model": model,
        "gen_ai.request.max_tokens": request.max_tokens,
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
        "gen_ai.request.seed": sampling.seed,
        "gen_ai.response.finish_reasons": report.finish_reason and (report.finish_reason,),
        FIRST_TOKEN_S: report.first_text_s,
        RUN_ID: request.run_id,
        "plato.mode": report.mode,
        "plato.requested_mode": report.requested_mode,
        REASON: report.reason,
        "plato.usage.prompt_tokens": report.conversation_tokens,
        "plato.usage.completion_tokens": report.answer_tokens + report.plan.tokens,
        "plato.degraded": report.degraded or None,
    }


def inference(request: RunRequest, model: str) -> Values:
    """Attributes that all sequences of a run have in common."""
    return {
        "gen_ai.operation.name": "text_completion" if request.raw else "chat",
        "gen_ai.provider.name": PLATO,
        "gen_ai.request.model": model,
    }


def of_plan(plan: PlanReport) -> Values:
    """Attributes of a plan; only one that the model writes takes tokens."""
    values: Values = {"plato.plan.source": plan.source, "plato.plan.nodes": plan.nodes}
    if plan.source != "model":
        return values
    return values | {
        **_usage(plan.prompt_tokens, plan.cached_tokens, plan.tokens),
        "plato.plan.one_probability": plan.one_probability,
        REPLICA: plan.replica or None,
    }


def of_node(node: NodeReport) -> Values:
    """Attributes of a node that has ended."""
    return {
        **_usage(node.prompt_tokens, node.cached_tokens, node.tokens),
        "gen_ai.response.finish_reasons": node.finish and (node.finish.value,),
        "plato.predicted_cached_tokens": node.predicted_cached_tokens,
        NODE: node.number,
        DEPENDENCIES: node.dependencies,
        "plato.node.sees": node.sees,
        "plato.node.continues": node.continues,
        "plato.node.attempts": node.attempts,
        OUTCOME: node.state,
        REPLICA: node.replica or None,
        "plato.epoch": node.epoch or None,
    }


def outcome(ended: object) -> Values:
    """How a run ended, by its last event."""
    if not isinstance(ended, RunFailed):
        return {OUTCOME: "done"}
    if ended.code in ("cancelled", "unplanned"):
        return {OUTCOME: ended.code}
    return {OUTCOME: "failed", ERROR_TYPE: ended.code or ended.type}


def texts_of_run(state: RunState) -> Values:
    """The conversation and the answer, in the conventions' JSON."""
    asked = [(message.role, message.content) for message in state.request.messages]
    return {
        "gen_ai.input.messages": _messages(*asked),
        "gen_ai.output.messages": _messages(("assistant", state.text)),
    }


def texts_of_node(node: NodeStatus) -> Values:
    """The title and the text of a node."""
    return {
        TITLE: node.node.title,
        "gen_ai.output.messages": _messages(("assistant", node.text)),
    }


def _usage(prompt: int, cached: int, output: int) -> Values:
    """Tokens; the cached ones are also in those of the prompt."""
    return {
        "gen_ai.usage.input_tokens": prompt,
        "gen_ai.usage.cache_read.input_tokens": cached,
        "gen_ai.usage.output_tokens": output,
    }


def _messages(*messages: tuple[str, str]) -> str:
    return json.dumps(
        [
            {"role": role, "parts": [{"type": "text", "content": content}]}
            for role, content in messages
        ],
        ensure_ascii=False,
    )

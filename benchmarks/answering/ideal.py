"""The KV reuse and latency that were possible for an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.answering.asking import Answered
from benchmarks.answering.bound import Bound, Part, PlanWork, bound
from benchmarks.answering.reuse import cacheable_tokens
from plato.prompting.model_tools import ModelTools
from plato.runs import NodePlanned
from plato.testing.paced import Pace


def reuse_of(tools: ModelTools, answered: Answered) -> dict[str, Any]:
    """Prompt tokens of an answer's parts: all, cached, and what could have been."""
    assert answered.request is not None
    found = cacheable_tokens(tools, [(answered.request, answered.events, answered.began)])
    by_part = {number: tokens for (_, number), tokens in found.items()}
    nodes = answered.info["graph"]["nodes"]
    return {
        "cached": sum(node["cached_tokens"] for node in nodes),
        "cacheable": sum(by_part.values()),
        "computed": answered.computed_prompt_tokens,
        "cacheable_by_part": [by_part[node["number"]] for node in nodes],
    }


def ideal_of(
    answered: Answered, cacheable: Sequence[int], pace: Pace, *, pipelining: bool = True
) -> Bound:
    """The bound of an answer, with the plan's steps as they were and all reuse there was."""
    nodes = answered.info["graph"]["nodes"]
    parts = [
        Part(node["tokens"], tuple(node["dependencies"]), node["prompt_tokens"] - cached)
        for node, cached in zip(nodes, cacheable, strict=True)
    ]
    return bound(parts, plan_work(answered), pace, pipelining=pipelining)


def plan_work(answered: Answered) -> PlanWork | None:
    """What decoding the plan took; `None` if it was given, or there was none."""
    plan = answered.info["plan"]
    if plan["source"] != "model":
        return None
    total, cached = answered.plan_prompt_tokens
    lines = tuple(
        event.plan.steps
        for event in answered.events
        if isinstance(event, NodePlanned) and event.plan is not None
    )
    return PlanWork(total - cached, lines, int(plan["steps"]), int(plan["tokens"]))

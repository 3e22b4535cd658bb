"""The possible KV reuse, with a single cache of unlimited size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from plato.engine import Segment
from plato.prompting import NodeText
from plato.prompting.model_tools import ModelTools
from plato.runs import (
    Mode,
    Node,
    NodeFinished,
    NodeOutput,
    NodePlanned,
    NodeQueued,
    PlanGraph,
    RunEvent,
    RunRequest,
)

Ran = tuple[RunRequest, Sequence[RunEvent], float]
"""A run, its events, and when it began."""


def cacheable_tokens(tools: ModelTools, runs: Iterable[Ran]) -> dict[tuple[str, int], int]:
    """Cacheable prompt tokens by run and number of the part.

    The leading tokens that the public prefix or any prompt started before begins with, or any part
    finished before has decoded; but not a prompt's last token, which has to be computed for what
    follows it.
    """
    moments: list[tuple[float, int, Any]] = []
    for request, events, began in runs:
        moments += _moments(tools, request, events, began)
    cacheable: dict[tuple[str, int], int] = {}
    seen = {chain for prefix in tools.layout.public_prefixes() for chain in prefix.hashes}
    for _, finished, what in sorted(moments, key=lambda moment: moment[:2]):
        if finished:
            seen.update(what.hashes)
            continue
        key, prompt = what
        length = known = 0
        for chain, segment in zip(prompt.hashes, prompt.segments, strict=True):
            length += len(segment.tokens)
            known = length if chain in seen else known
        cacheable[key] = min(known, len(prompt) - 1)
        seen.update(prompt.hashes)
    return cacheable


def _moments(
    tools: ModelTools, request: RunRequest, events: Sequence[RunEvent], began: float
) -> list[tuple[float, int, Any]]:
    """(time, 0, ((run, number), prompt)) of every start, (time, 1, whole) of every end."""
    layout = tools.layout
    nodes: dict[int, Node] = {}
    texts: dict[int, NodeText] = {}
    outputs: dict[int, list[int]] = {}
    prompts: dict[int, Any] = {}
    moments: list[tuple[float, int, Any]] = []
    skeleton = request.mode is Mode.SKELETON
    conversation = layout.start(request.messages, request.tenant, skeleton)
    for event in events:
        at = began + event.at_s
        if isinstance(event, NodePlanned):
            nodes[event.node.number] = event.node
        elif isinstance(event, NodeQueued) and event.attempt == 0:
            if request.mode is Mode.SEQUENTIAL:
                prompt = layout.sequential(request.messages, request.tenant)
            else:
                graph = PlanGraph(nodes[number] for number in sorted(nodes))
                prompt = conversation.node_prompt(
                    graph, event.number, texts, lambda node: node.max_tokens or 1
                ).prompt
            prompts[event.number] = prompt
            moments.append((at, 0, ((request.run_id, event.number), prompt)))
        elif isinstance(event, NodeOutput):
            outputs.setdefault(event.number, []).extend(event.tokens)
        elif isinstance(event, NodeFinished):
            ids = tuple(outputs[event.number])
            texts[event.number] = NodeText(event.number, ids, tools.text(ids))
            moments.append((at, 1, prompts[event.number].extended(Segment(ids))))
    return moments

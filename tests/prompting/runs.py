"""A question, plans and texts, and the prompts of their nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from plato.prompting import NodePrompt, NodeText, Tokenizer
from plato.prompting.transcript import TranscriptConversation
from plato.runs import Message, Node, PlanGraph
from tests.prompting.reference import hf_of

QUESTION = (Message("user", "How does a heat pump work?"),)
TITLES = ("The cycle", "The cost", "The noise", "The verdict", "The garden", "The end")


def graph_of(*dependencies: tuple[int, ...]) -> PlanGraph:
    return PlanGraph(
        Node(number, TITLES[number - 1], needed) for number, needed in enumerate(dependencies, 1)
    )


DIAMOND = graph_of((), (1,), (1,), (1, 2, 3))


def written(tokenizer: Tokenizer, number: int, text: str = "", *, closed: bool = True) -> NodeText:
    text = text or f"What is to be said about number {number}."
    end = (hf_of(tokenizer).eos_token_id,) if closed else ()
    return NodeText(number, (*tokenizer.text(text), *end), text)


def up_to(max_tokens: int) -> Callable[[Node], int]:
    """The budget of nodes that have none of their own."""
    return lambda node: node.max_tokens or max_tokens


def prompts(
    conversation: TranscriptConversation,
    graph: PlanGraph,
    texts: dict[int, NodeText],
    order: Iterable[int] | None = None,
    max_tokens: int = 96,
) -> dict[int, NodePrompt]:
    """Ask for prompts in `order`, each with no more texts at hand than it needs."""
    made = {}
    for number in order or range(1, len(graph) + 1):
        at_hand = {needed: texts[needed] for needed in graph.ancestors(number)}
        made[number] = conversation.node_prompt(graph, number, at_hand, up_to(max_tokens))
    return made

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plato.errors import ContextLengthError
from plato.prompting import ChatTemplate, NodePrompt, NodeText, Tokenizer, TranscriptLayout
from plato.runs import Message, Node, PlanGraph
from tests.prompting.runs import QUESTION, TITLES, graph_of, prompts, up_to, written

SMALL_CONTEXT = 512


def test_a_dependency_that_another_scheduler_requested_had_its_own_budget(
    tokenizer: Tokenizer, template: ChatTemplate, texts: dict[int, NodeText]
) -> None:
    layout = TranscriptLayout(tokenizer, template, SMALL_CONTEXT)
    # Only the second has too little room for the text before it.
    graph = PlanGraph(
        [Node(1, "One"), Node(2, "Two", (1,), max_tokens=460), Node(3, "Three", (2,), max_tokens=8)]
    )
    every = prompts(layout.start(QUESTION, "t"), graph, texts)
    assert (every[2].sees, every[2].shortened) == ((), (1,))
    assert (every[3].continues, every[3].sees, every[3].shortened) == (2, (2,), (1,))
    assert prompts(layout.start(QUESTION, "t"), graph, texts, [3])[3] == every[3]


@st.composite
def plans(draw: st.DrawFn) -> tuple[PlanGraph, list[int], int, int]:
    """A graph, an order in which its nodes can be started, the context length, and a budget."""
    size = draw(st.integers(1, len(TITLES)))
    needed = [draw(st.sets(st.integers(1, n - 1))) if n > 1 else set() for n in range(1, size + 1)]
    graph = graph_of(*(tuple(sorted(numbers)) for numbers in needed))
    order: list[int] = []
    while len(order) < size:
        ready = [n for n in range(1, size + 1) if n not in order and needed[n - 1] <= set(order)]
        order.append(draw(st.sampled_from(ready)))
    # From room for every conversation to room for a quotation that is cut, or for none.
    return graph, order, *draw(st.sampled_from([(8192, 96), (292, 96), (2048, 1930), (172, 96)]))


@given(plans())
def test_prompts_do_not_depend_on_the_order_in_which_nodes_finish(
    tokenizer: Tokenizer,
    template: ChatTemplate,
    texts: dict[int, NodeText],
    plan: tuple[PlanGraph, list[int], int, int],
) -> None:
    graph, order, context_length, max_tokens = plan
    texts = {**texts, 2: written(tokenizer, 2, f"Begin. {'More of it. ' * 15}Finish.")}
    layout = TranscriptLayout(tokenizer, template, context_length)

    def made(order: Iterable[int] | None = None) -> dict[int, NodePrompt]:
        return prompts(layout.start(QUESTION, "t"), graph, texts, order, max_tokens)

    in_plan_order = made()
    assert made(order) == in_plan_order
    # A scheduler that takes a run over asks for the prompts of unfinished nodes only.
    last = order[-1]
    assert made([last])[last] == in_plan_order[last]
    for number, node in in_plan_order.items():
        assert len(node.prompt) + max_tokens <= context_length
        assert set(graph[number].dependencies) <= {*node.sees, *node.shortened}
        text = tokenizer.decode(node.prompt.tokens)
        assert all((texts[n].text in text) or n in node.shortened for n in node.sees)
        titles = {n for n in range(1, len(graph) + 1) if TITLES[n - 1] in text}
        assert titles == {*node.sees, number}
        asked = f"Write one short paragraph about: {TITLES[number - 1]}."
        assert text.endswith(f"{asked}\nassistant\n")


def test_a_dependency_that_does_not_fit_is_cut_in_the_middle_with_a_mark(
    tokenizer: Tokenizer, template: ChatTemplate, texts: dict[int, NodeText]
) -> None:
    layout = TranscriptLayout(tokenizer, template, SMALL_CONTEXT)
    long = {**texts, 2: written(tokenizer, 2, f"Begin. {'More of it. ' * 120}Finish.")}
    last = prompts(layout.start(QUESTION, "t"), graph_of((), (), (1, 2)), long)[3]
    assert (last.continues, last.sees, last.shortened) == (None, (1, 2), (2,))
    assert len(last.prompt) == SMALL_CONTEXT - 96
    text = tokenizer.decode(last.prompt.tokens)
    assert long[1].text in text
    assert "\n\nThe cost:\nBegin. More of it." in text
    assert " [...] " in text
    assert "More of it. Finish.\n\nWrite one short paragraph about" in text


def test_a_conversation_that_grew_too_long_is_left_for_a_quotation(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    layout = TranscriptLayout(tokenizer, template, SMALL_CONTEXT)
    finished = {n: written(tokenizer, n, "Much to say here. " * 30) for n in range(1, 5)}
    made = prompts(layout.start(QUESTION, "t"), graph_of((), (1,), (2,), (3,)), finished)
    assert [made[n].continues for n in (2, 3, 4)] == [1, 2, None]
    assert (made[4].sees, made[4].shortened) == ((3,), ())


def test_without_room_for_any_quotation_a_node_goes_without(
    tokenizer: Tokenizer, template: ChatTemplate, texts: dict[int, NodeText]
) -> None:
    roomy = TranscriptLayout(tokenizer, template, SMALL_CONTEXT).start(QUESTION, "t")
    bare = roomy.node_prompt(graph_of((), (), ()), 3, {}, up_to(96)).prompt
    tight = TranscriptLayout(tokenizer, template, len(bare) + 96 + 5)
    made = prompts(tight.start(QUESTION, "t"), graph_of((), (), (1, 2)), texts)[3]
    assert (made.prompt, made.sees, made.shortened) == (bare, (), (1, 2))


def test_a_question_that_leaves_no_room_is_refused_with_numbers(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    layout = TranscriptLayout(tokenizer, template, 128)
    long = (Message("user", "why " * 200),)
    for begin in (layout.start, layout.sequential):
        with pytest.raises(ContextLengthError, match=r"2\d\d tokens.*128 tokens; shorten"):
            begin(long, "t")
    with pytest.raises(ContextLengthError, match="ask for fewer output tokens"):
        layout.start(QUESTION, "t").node_prompt(graph_of(()), 1, {}, up_to(100))

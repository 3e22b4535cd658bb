"""What a planner is asked, by its decisions; a scripted decoder takes them."""

from __future__ import annotations

from benchmarks.planning.asking import PlanAsker, each
from benchmarks.planning.labelled import LabelledPlan
from plato.prompting import ChatTemplate, Tokenizer
from plato.runs import Node
from plato.settings import Settings
from tests.planning.scripted import Script, planner


async def test_dependencies_are_asked_for_with_those_chosen_before_and_not_the_true_ones(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    # Every part before is chosen.
    script = Script(tokenizer, needs={2: (-9.0, -1.0), 3: (-9.0, -1.0, -1.0)})
    asker = PlanAsker(planner(script, tokenizer, template), Settings())
    true = (Node(1, "Soil"), Node(2, "Water"), Node(3, "Sun", (1,)))
    graph = await asker.dependencies(LabelledPlan("How to grow", "mixed", true))

    assert tuple(graph) == (Node(1, "Soil"), Node(2, "Water", (1,)), Node(3, "Sun", (1, 2)))
    asked = [tokenizer.decode(request.prompt.tokens) for request, _ in script.decisions]
    lines = ["A: Soil. Uses nothing\n", "B: Water. Uses", " A\nC: Sun. Uses"]
    for prompt, end in zip(asked, ("".join(lines[:2]), "".join(lines)), strict=True):
        assert "How to grow?" in prompt
        assert prompt.endswith(end)


async def test_results_are_in_the_order_of_what_is_asked() -> None:
    async def double(number: int) -> int:
        return 2 * number

    assert await each("numbers", range(9), double, concurrency=3) == [*range(0, 18, 2)]

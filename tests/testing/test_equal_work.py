"""A script is decoded as a plan of the model would be, by a real engine."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from plato.engine.torch import TorchEngine, TorchEngineConfig
from plato.models.calibration import Calibration
from plato.planning.planner import ModelPlanner
from plato.planning.protocol import PlanEnded, PlanEvent, PlanLine, PlanRequest
from plato.prompting import ChatTemplate, Tokenizer
from plato.runs import Length, Message, Node
from plato.runtime import LocalPool
from plato.testing.equal_work import ScriptedPlanner, SpelledPlanner

SCRIPT = (
    Node(1, "1,2,3", max_tokens=5),
    Node(2, "Wind (noise)", length=Length.LONG),
    Node(3, "Which of both", (1, 2)),
)
"""With a title that the planner itself could not write."""


TEXT = "1. **1,2,3**:\n2. **Wind (noise)**:\n3. **Which of both**:\n"


@pytest.fixture
def kind() -> type[ScriptedPlanner]:
    return ScriptedPlanner


@pytest.fixture
async def planner(
    kind: type[ScriptedPlanner], tiny_model_folder: str
) -> AsyncIterator[ScriptedPlanner]:
    config = TorchEngineConfig(
        tiny_model_folder,
        device="cpu",
        dtype="float32",
        kv_budget_bytes=4 << 20,
        threads=1,
        name="tiny",
    )
    engine = TorchEngine(config)
    tokenizer = Tokenizer.load(tiny_model_folder)
    yield kind(
        LocalPool({"tiny": engine}),
        tokenizer,
        ChatTemplate(tokenizer),
        max_title_words=4,
        calibration=Calibration(split_threshold=1.0, dependency_threshold=0.0),
    )
    assert engine.stats().live == ()
    await engine.close()


async def plan(
    planner: ModelPlanner, *script: Node, decide: bool = False
) -> tuple[list[PlanLine], PlanEnded]:
    request = PlanRequest(
        run_id="run",
        tenant="",
        messages=(Message("user", "Solar or wind?"),),
        parts=4,
        decide=decide,
        script=script,
    )
    events: list[PlanEvent] = [event async for event in planner.plan(request)]
    ended = events.pop()
    assert isinstance(ended, PlanEnded)
    return [event for event in events if isinstance(event, PlanLine)], ended


async def test_the_nodes_are_the_script_s_own_and_take_a_step_for_each_token_that_is_not_forced(
    planner: ScriptedPlanner,
) -> None:
    lines, ended = await plan(planner, *SCRIPT)
    assert tuple(line.node for line in lines) == SCRIPT
    assert planner.tokenizer.decode(lines[-1].emitted) == TEXT
    # The dependencies of the second and the third are decided, too, and not taken.
    assert ended.usage.tokens == len(planner.tokenizer.text(TEXT)) + 2
    assert 2 < ended.usage.steps < ended.usage.tokens
    assert (ended.reason, ended.refused) == (None, None)


@pytest.mark.parametrize("kind", [SpelledPlanner])
async def test_where_scripts_are_not_decoded_a_grammar_has_only_this_one(
    planner: ScriptedPlanner,
) -> None:
    lines, ended = await plan(planner, *SCRIPT)
    assert tuple(line.node for line in lines) == SCRIPT
    assert planner.tokenizer.decode(lines[-1].emitted) == TEXT
    assert ended.reason is None


async def test_a_plan_of_any_length_ends_with_its_script(planner: ScriptedPlanner) -> None:
    for count in (2, 4):
        script = tuple(Node(number, "Same") for number in range(1, count + 1))
        lines, ended = await plan(planner, *script)
        assert tuple(line.node for line in lines) == script
        assert ended.reason is None


async def test_without_a_script_the_model_plans_and_decides(planner: ScriptedPlanner) -> None:
    lines, ended = await plan(planner, decide=True)
    assert ended.usage.one_probability is not None
    assert 0 < ended.usage.one_probability < 1
    assert [line.node.number for line in lines] == list(range(1, len(lines) + 1))
    for line in lines:
        assert all(needed < line.node.number for needed in line.node.dependencies)
        assert line.usage.one_probability == ended.usage.one_probability

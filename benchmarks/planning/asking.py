"""Asks a planner for plans, dependencies and decisions, without answering anything."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TypeVar

from benchmarks.answering.questions import Question
from benchmarks.common.workload import fresh_tenant
from benchmarks.planning.decisions import Decision
from benchmarks.planning.labelled import LabelledPlan
from benchmarks.planning.plans import OwnPlan
from plato.planning.decider import PlanContext
from plato.planning.planner import ModelPlanner
from plato.planning.prompt import shown_question
from plato.planning.protocol import PlanEnded, PlanLine, PlanRequest
from plato.runs import Message, Node, PlanGraph
from plato.settings import Settings

T = TypeVar("T")
R = TypeVar("R")


class PlanAsker:
    """Asks one planner."""

    def __init__(self, planner: ModelPlanner, settings: Settings) -> None:
        self._planner = planner
        self._settings = settings
        self.split_threshold = planner.calibration.split_threshold

    async def dependencies(self, plan: LabelledPlan) -> PlanGraph:
        """The plan with the dependencies that the planner chooses, node by node."""
        request = self._request(plan.question.text, parts=len(plan.nodes))
        asked = PlanContext(request, shown_question(self._planner.tokenizer, request.messages))
        nodes: tuple[Node, ...] = ()
        for node in plan.nodes:
            needed = await self._planner.decider.dependencies(asked, nodes, node.title)
            nodes = (*nodes, Node(node.number, node.title, needed))
        return PlanGraph(nodes)

    async def plan(self, question: Question, source: str) -> OwnPlan:
        """The planner's own plan, in mode `plato`."""
        request = self._request(question.text, parts=self._settings.plan_parts)
        nodes: list[Node] = []
        async with aclosing(self._planner.plan(request)) as events:
            async for event in events:
                if isinstance(event, PlanLine):
                    nodes.append(event.node)
                elif isinstance(event, PlanEnded):
                    ended = event
        return OwnPlan(
            source,
            question.text,
            tuple(nodes),
            followed=len(nodes) >= 2,
            reason=ended.reason,
            refused=ended.refused,
        )

    async def decide(self, question: Question, *, fit: bool) -> Decision:
        """Whether the model would split the answer; the rest of its plan is not decoded."""
        request = self._request(question.text, parts=self._settings.plan_parts, decide=True)
        began = time.perf_counter()
        async with aclosing(self._planner.plan(request)) as events:
            async for event in events:
                if isinstance(event, PlanLine | PlanEnded):
                    chance = event.usage.one_probability
                    assert chance is not None, "a planner that decides reports its probability"
                    return Decision(question.text, chance, fit, time.perf_counter() - began)
        raise RuntimeError(f"there is no decision on {question.text!r}")

    def _request(self, question: str, *, parts: int, decide: bool = False) -> PlanRequest:
        tenant = fresh_tenant()
        return PlanRequest(
            run_id=tenant,
            tenant=tenant,
            messages=(Message("user", question),),
            parts=parts,
            decide=decide,
            deadline_s=self._settings.plan_deadline_s,
        )


async def each(
    name: str, items: Sequence[T], ask: Callable[[T], Awaitable[R]], concurrency: int
) -> list[R]:
    """`ask` every item, `concurrency` at a time; the results are in the order of the items."""
    free = asyncio.Semaphore(concurrency)
    done = 0

    async def one(item: T) -> R:
        nonlocal done
        async with free:
            result = await ask(item)
        done += 1
        sys.stderr.write(f"\r{name} {done}/{len(items)} ")
        return result

    results = await asyncio.gather(*map(one, items))
    sys.stderr.write("\n")
    return results

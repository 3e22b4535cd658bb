"""Choosing how to answer: by a given or decoded plan, or sequentially."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from plato.errors import ContextLengthError, UnplannedError
from plato.metrics.table import FALLBACKS
from plato.planning.protocol import PlanRequest
from plato.runs import NO_PLAN, Mode, Node, PlanFinished, PlanReport, chars_of
from plato.scheduling.budget import (
    MIN_PART_TOKENS,
    planned_parts,
    sequential_budget,
    too_short_to_split,
)
from plato.scheduling.event_log import EventLog
from plato.scheduling.node_tasks import NodeTasks
from plato.scheduling.ownership.journal import Journal
from plato.scheduling.plan_follower import PlanFollower
from plato.scheduling.services import Services
from plato.tasks import in_thread_if_long

REST_TITLE = "The rest of the answer"
ANSWER_TITLE = "Answer"
TOO_FEW_PARTS = "the plan has fewer than two parts"
TOO_SHORT = f"not split: max_tokens leaves less than {MIN_PART_TOKENS} tokens for each part"
NO_ROOM = "not split: the question leaves too little of the model's context for each part"
STRUCTURED = "not split: response_format is enforced by one grammar for the whole answer"
COMPLETION = "not split: a completion continues one text; /v1/chat/completions plans its answers"
CALL = "not split: the arguments of a tool call are enforced by one grammar"
LOADED = "not split: under this load, parts side by side would cost others more than they gain"


class PlanPhase:
    """Chooses the mode of one run, and adds its nodes as their plan lines arrive.

    The run is recorded once its question is known to fit into the model's context, or, if only a
    planned answer is wanted, once there will be one.
    """

    def __init__(
        self, nodes: NodeTasks, log: EventLog, journal: Journal, services: Services
    ) -> None:
        self._nodes = nodes
        self._log = log
        self._state = log.state
        self._request = log.state.request
        self._journal = journal
        self._services = services

    async def run(self) -> None:
        """Choose the mode and start the nodes, or resume where another scheduler stopped."""
        request = self._request
        if Mode.SEQUENTIAL in (request.mode, self._state.mode):
            await self._answer_sequentially(None, self._state.plan)
            return
        given = request.plan is not None and not request.decode_plan
        undecided = request.mode is Mode.AUTO and not given and not self._nodes.graph
        if request.raw:
            await self._fall_back("completions", COMPLETION)
            return
        if request.function is not None:
            await self._fall_back("tool_choice", CALL)
            return
        if request.grammar is not None:
            await self._fall_back("response_format", STRUCTURED)
            return
        if undecided and too_short_to_split(request):
            await self._fall_back("max_tokens", TOO_SHORT)
            return
        if undecided and not self._services.decoder.branches.pays(request.run_id):
            await self._fall_back("load", LOADED)
            return
        try:
            self._log.conversation_tokens = await self._nodes.open_conversation()
        except ContextLengthError:
            if not undecided:
                raise
        if undecided and not self._nodes.has_room():
            await self._fall_back("context", NO_ROOM)
            return
        if not request.planned_only:
            self._journal.open()
        self._nodes.start_ready()
        if self._state.plan_complete:
            return
        if request.plan is not None and given:
            await self._follow_given(request.plan)
        else:
            await self._follow_planner()

    async def _follow_given(self, plan: tuple[Node, ...]) -> None:
        if len(plan) < 2:
            await self._fall_back("too_few_parts", TOO_FEW_PARTS)
            return
        for node in plan[len(self._nodes.graph) :]:
            self._nodes.add(node)
        self._finish_plan(PlanReport(source="request", nodes=len(plan)), None)

    async def _follow_planner(self) -> None:
        """Add the plan line by line, and start the nodes that each line makes ready."""
        request, settings = self._request, self._services.settings
        follower = PlanFollower(self._services, lambda: self._log.at_s)

        def add(node: Node, report: PlanReport, tokens: tuple[int, ...]) -> None:
            self._nodes.add(node, report, tokens)
            self._nodes.start_ready()

        emitted = self._state.plan_tokens
        plan = PlanRequest(
            run_id=request.run_id,
            tenant=request.tenant,
            messages=request.messages,
            parts=planned_parts(request, settings),
            decide=request.mode is Mode.AUTO,
            dependencies=request.mode is not Mode.SKELETON,
            run_began_unix_s=request.admitted_unix_s,
            branch=settings.branch_slowdown is not None,
            lease=self._services.leases.lease,
            deadline_s=settings.plan_deadline_s,
            script=request.plan or (),
            attempt=1 if emitted else 0,
            emitted=emitted,
            known=tuple(self._nodes.graph),
        )
        await follower.follow(plan, add)
        await self._settle(follower)

    async def _settle(self, follower: PlanFollower) -> None:
        """After the last line: complete the plan, or fall back to a sequential answer."""
        nodes = len(self._nodes.graph)
        report, reason = follower.report(nodes), follower.reason
        if nodes >= 2:
            self._finish_plan(report, reason)
        elif self._state.mode is not None:
            # Text of the only node is already visible; a second node adds the rest.
            self._services.recorder.add(FALLBACKS, reason="plan_broke_off")
            self._nodes.add(Node(2, REST_TITLE, (1,)))
            self._finish_plan(
                replace(report, nodes=2),
                f"{reason or 'the plan ended early'}; cut short to two parts",
            )
        elif not follower.split:
            await self._fall_back("not_split", _not_split(report.one_probability, reason), report)
        else:
            label = "planner_failed" if follower.failed else "too_few_parts"
            await self._fall_back(label, reason or TOO_FEW_PARTS, report)

    def _finish_plan(self, report: PlanReport, reason: str | None) -> None:
        self._log.choose_mode(self._request.planned_mode)
        self._report_plan(report, reason)
        self._nodes.start_ready()

    def _report_plan(self, report: PlanReport, reason: str | None) -> None:
        self._log.append(PlanFinished(*self._log.stamp, report, reason))
        self._journal.plan_finished()

    async def _fall_back(self, label: str, reason: str, plan: PlanReport = NO_PLAN) -> None:
        self._services.recorder.add(FALLBACKS, reason=label)
        if self._request.planned_only:
            raise UnplannedError(reason)
        await self._answer_sequentially(reason, plan)

    async def _answer_sequentially(self, reason: str | None, plan: PlanReport) -> None:
        request, settings = self._request, self._services.settings
        layout = self._services.model.layout
        prompt = await in_thread_if_long(
            chars_of(request.messages),
            layout.raw if request.raw else layout.sequential,
            request.messages,
            request.tenant,
        )
        self._log.conversation_tokens = len(prompt)
        self._journal.open()
        if self._state.mode is not Mode.SEQUENTIAL:
            await self._nodes.discard()
            self._log.choose_mode(Mode.SEQUENTIAL, reason)
        if not self._nodes.graph:
            self._nodes.add(Node(1, ANSWER_TITLE))
        if not self._state.plan_complete:
            self._report_plan(plan, None)
        room = self._services.model.context_length - len(prompt)
        budget = sequential_budget(request, settings.sequential_max_tokens, room)
        exempt: frozenset[int] = frozenset()
        if request.grammar is not None:
            exempt = await asyncio.to_thread(getattr, self._services.model, "json_tokens")
        self._nodes.start_sequential(prompt, budget, exempt)


def _not_split(probability: float | None, why: str | None) -> str:
    """Why the answer is not split; `why`, if the model did not decide it."""
    if why is not None:
        return f"not split: {why}"
    reason = "not split: the model prefers to answer in one piece"
    if probability is not None:
        reason += f" (with a probability of {probability:.2g}, which is too high)"
    return reason

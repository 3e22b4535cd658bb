"""The tasks of one run's nodes: each starts as soon as its dependencies are done."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from plato.engine import GenerateRequest, Prompt, SamplingParams, StopConditions
from plato.engine.grammar import answer_grammar
from plato.planning.grammar import outline_token_budget
from plato.prompting import NodePrompt, NodeText, TranscriptConversation
from plato.runs import Mode, Node, NodePlanned, PlanGraph, PlanReport, chars_of
from plato.scheduling.budget import node_budget
from plato.scheduling.event_log import EventLog
from plato.scheduling.node_task import NodeTask
from plato.scheduling.ownership.journal import Journal
from plato.scheduling.services import Services
from plato.tasks import in_thread_if_long

INSTRUCTION_TOKENS = 24
"""Of the words and markup around a title."""
SENTENCE_SHARE = 4
"""A part may end at a sentence in the last of so many shares of its budget."""


class NodeTasks:
    """Dispatches the nodes of a run.

    Without polling: each plan line and each finished node starts the nodes that it makes ready.
    """

    def __init__(self, log: EventLog, journal: Journal, services: Services) -> None:
        self.graph = PlanGraph(log.state.planned_nodes)
        """The plan so far."""
        self.pinned_at: set[str] = set()
        """Replicas that hold pins of this run."""
        self._log = log
        self._journal = journal
        self._services = services
        self._request = log.state.request
        self._conversation: TranscriptConversation | None = None
        self._group: asyncio.TaskGroup | None = None
        # By node, so bounded by the plan.
        self._started: dict[int, asyncio.Task[None]] = {}
        self._texts: dict[int, NodeText] = {}
        """Of finished nodes."""

    def start(self, group: asyncio.TaskGroup) -> None:
        """Decode nodes in `group` from now on."""
        self._group = group

    async def open_conversation(self) -> int:
        """Lay out the question for a planned answer; returns the conversation's length in tokens.

        Raises `ContextLengthError`.
        """
        messages = self._request.messages
        self._conversation = await in_thread_if_long(
            chars_of(messages),
            self._services.model.layout.start,
            messages,
            self._request.tenant,
            skeleton=self._request.mode is Mode.SKELETON,
        )
        return self._conversation.length

    def has_room(self) -> bool:
        """Whether a part fits behind the question; not if it could not be laid out."""
        if self._conversation is None:
            return False
        title = outline_token_budget(1, self._services.settings.max_title_words)
        return self._conversation.room >= INSTRUCTION_TOKENS + title + self._budget(Node(1, ""))

    def add(
        self, node: Node, plan: PlanReport | None = None, plan_tokens: tuple[int, ...] = ()
    ) -> None:
        """Append a node to the plan."""
        if self._request.mode is Mode.SKELETON:
            node = replace(node, dependencies=())
        self.graph.add(node)
        self._log.append(NodePlanned(*self._log.stamp, node, plan, plan_tokens))

    def start_ready(self) -> None:
        """Start every node whose dependencies are done, the longest path below it first."""
        heights = self.graph.heights()
        ready = [
            node
            for node in self.graph
            if node.number not in self._started and self._texts.keys() >= set(node.dependencies)
        ]
        assert self._conversation is not None
        for node in sorted(ready, key=lambda node: (-heights[node.number], node.number)):
            prompt = self._conversation.node_prompt(
                self.graph, node.number, self._texts, self._budget
            )
            height, keep = heights[node.number], self._distance(node.number)
            self._start(node, prompt, self._budget(node), height, keep)

    def start_sequential(
        self, prompt: Prompt, budget: int, exempt: frozenset[int] = frozenset()
    ) -> None:
        """Start the only node of a sequential answer; `exempt` tokens are not penalised."""
        only = NodePrompt(prompt, None, (), ())
        self._start(self.graph[1], only, budget, height=1, keep=None, exempt=exempt)

    async def discard(self) -> None:
        """Cancel and forget all nodes, because the mode has changed."""
        for task in self._started.values():
            task.cancel()
        if self._started:
            await asyncio.wait(self._started.values())
        self._log.cancel_open()
        self._started.clear()
        self._texts.clear()
        self.graph = PlanGraph()

    def _budget(self, node: Node) -> int:
        return node_budget(self._request, node, self._services.settings)

    def _distance(self, number: int) -> int | None:
        """Number of other nodes that must end before a dependent of this one can start.

        `None` if there is no dependent. While the plan is decoded, its next line may be one.
        """
        if self._request.mode is Mode.SKELETON:
            return None
        if not self._log.state.plan_complete:
            return 0
        return min(
            (
                len(self.graph.ancestors(dependent) - self._texts.keys() - {number})
                for dependent in self.graph.dependents(number)
            ),
            default=None,
        )

    def _start(
        self,
        node: Node,
        prompt: NodePrompt,
        budget: int,
        height: int,
        keep: int | None,
        exempt: frozenset[int] = frozenset(),
    ) -> None:
        hidden = len(self._texts) < node.number - 1
        grammar = self._request.grammar
        request = GenerateRequest(
            run_id=self._request.run_id,
            node=node.number,
            prompt=prompt.prompt,
            max_tokens=budget,
            sampling=self._sampling(prompt, exempt),
            stop=self._stop(budget),
            grammar=None if grammar is None else answer_grammar(grammar),
            run_began_unix_s=self._request.admitted_unix_s,
            priority=height,
            lease=self._services.leases.lease,
            group_s=self._services.stream_interval.seconds(hidden=hidden),
            keep=keep,
        )
        work = NodeTask(request, prompt, self._log, self._services)
        assert self._group is not None
        self._started[node.number] = self._group.create_task(self._run(work))

    def _stop(self, budget: int) -> StopConditions:
        if self._request.exact_lengths:
            return StopConditions(end_tokens=False)
        if self._log.state.mode is Mode.SEQUENTIAL:
            return StopConditions()
        return StopConditions(sentence_from=budget - budget // SENTENCE_SHARE)

    def _sampling(self, prompt: NodePrompt, exempt: frozenset[int]) -> SamplingParams:
        """The request's, with penalties also for the texts that the node sees.

        In a sequential answer they would be its own output. The question counts, too, as in vLLM's
        repetition penalty, because each of several parts would restate it; but not for presence and
        frequency penalties, so with these it is left out.
        """
        sampling = self._request.sampling
        if not sampling.penalises:
            return sampling
        counted = sampling.presence_penalty or sampling.frequency_penalty
        seen = prompt.seen if counted else prompt.seen | prompt.asked
        return replace(sampling, penalised=tuple(sorted(seen)), penalty_exempt=exempt)

    async def _run(self, work: NodeTask) -> None:
        """Decode one node, and start the nodes that it makes ready."""
        status, keep = work.decoding.status, work.decoding.request.keep
        if status.finish is not None:
            work.restore()
        else:
            try:
                with self._services.stream_interval.sequence():
                    await work.decode()
            finally:
                if keep is not None and work.decoding.replica:
                    self.pinned_at.add(work.decoding.replica)
            self._journal.node_finished(status.report, tuple(status.tokens), status.text)
        number = status.number
        self._texts[number] = NodeText(number, tuple(status.tokens), status.text)
        if self._log.state.mode is not Mode.SEQUENTIAL:
            self.start_ready()

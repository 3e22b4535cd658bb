"""One run: the plan and its nodes as tasks of one owner, and the events that come of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any

from plato.composing import Composer
from plato.engine import Chunk, GenerateRequest, Lease, Prompt, StopConditions
from plato.errors import DeadlineError, PlatoError
from plato.graph import Node, PlanGraph
from plato.history import History
from plato.metrics import NO_METRICS, Recorder
from plato.metrics.table import FALLBACKS
from plato.planning.protocol import Planner, PlanRequest
from plato.prompting.layout import Layout, NodePrompt, NodeText
from plato.reporting import NO_PLAN, RunTracker
from plato.runs import (
    EventId,
    Mode,
    ModeChosen,
    NodeFinished,
    NodeOutput,
    NodePlanned,
    NodeStarted,
    NodeState,
    PlanFinished,
    PlanReport,
    RunEvent,
    RunFailed,
    RunFinished,
    RunRequest,
)
from plato.scheduling.budget import node_budget, sequential_budget
from plato.scheduling.config import SchedulerConfig
from plato.scheduling.decoding import NodeDecoder, NodeProgress
from plato.scheduling.following import PlanFollower
from plato.scheduling.journal import Journal
from plato.scheduling.leases import LeaseKeeper

logger = logging.getLogger(__name__)

MAX_EVENTS = 1024
"""Events that wait for the consumer; past it decoding waits."""
CANCEL_DEADLINE_S = 5.0
CANCELLED_STATUS = 499
"""What proxies log when a client closes its request."""
REST_TITLE = "The rest of the answer"
ANSWER_TITLE = "Answer"
FULL = "not split: every decoder's batch is full, and more parts would decode no faster"


class Run:
    """Drives one question. Every task it starts belongs to one task group, which it cancels.

    Nothing polls: the plan's lines and the ends of nodes start what they make ready.
    """

    def __init__(
        self,
        request: RunRequest,
        *,
        config: SchedulerConfig,
        layout: Layout,
        planner: Planner,
        decoder: NodeDecoder,
        leases: LeaseKeeper,
        lease: Lease,
        journal: Journal,
        decode_text: Callable[[tuple[int, ...]], str],
        composer: Composer,
        now: Callable[[], float],
        past: History,
        term: int,
        recorder: Recorder = NO_METRICS,
    ) -> None:
        """Prepare to drive `request`; `past` is what another scheduler has done of it.

        `term` is that of the events' ids.

        `composer` says when the answer is complete, and is fed with every event.
        """
        self._request = request
        self._recorder = recorder
        self._config = config
        self._layout = layout
        self._planner = planner
        self._decoder = decoder
        self._leases = leases
        self._lease = lease
        self._journal = journal
        self._decode_text = decode_text
        self._now = now
        self._past = past
        self._started = now() - past.at_s
        self._next_id = EventId(term, 0)
        self._tracker = RunTracker(request.run, request.mode)
        self._composer = composer
        for event in past.events():
            self._tracker.feed(event)
            composer.feed(event)
        self._complete = asyncio.timeout(None)
        """Ends the run when the answer is complete, whatever is still being decoded."""
        self._events: asyncio.Queue[RunEvent] = asyncio.Queue(MAX_EVENTS)
        self._emitting = asyncio.Lock()
        """Keeps events in order while the queue is full: a later put could overtake there."""
        self._left = False
        """Whether the consumer has left: an event more would wait for ever."""
        self._tasks: asyncio.TaskGroup | None = None
        self._mode: Mode | None = past.mode
        # All of these are bounded by `max_nodes`.
        self._graph = PlanGraph(past.nodes)
        self._planned_s: dict[int, float] = dict(past.planned_s)
        self._nodes: dict[int, asyncio.Task[None]] = {}
        self._finished: dict[int, NodeText] = {}
        self._plan_complete = past.plan_complete
        self._kept_at: set[str] = set()
        """Replicas that hold pins of this run."""

    async def events(self) -> AsyncGenerator[tuple[RunEvent, ...]]:
        """Answer the question; the last event is `RunFinished` or `RunFailed`.

        Events that wait together come together.

        Closing the iterator cancels the plan and every node.
        """
        task = asyncio.create_task(self._drive(), name=f"run-{self._request.run}")
        try:
            while True:
                events = [await self._events.get()]
                while not self._events.empty():
                    events.append(self._events.get_nowait())
                yield tuple(events)
                if isinstance(events[-1], RunFinished | RunFailed):
                    return
        finally:
            self._left = True
            task.cancel()
            _, late = await asyncio.wait([task], timeout=CANCEL_DEADLINE_S)
            if late:
                logger.error("a run did not end when cancelled", extra={"run": self._request.run})
            # The consumer has its last event already: nobody waits for this.
            await self._decoder.release(self._request.run, self._kept_at)

    async def _drive(self) -> None:
        deadline_s = min(
            self._request.deadline_s or self._config.run_deadline_s, self._config.run_deadline_s
        )
        failure: PlatoError | None = None
        try:
            self._journal.opened(self._request)
            async with (
                asyncio.timeout(deadline_s),
                self._complete,
                asyncio.TaskGroup() as tasks,
            ):
                self._tasks = tasks
                tasks.create_task(self._answer())
        except asyncio.CancelledError:
            self._journal.closed(self._graph, "cancelled")
            raise
        except TimeoutError:
            if not self._complete.expired():
                failure = DeadlineError(
                    f"the answer took longer than its deadline of {deadline_s:g} s; ask for fewer "
                    "tokens or raise deadline_s",
                    param="plato.deadline_s",
                )
        except Exception as error:
            if self._left:
                # A node failed while everything was being cancelled.
                self._journal.closed(self._graph, "cancelled")
                return
            failure = _first_failure(error, self._request.run)
        self._journal.closed(self._graph, "failed" if failure else "done")
        report = self._tracker.report(self._journal.degraded, ended_s=self._at())
        if failure is None:
            await self._emit(RunFinished(self._request.run, self._at(), report))
            return
        await self._emit(
            RunFailed(
                run=self._request.run,
                at_s=self._at(),
                status=failure.status,
                type=failure.type,
                code=failure.code,
                message=failure.message,
                param=failure.param,
                retry_after_s=failure.retry_after_s,
                report=report,
            )
        )

    async def _answer(self) -> None:
        """Find out how to answer, and start it; or go on where another scheduler has stopped."""
        request = self._request
        if Mode.SEQUENTIAL in (request.mode, self._mode):
            await self._answer_sequentially(None, self._past.plan)
            return
        undecided = request.mode is Mode.AUTO and request.plan is None and not self._graph
        if undecided and self._decoder.full():
            self._recorder.add(FALLBACKS, reason="decoders_full")
            await self._answer_sequentially(FULL)
            return
        self._conversation = self._layout.start(
            request.messages, request.tenant, request.mode is Mode.SKELETON
        )
        self._start_ready()
        if self._plan_complete:
            return
        if request.plan is not None and not request.decode_plan:
            await self._follow_given_plan(request.plan)
        else:
            await self._follow_planner()

    async def _follow_given_plan(self, plan: tuple[Node, ...]) -> None:
        if len(plan) < 2:
            self._recorder.add(FALLBACKS, reason="too_few_parts")
            await self._answer_sequentially("the plan has fewer than two parts")
            return
        for node in plan[len(self._graph) :]:
            await self._add_node(node)
        await self._end_plan(PlanReport(source="request", nodes=len(plan)), None)
        self._start_ready()

    async def _follow_planner(self) -> None:
        """Take the plan line by line, and start what each line makes ready."""
        request = self._request
        follower = PlanFollower(
            self._planner,
            self._leases,
            attempts=self._config.plan_attempts,
            at=self._at,
            recorder=self._recorder,
        )

        script = request.plan or ()

        async def add(node: Node, report: PlanReport, tokens: tuple[int, ...]) -> None:
            if script:
                node = script[node.number - 1]
            await self._add_node(node, report, tokens)
            self._start_ready()

        emitted = self._past.plan_tokens
        await follower.follow(
            PlanRequest(
                run=request.run,
                tenant=request.tenant,
                messages=request.messages,
                max_nodes=request.max_nodes,
                decide=request.mode is Mode.AUTO,
                lease=self._lease,
                deadline_s=self._config.plan_deadline_s,
                script=script,
                attempt=1 if emitted else 0,
                emitted=emitted,
            ),
            known=len(self._graph),
            add=add,
        )
        reason = follower.reason
        fallback = "planner_failed" if follower.failed else "too_few_parts"
        if not follower.split:
            fallback = "not_split"
            reason = "not split: the model finds one piece of text fitter"
            probability = follower.usage.one_probability
            if probability is not None:
                reason += f" (its probability of [ONE], {probability:.2g}, is too high)"
        await self._settle_plan(follower.report(len(self._graph)), reason, fallback)

    async def _settle_plan(self, report: PlanReport, reason: str | None, fallback: str) -> None:
        """No more lines will come: go on with the graph, or answer sequentially."""
        if len(self._graph) >= 2:
            await self._end_plan(report, reason)
            self._start_ready()
        elif self._mode is None:
            self._recorder.add(FALLBACKS, reason=fallback)
            await self._answer_sequentially(reason or "the plan has fewer than two parts", report)
        else:
            # The text of the only part has been shown already; the rest continues it.
            self._recorder.add(FALLBACKS, reason="plan_broke_off")
            await self._add_node(Node(2, REST_TITLE, (1,)))
            await self._end_plan(
                replace(report, nodes=2),
                f"{reason or 'the plan broke off'}; cut short to two parts",
            )
            self._start_ready()

    async def _end_plan(self, report: PlanReport, reason: str | None) -> None:
        self._plan_complete = True
        await self._choose_mode(self._planned_mode)
        await self._emit(PlanFinished(self._request.run, self._at(), report, reason))
        self._record_plan()

    def _record_plan(self) -> None:
        assert self._mode is not None
        self._journal.planned(self._graph, self._mode)

    @property
    def _planned_mode(self) -> Mode:
        """The mode of an answer that follows a plan."""
        return Mode.SKELETON if self._request.mode is Mode.SKELETON else Mode.PLATO

    async def _choose_mode(self, mode: Mode, reason: str | None = None) -> None:
        """Say how the question is answered, once, before the first text."""
        if self._mode is None:
            self._mode = mode
            await self._emit(ModeChosen(self._request.run, self._at(), mode, reason))

    async def _answer_sequentially(self, reason: str | None, plan: PlanReport = NO_PLAN) -> None:
        request = self._request
        prompt = self._layout.sequential(request.messages, request.tenant)
        if self._mode is not Mode.SEQUENTIAL:
            for task in self._nodes.values():
                task.cancel()
            if self._nodes:
                await asyncio.wait(self._nodes.values())
            self._nodes.clear()
            self._finished.clear()
            self._graph = PlanGraph()
            self._past = History()
            self._plan_complete = False
            await self._choose_mode(Mode.SEQUENTIAL, reason)
        node = Node(1, ANSWER_TITLE)
        if not self._graph:
            await self._add_node(node)
        if not self._plan_complete:
            await self._emit(PlanFinished(request.run, self._at(), plan))
            self._record_plan()
        room = self._config.context_length - len(prompt)
        budget = sequential_budget(request, self._config.sequential_max_tokens, room)
        self._start(node, NodePrompt(prompt, None, (), ()), budget, height=1, keep=None)

    async def _add_node(
        self, node: Node, plan: PlanReport | None = None, plan_tokens: tuple[int, ...] = ()
    ) -> None:
        if self._request.mode is Mode.SKELETON:
            node = replace(node, dependencies=())
        self._graph.add(node)
        self._planned_s[node.number] = self._at()
        await self._emit(NodePlanned(self._request.run, self._at(), node, plan, plan_tokens))

    def _start_ready(self) -> None:
        """Start every node whose dependencies are done, the one with most behind it first."""
        heights = self._graph.heights()
        ready = [
            node
            for node in self._graph
            if node.number not in self._nodes and self._finished.keys() >= set(node.dependencies)
        ]
        for node in sorted(ready, key=lambda node: (-heights[node.number], node.number)):
            budget = node_budget(self._request, node, self._config.node_max_tokens)
            prompt = self._conversation.node_prompt(
                self._graph, node.number, self._finished, budget
            )
            self._start(node, prompt, budget, heights[node.number], self._distance(node.number))

    def _distance(self, number: int) -> int | None:
        """How many other nodes must end before one can start that continues this one.

        `None` if none will. While the plan is still being written, its next line may need it.
        """
        if self._request.mode is Mode.SKELETON:
            return None
        if not self._plan_complete:
            return 0
        return min(
            (
                len(self._graph.ancestors(dependent) - self._finished.keys() - {number})
                for dependent in self._graph.dependents(number)
            ),
            default=None,
        )

    def _start(
        self, node: Node, prompt: NodePrompt, budget: int, height: int, keep: int | None
    ) -> None:
        shown = len(self._finished) >= node.number - 1
        request = GenerateRequest(
            run=self._request.run,
            node=node.number,
            prompt=prompt.prompt,
            max_tokens=budget,
            sampling=self._request.sampling,
            stop=StopConditions(end_tokens=not self._request.exact_lengths),
            priority=height,
            lease=self._lease,
            group_s=self._config.group_s if shown else self._config.hidden_group_s,
            keep=keep,
        )
        progress = NodeProgress(
            node, prompt, started_s=self._at(), planned_s=self._planned_s[node.number]
        )
        self._restore(progress)
        if progress.finish is not None:
            work = self._take_over(request, progress)
        else:
            work = self._decode(request, progress)
        self._nodes[node.number] = self._spawn(work)

    def _restore(self, progress: NodeProgress) -> None:
        """Put what another scheduler has got of a node into its progress."""
        number = progress.node.number
        output = self._past.output(number)
        if output is None:
            return
        known = self._tracker.node(number)
        if known is not None:
            progress.started_s = known.started_s or progress.started_s
            progress.first_token_s = known.first_token_s
            progress.finished_s = known.finished_s
            progress.replica, progress.epoch = known.replica, known.epoch
        progress.attempt = self._past.attempts(number)
        progress.emitted = list(output.tokens)
        progress.text = output.text
        progress.cached_tokens = output.cached_tokens
        progress.finish = output.finish

    async def _take_over(self, request: GenerateRequest, progress: NodeProgress) -> None:
        """A node that another scheduler has finished: its text is all that is needed."""
        assert progress.finish is not None
        progress.attempt -= 1
        run, number = self._request.run, progress.node.number
        if self._past.finished(number) is None:
            progress.finished_s = self._at()
            # Whole: who follows the run may have less of it than we do.
            await self._emit(
                NodeOutput(
                    run,
                    self._at(),
                    number,
                    progress.attempt,
                    0,
                    tuple(progress.emitted),
                    progress.text,
                    progress.cached_tokens,
                    progress.finish,
                )
            )
            report = progress.report(NodeState.DONE, self._prompt_text(request.prompt))
            await self._emit(NodeFinished(run, self._at(), number, progress.finish, report))
        self._finish(progress)

    def _finish(self, progress: NodeProgress) -> None:
        """Note the text of a node, and start what it makes ready."""
        number = progress.node.number
        self._finished[number] = NodeText(number, tuple(progress.emitted), progress.text)
        if self._mode is not Mode.SEQUENTIAL:
            self._start_ready()

    async def _decode(self, request: GenerateRequest, progress: NodeProgress) -> None:
        """Decode one node, and start what it makes ready."""
        run, number = self._request.run, progress.node.number
        text = self._prompt_text(request.prompt)

        async def starting(reason: str | None) -> None:
            report = progress.report(NodeState.RUNNING, text)
            await self._emit(NodeStarted(run, self._at(), number, progress.attempt, report, reason))

        await starting(None)

        async def show(chunk: Chunk) -> None:
            if chunk.text:
                await self._choose_mode(self._planned_mode)
            await self._emit(
                NodeOutput(
                    run=run,
                    at_s=self._at(),
                    number=number,
                    attempt=chunk.attempt,
                    offset=chunk.offset,
                    tokens=chunk.tokens,
                    text=chunk.text,
                    cached_tokens=chunk.cached_tokens,
                    finish=chunk.finish,
                )
            )

        try:
            await self._decoder.decode(request, progress, self._started, show, starting)
        except PlatoError:
            self._tracker.failed(progress.report(NodeState.FAILED, text))
            raise
        finally:
            if request.keep is not None and progress.replica:
                self._kept_at.add(progress.replica)
        assert progress.finish is not None
        report = progress.report(NodeState.DONE, text)
        self._journal.node_done(request, progress)
        await self._emit(NodeFinished(run, self._at(), number, progress.finish, report))
        self._finish(progress)

    def _prompt_text(self, prompt: Prompt) -> str | None:
        return self._decode_text(prompt.tokens) if self._request.include_prompts else None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        assert self._tasks is not None
        return self._tasks.create_task(work)

    async def _emit(self, event: RunEvent) -> None:
        async with self._emitting:
            event = replace(event, id=self._next_id)
            self._next_id = EventId(event.id.term, event.id.number + 1)
            self._tracker.feed(event)
            await self._events.put(event)
            if isinstance(event, RunFinished | RunFailed):
                return
            self._composer.feed(event)
            if self._composer.done and not self._tracker.settled and not self._complete.expired():
                self._complete.reschedule(asyncio.get_running_loop().time())

    def broken_off(self, code: str, message: str) -> RunFailed:
        """The last event of a run that was cancelled."""
        report = self._tracker.report(self._journal.degraded, ended_s=self._at())
        return RunFailed(
            run=self._request.run,
            at_s=self._at(),
            id=self._next_id,
            status=CANCELLED_STATUS if code == "cancelled" else 500,
            type="server_error",
            code=code,
            message=message,
            report=report,
        )

    def _at(self) -> float:
        return self._now() - self._started


def _first_failure(error: Exception, run: str) -> PlatoError:
    """The error to report of those that ended a run together."""
    failures = list(_flat(error))
    for failure in failures:
        if isinstance(failure, PlatoError):
            return failure
    logger.error("a run failed unexpectedly", exc_info=error, extra={"run": run})
    return PlatoError(
        f"the run failed unexpectedly ({type(failures[0]).__name__}); the server's log says more"
    )


def _flat(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _flat(inner)
    else:
        yield error

"""Branches are admitted by what they cost other runs; a run always decodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from math import e, inf

import pytest

from plato.engine import GenerateRequest, Load, Prompt, Replica, Segment
from plato.engine.step_times import StepCurve
from plato.metrics.table import FALLBACKS
from plato.prompting.model_tools import ModelTools
from plato.runs import Mode, NodeQueued, NodeStarted, PlanReport, RunState
from plato.runtime import LocalPool
from plato.scheduling.branches import (
    LOAD_S,
    AnsweredLoad,
    BranchAdmission,
    BranchPolicy,
    PlanCost,
)
from plato.scheduling.placement import Placement
from plato.scheduling.placement.neighbours import Neighbours
from plato.scheduling.placement.state import REPORT_S
from tests.recording import MemoryRecorder
from tests.scheduling.conftest import MakeScheduler
from tests.scheduling.helpers import (
    ScriptedPlanner,
    ScriptedPool,
    collect,
    finished,
    parts,
    question,
    watching,
)

SLOPE = StepCurve(((1, 0.020), (16, 0.050)))
"""20 ms, and 2 ms for each further sequence."""
SATURATED = StepCurve(((1, 0.020), (4, 0.025), (16, 0.100)))
"""Beyond four sequences a step takes as long as they would one after the other."""
ROOM = Neighbours(width=4, places=16, others=3, single=False, times=SLOPE)


@pytest.mark.parametrize(
    ("policy", "batch", "widest"),
    [
        # Alone: all places, however many are known.
        (BranchPolicy(1.15), replace(ROOM, others=0), 16),
        (BranchPolicy(1.15), replace(ROOM, others=0, places=0), inf),
        # Beside three sequential answers and one of its own, 26 ms without branches: 29.9 ms.
        (BranchPolicy(1.15), replace(ROOM, single=True), 5.95),
        # Where all have branches, as long as throughput rises.
        (BranchPolicy(1.15), ROOM, 16),
        (BranchPolicy(1.15), replace(ROOM, times=SATURATED), 4),
        # A target says itself how much is too much.
        (BranchPolicy(1.15, token_s=0.040), replace(ROOM, single=True), 11),
        (BranchPolicy(1.15, token_s=0.010), ROOM, 0),
        # Nothing is measured yet.
        (BranchPolicy(1.15), replace(ROOM, single=True, times=StepCurve()), 16),
        # Whatever it costs.
        (BranchPolicy(None), replace(ROOM, width=16, single=True), inf),
    ],
)
def test_branches_fill_a_batch_as_far_as_others_can_bear_it(
    policy: BranchPolicy, batch: Neighbours, widest: float
) -> None:
    assert policy.widest(batch) == pytest.approx(widest)
    assert policy.admits(batch) == (batch.width + 1 <= policy.widest(batch))


@pytest.mark.parametrize(
    ("policy", "batch", "cost", "plans"),
    [
        (BranchPolicy(1.15), replace(ROOM, width=0, others=0), PlanCost(9.0), True),
        # 16 sequences of such answers: 246 tokens/s. Four sequential ones take 154, 63 % of that.
        (BranchPolicy(1.15), ROOM, PlanCost(0.3), True),
        (BranchPolicy(1.15), ROOM, PlanCost(2.0), False),
        # With 2 tokens of prompts of 1 ms for every token 165, with three 142: 93 and 109 %.
        (BranchPolicy(1.15), replace(ROOM, prefill_s=0.001), PlanCost(0.3, 2.0), True),
        (BranchPolicy(1.15), replace(ROOM, prefill_s=0.001), PlanCost(0.3, 3.0), False),
        # Eleven sequential ones take 275.
        (BranchPolicy(1.15), replace(ROOM, others=10, width=10), PlanCost(0.3), False),
        # There is room for one more sequence only.
        (BranchPolicy(1.15), replace(ROOM, others=4, single=True, width=6), PlanCost(0.3), False),
        (BranchPolicy(None), replace(ROOM, others=10, width=10), PlanCost(9.0), True),
        # Its first line would take 25 steps of 20 ms.
        (BranchPolicy(1.15, 0.45), replace(ROOM, width=0, others=0), PlanCost(), False),
        (BranchPolicy(1.15, 0.55), replace(ROOM, width=0, others=0), PlanCost(), True),
        (BranchPolicy(1.15, token_s=0.031), ROOM, PlanCost(), True),
        (BranchPolicy(1.15, token_s=0.029), ROOM, PlanCost(), False),
    ],
)
def test_an_answer_is_planned_if_the_decoders_keep_up_with_plans(
    policy: BranchPolicy, batch: Neighbours, cost: PlanCost, plans: bool
) -> None:
    assert policy.plans(batch, cost) == plans


@pytest.mark.parametrize(("load", "plans"), [(230.0, True), (240.0, False)])
def test_what_is_answered_all_the_time_counts_where_little_is_answered_now(
    load: float, plans: bool
) -> None:
    # Of 246 tokens/s, 93 and 98 %.
    batch = replace(ROOM, width=1, others=1)
    assert BranchPolicy(1.15).plans(batch, PlanCost(0.3), load) == plans


def test_the_load_is_that_of_the_last_answers() -> None:
    now = 0.0
    load = AnsweredLoad(lambda: now)
    assert load.per_s == 0.0
    for _ in range(1000):
        now += 0.5
        load.note(50)
    assert load.per_s == pytest.approx(100, rel=0.02)
    now += LOAD_S
    assert load.per_s == pytest.approx(100 / e, rel=0.02)


def test_the_cost_of_plans_is_that_of_the_last_answers() -> None:
    report = RunState(question(Mode.PLATO)).report()
    planned = replace(
        report,
        mode=Mode.PLATO,
        plan=PlanReport("model", steps=50),
        output_tokens=100,
        prompt_tokens=900,
        cached_tokens=700,
    )
    cost = PlanCost(0.0, 0.0)
    for _ in range(60):
        cost = cost.updated(planned)
    assert (cost.steps, cost.prompt_tokens) == (
        pytest.approx(0.5, rel=0.01),
        pytest.approx(2.0, rel=0.01),
    )
    for other in (
        replace(planned, mode=Mode.SEQUENTIAL),
        replace(planned, plan=PlanReport("request")),
        replace(planned, output_tokens=0),
    ):
        assert cost.updated(other) is cost


class OneReplica:
    """A pool of which only the name matters."""

    def replicas(self) -> tuple[Replica, ...]:
        return (Replica("a"),)


class Gate:
    """Branch admission over one replica that reports what a test says."""

    def __init__(self, policy: BranchPolicy) -> None:
        self.placement = Placement(seed=1)
        self.branches = BranchAdmission(OneReplica(), self.placement, policy)  # type: ignore[arg-type]
        self.started: list[tuple[str, int]] = []
        self.delayed: dict[tuple[str, int], bool] = {}
        """Whether the engine may delay what was started."""
        self._nodes: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._ends: dict[tuple[str, int], asyncio.Event] = {}
        self.placement.choose(Prompt((Segment((1,)),)), OneReplica().replicas())
        self.observe()

    def observe(self, **load: int) -> None:
        self.placement.replicas.observe(
            "a", "e1", Load(**{"places": 16, "kv_free": 100_000, **load}, step_times=SLOPE)
        )

    def start(self, run_id: str, node: int, priority: int = 0) -> None:
        key = run_id, node
        self._ends[key] = asyncio.Event()
        self._nodes[key] = asyncio.create_task(self._decode(key, priority))

    async def _decode(self, key: tuple[str, int], priority: int) -> None:
        run_id, node = key
        prompt = Prompt((Segment((node,)),))
        request = GenerateRequest(run_id, node, prompt, max_tokens=8, priority=priority)
        async with self.branches.admitted(request) as admitted:
            self.delayed[key] = admitted.branch
            choice = self.placement.choose(prompt, OneReplica().replicas(), run_id=run_id)
            with self.placement.booked(choice):
                self.started.append(key)
                await self._ends[key].wait()

    async def end(self, run_id: str, node: int) -> None:
        self._ends[run_id, node].set()
        await self._nodes.pop((run_id, node))
        await self.settle()

    async def cancel(self, run_id: str, node: int) -> None:
        task = self._nodes.pop((run_id, node))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await self.settle()

    async def cancel_all(self, run_id: str) -> None:
        tasks = [self._nodes.pop(key) for key in list(self._nodes) if key[0] == run_id]
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(end) for end in ends} == {asyncio.CancelledError}
        await self.settle()

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    async def close(self) -> None:
        for task in self._nodes.values():
            task.cancel()
        await asyncio.gather(*self._nodes.values(), return_exceptions=True)
        await self.settle()
        assert self.branches.waiting == 0


@asynccontextmanager
async def gate(policy: BranchPolicy) -> AsyncIterator[Gate]:
    async with AsyncExitStack() as stack:
        found = Gate(policy)
        stack.push_async_callback(found.close)
        yield found


async def test_alone_a_run_has_all_its_branches_at_once() -> None:
    async with gate(BranchPolicy(1.15)) as nodes:
        for node in range(8):
            nodes.start("planned", node)
        await nodes.settle()
        assert len(nodes.started) == 8


async def test_beside_a_sequential_answer_further_branches_wait_until_others_end() -> None:
    async with gate(BranchPolicy(1.15)) as nodes:
        nodes.start("sequential", 1)
        for node in range(1, 6):
            nodes.start("planned", node)
        await nodes.settle()
        # Two sequences take 22 ms, so 25.3 ms are bearable: three.
        assert nodes.started == [("sequential", 1), ("planned", 1), ("planned", 2)]
        assert nodes.branches.waiting == 3
        await nodes.end("planned", 1)
        assert nodes.started[3:] == [("planned", 3)]
        await nodes.end("sequential", 1)
        assert len(nodes.started) == 6


async def test_all_nodes_of_a_run_but_the_first_may_be_delayed() -> None:
    async with gate(BranchPolicy(1.15)) as nodes:
        for run, node in (("planned", 1), ("planned", 2), ("sequential", 1)):
            nodes.start(run, node)
        await nodes.settle()
        for node in (1, 2):
            await nodes.end("planned", node)
        # Now it is the only one of its run; and an answer goes on elsewhere.
        nodes.start("planned", 3)
        await nodes.cancel("sequential", 1)
        nodes.start("sequential", 1)
        await nodes.settle()
        assert nodes.delayed == {
            ("planned", 1): False,
            ("planned", 2): True,
            ("planned", 3): True,
            ("sequential", 1): False,
        }
    async with gate(BranchPolicy(None)) as nodes:
        for node in (1, 2):
            nodes.start("planned", node)
        await nodes.settle()
        assert not any(nodes.delayed.values())


async def test_the_first_node_of_a_run_never_waits() -> None:
    async with gate(BranchPolicy(1.0, token_s=0.001)) as nodes:
        nodes.start("other", 1)
        for run in range(20):
            nodes.start(f"run-{run}", 1)
            nodes.start(f"run-{run}", 2)
        await nodes.settle()
        assert nodes.started[1:] == [(f"run-{run}", 1) for run in range(20)]
        await nodes.end("run-3", 1)
        assert nodes.started[-1] == ("run-3", 2)


async def test_the_run_with_the_fewest_branches_is_next_then_the_longest_path() -> None:
    async with gate(BranchPolicy(1.15, token_s=0.031)) as nodes:
        # Six sequences take 30 ms.
        for node in range(1, 4):
            nodes.start("wide", node)
        for node in range(1, 4):
            nodes.start("other", node)
        await nodes.settle()
        assert len(nodes.started) == 6
        nodes.start("wide", 4)
        nodes.start("other", 4, priority=1)
        nodes.start("other", 5, priority=3)
        await nodes.settle()
        await nodes.end("other", 1)
        assert nodes.started[6:] == [("other", 5)]
        await nodes.end("wide", 1)
        assert nodes.started[7:] == [("wide", 4)]


async def test_a_cancelled_branch_leaves_its_place_and_the_queue() -> None:
    async with gate(BranchPolicy(1.15)) as nodes:
        nodes.start("sequential", 1)
        for node in range(1, 5):
            nodes.start("planned", node)
        await nodes.settle()
        await nodes.cancel("planned", 3)
        assert nodes.branches.waiting == 1
        await nodes.cancel("planned", 1)
        assert nodes.started[-1] == ("planned", 4)


async def test_all_branches_of_a_run_may_be_cancelled_at_once() -> None:
    async with gate(BranchPolicy(1.15)) as nodes:
        nodes.start("sequential", 1)
        for node in range(1, 6):
            nodes.start("planned", node)
        await nodes.settle()
        await nodes.cancel_all("planned")
        assert nodes.branches.waiting == 0
        nodes.start("planned", 9)
        await nodes.settle()
        assert nodes.started[-1] == ("planned", 9)


async def test_runs_that_only_the_decoder_knows_count_as_sequential() -> None:
    async with gate(BranchPolicy(1.15)) as nodes:
        nodes.observe(running=1, runs=1)
        nodes.start("planned", 1)
        await nodes.settle()
        nodes.observe(running=2, runs=2)
        for node in range(2, 5):
            nodes.start("planned", node)
        await nodes.settle()
        assert nodes.started == [("planned", 1), ("planned", 2)]
        nodes.observe(running=2, runs=1)
        nodes.branches.recheck()
        await nodes.settle()
        assert len(nodes.started) == 4


async def test_runs_that_have_just_begun_count() -> None:
    async with gate(BranchPolicy(1.15)) as nodes:
        # Nothing is reported of them yet, and nothing booked.
        assert [nodes.branches.pays(f"run-{n}") for n in range(12)] == [
            *[True] * 7,
            *[False] * 5,
        ]
        for n in range(11):
            nodes.branches.note_ended(RunState(replace(question(), run_id=f"run-{n}")).report())
        assert nodes.branches.pays("run-11")


async def test_an_old_report_says_nothing_of_a_decoder_that_has_nothing_of_ours() -> None:
    now = 100.0
    placement = Placement(seed=1, clock=lambda: now)
    branches = BranchAdmission(OneReplica(), placement, BranchPolicy(1.15))  # type: ignore[arg-type]
    placement.choose(Prompt((Segment((1,)),)), OneReplica().replicas())
    crowd = Load(running=15, places=16, runs=15, step_times=SLOPE)
    placement.replicas.observe("a", "e1", crowd)
    assert not branches.pays("one")
    branches.note_ended(RunState(replace(question(), run_id="one")).report())
    now += REPORT_S + 0.1
    assert branches.pays("two")


async def test_auto_does_not_split_what_costs_others_too_much_and_plato_does(
    make_scheduler: MakeScheduler, pool: LocalPool
) -> None:
    planner, recorder = ScriptedPlanner(*parts((), ())), MemoryRecorder()
    scheduler = make_scheduler(pool, planner=planner, recorder=recorder)
    replicas = scheduler.placement.replicas
    replicas.update([replica.name for replica in pool.replicas()])
    crowd = Load(running=15, places=16, runs=15, kv_free=100_000, step_times=SLOPE)

    def crowded() -> None:
        for replica in pool.replicas():
            replicas.observe(replica.name, "elsewhere", crowd)

    crowded()
    report = finished(await collect(scheduler, question(Mode.AUTO)))
    assert report.mode is Mode.SEQUENTIAL
    assert "load" in (report.reason or "")
    assert recorder.total(FALLBACKS, reason="load") == 1
    assert planner.requests == []
    crowded()
    assert finished(await collect(scheduler, question(Mode.PLATO))).mode is Mode.PLATO
    crowded()
    given = question(Mode.AUTO, plan=parts((), ()))
    assert finished(await collect(scheduler, given)).mode is Mode.PLATO
    # What a decoder says later counts.
    report = finished(await collect(scheduler, question(Mode.AUTO)))
    assert report.mode is Mode.PLATO


async def test_a_branch_that_waits_is_reported_as_queued_until_it_starts(
    make_scheduler: MakeScheduler, tools: ModelTools
) -> None:
    pool = ScriptedPool(tools)
    pool.hold(1, 2)
    scheduler = make_scheduler(pool, planner=ScriptedPlanner(), branch_slowdown=1.0)
    replicas = scheduler.placement.replicas
    replicas.update(["scripted"])
    pool.load = Load(running=3, places=16, runs=3, step_times=SLOPE)
    replicas.observe("scripted", "epoch", pool.load)
    asked = question(Mode.PLATO, plan=parts((), ()))
    async with watching(scheduler, asked) as run:
        await run.until(lambda: len(run.of(NodeQueued)) == 2 and pool.started == [1])
        pool.resume(1)
        await run.until(lambda: [event.number for event in run.of(NodeStarted)] == [1, 2])
        pool.resume(2)
    order = [type(event) for event in run.events if isinstance(event, NodeQueued | NodeStarted)]
    assert order == [NodeQueued, NodeStarted, NodeQueued, NodeStarted] or order == [
        NodeQueued,
        NodeQueued,
        NodeStarted,
        NodeStarted,
    ]


def test_step_times_are_those_of_the_engine_or_of_the_chunks_that_came() -> None:
    placement = Placement(seed=1)
    placement.choose(Prompt((Segment((1,)),)), OneReplica().replicas())
    for reported in (StepCurve(), SLOPE):
        placement.replicas.observe("a", "e1", Load(step_times=reported))
        placement.replicas.note_step("a", 0.5)
        times = placement.replicas.neighbours("run", counted=False)["a"].times
        assert times.seconds(1) == (0.020 if reported else 0.5)

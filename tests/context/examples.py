"""Records with every field away from its default."""

from dataclasses import replace

from plato.context import NodeRecord, RunRecord
from plato.context.records import KVEventRecord
from plato.engine import FinishReason, KVEventBatch, SamplingParams, StoredPrefix
from plato.runs import (
    EventId,
    Length,
    Message,
    Mode,
    ModeChosen,
    Node,
    NodeCancelled,
    NodeFailed,
    NodeFinished,
    NodeOutput,
    NodePlanned,
    NodeQueued,
    NodeReport,
    NodeStarted,
    NodeState,
    PlanFinished,
    PlanReport,
    RunFailed,
    RunFinished,
    RunReport,
    RunRequest,
)

NODES = (Node(1, "Solar: coût et puissance"), Node(2, "Wind", (1,), 40, Length.LONG))

REQUEST = RunRequest(
    run_id="run-1",
    messages=(Message("system", "Be brief."), Message("user", "Solar or wind? ☀️")),
    tenant="acme",
    mode=Mode.PLATO,
    sampling=SamplingParams(
        temperature=0.7,
        top_p=0.9,
        seed=2**63 - 1,
        repetition_penalty=1.1,
        penalty_exempt=frozenset({5, 3, 9}),
        penalised=(4, 8),
        logit_bias=((7, -1.5), (8, 2.0)),
    ),
    stop=("\n\n", "END"),
    max_tokens=300,
    max_nodes=6,
    plan=NODES,
    exact_lengths=True,
    include_prompts=True,
    headings=True,
    deadline_s=12.5,
)

NODE = NodeRecord(
    run_id="run-1",
    tenant="acme",
    number=2,
    tokens=(11, 0, 49151),
    text="Wind is cheaper.",
    finish="stop",
    replica="decoder#1",
    epoch="e7",
)

RUN = RunRecord(
    run_id="run-1",
    tenant="acme",
    owner="scheduler#0",
    fence=1,
    mode=Mode.PLATO,
    state="running",
    nodes=NODES,
    plan_complete=True,
    request=b"\x00packed\xff",
    created_unix_s=1_790_000_000.25,
)

CHANGE = KVEventRecord(
    "decoder#1",
    "e7",
    KVEventBatch(
        3, stored=(StoredPrefix(b"\x00" * 15 + b"\xff", 128),), removed=(b"e" * 16, b"f" * 16)
    ),
)

PLAN = PlanReport("model", 2, 30, 20, 100, 60, 0.1, 0.01, 0.5, "decoder#1")

PART = NodeReport(
    number=2,
    title="Wind",
    dependencies=(1,),
    state=NodeState.DONE,
    length=Length.LONG,
    planned_s=0.2,
    started_s=0.3,
    first_token_s=0.4,
    finished_s=0.9,
    continues=1,
    sees=(1,),
    prompt_tokens=80,
    cached_tokens=60,
    predicted_cached_tokens=61,
    tokens=3,
    answer_tokens=2,
    cut="max_tokens",
    attempts=2,
    finish=FinishReason.STOP,
    replica="decoder#1",
    epoch="e7",
)

REPORT = RunReport(
    "run-1",
    Mode.AUTO,
    Mode.PLATO,
    "a reason",
    PLAN,
    (PART,),
    180,
    120,
    3,
    1.5,
    REQUEST.sampling,
    degraded=("context store",),
)

EVENTS = (
    ModeChosen("run-1", 0.1, Mode.PLATO, "a reason", id=EventId(1, 0)),
    NodePlanned("run-1", 0.2, NODES[0], PLAN, (5, 6, 7), id=EventId(1, 1)),
    NodePlanned("run-1", 0.25, NODES[1], id=EventId(1, 2)),
    PlanFinished("run-1", 0.3, PLAN, "cut short", id=EventId(1, 3)),
    NodeQueued("run-1", 0.35, 2, 1, PART, "decoder r0 died", id=EventId(2, 0)),
    NodeStarted("run-1", 0.36, 2, 1, PART, id=EventId(2, 1)),
    NodeOutput("run-1", 0.4, 2, 1, 0, (11, 0, 49151), "é☀️", 60, id=EventId(2, 2)),
    NodeOutput("run-1", 0.4, 2, 1, 3, (), "", 60, FinishReason.LENGTH, id=EventId(2, 3)),
    NodeFinished("run-1", 0.9, 2, FinishReason.STOP, PART, id=EventId(2, 4)),
    NodeFailed("run-1", 0.9, 3, PART, "part 3 could not be decoded", id=EventId(2, 5)),
    NodeCancelled("run-1", 0.9, 4, PART, id=EventId(2, 6)),
    RunFinished("run-1", 1.5, REPORT, id=EventId(2, 7)),
    RunFailed("run-1", 1.5, 429, "server_error", None, "m", "p", 2.5, REPORT, id=EventId(2, 8)),
)


def run(name: str = "run-1", tenant: str = "acme", fence: int = 1, owner: str = "a") -> RunRecord:
    return replace(RUN, run_id=name, tenant=tenant, fence=fence, owner=owner)


def node(name: str = "run-1", tenant: str = "acme", number: int = 1, text: str = "") -> NodeRecord:
    return replace(NODE, run_id=name, tenant=tenant, number=number, text=text)

"""Records with every field away from its default."""

from dataclasses import replace

from plato.context import KVHandle, NodeRecord, RunRecord
from plato.engine import SamplingParams
from plato.graph import Node
from plato.runs import Message, Mode, RunRequest

NODES = (Node(1, "Solar: coût et puissance"), Node(2, "Wind", (1,), max_tokens=40))

REQUEST = RunRequest(
    run="run-1",
    messages=(Message("system", "Be brief."), Message("user", "Solar or wind? ☀️")),
    tenant="acme",
    mode=Mode.PLATO,
    sampling=SamplingParams(
        temperature=0.7,
        top_p=0.9,
        seed=2**63 - 1,
        repetition_penalty=1.1,
        penalty_exempt=frozenset({5, 3, 9}),
        first_token_bias=((7, -1.5), (8, 2.0)),
    ),
    stop=("\n\n", "END"),
    max_tokens=300,
    max_nodes=6,
    plan=NODES,
    exact_lengths=True,
    include_prompts=True,
    deadline_s=12.5,
)

NODE = NodeRecord(
    run="run-1",
    tenant="acme",
    number=2,
    tokens=(11, 0, 49151),
    text="Wind is cheaper.",
    finish="stop",
    replica="decoder#1",
    epoch="e7",
)

RUN = RunRecord(
    run="run-1",
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

HANDLE = KVHandle(chain=b"\x00" * 15 + b"\xff", tokens=128, replica="decoder#1", epoch="e7")


def run(name: str = "run-1", tenant: str = "acme", fence: int = 1, owner: str = "a") -> RunRecord:
    return replace(RUN, run=name, tenant=tenant, fence=fence, owner=owner)


def node(name: str = "run-1", tenant: str = "acme", number: int = 1, text: str = "") -> NodeRecord:
    return replace(NODE, run=name, tenant=tenant, number=number, text=text)


def handle(chain: bytes = b"c" * 16, replica: str = "r0", epoch: str = "e0") -> KVHandle:
    return replace(HANDLE, chain=chain, replica=replica, epoch=epoch)

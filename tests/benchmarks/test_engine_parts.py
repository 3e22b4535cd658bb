import time
from pathlib import Path

import pytest

from benchmarks.engine.harness import Output, Workbench, request, timed_step
from benchmarks.engine.profile import Clocks, clocked_step
from benchmarks.engine.sharing import BRANCHES, OWN, run_fan


@pytest.fixture(scope="module")
def bench(tiny_model_folder: str) -> Workbench:
    return Workbench(Path(tiny_model_folder), quick=True)


def test_documents_do_not_begin_alike(bench: Workbench) -> None:
    documents = bench.documents(16, 288)
    assert {len(document) for document in documents} == {288}
    assert len({document[:4] for document in documents}) == 16


def test_a_step_is_full_when_every_sequence_decodes(bench: Workbench) -> None:
    core = bench.core("float32", prefill_chunk=16)
    outputs = [Output(), Output()]
    for prompt, output in zip(bench.documents(2, 16), outputs, strict=True):
        core.add(request(prompt, max_tokens=6), output)
    steps = []
    while core.has_work:
        steps.append(timed_step(core, outputs).full)
    # One prefill after the other, decoding together, and what is left of the second.
    assert steps == [False, False, True, True, True, True, False]


def test_branches_of_one_tenant_compute_their_prefix_once(bench: Workbench) -> None:
    prefix, own = bench.documents(1, 100)[0], bench.documents(BRANCHES, OWN)
    core = bench.core("float32")
    assert run_fan(core, prefix, own, shared=True).prefilled == 100 + BRANCHES * OWN
    assert run_fan(core, prefix, own, shared=False).prefilled == BRANCHES * (100 + OWN)


def test_clocks_count_the_time_of_inner_calls_once() -> None:
    clocks = Clocks()
    inner = clocks.wrap("inner", lambda: time.sleep(0.03))

    def outer() -> None:
        time.sleep(0.01)
        inner()
        inner()

    start = time.perf_counter()
    clocks.wrap("outer", outer)()
    total = time.perf_counter() - start
    assert clocks.seconds["inner"] >= 0.06
    assert sum(clocks.seconds.values()) == pytest.approx(total, rel=0.05)


def test_the_parts_of_a_step_add_up_to_it(bench: Workbench) -> None:
    core, output = bench.core("float32"), Output()
    core.add(request(bench.documents(1, 16)[0], max_tokens=6), output)
    with clocked_step(bench.model("float32")) as clocks:
        seconds = 0.0
        while core.has_work:
            seconds += timed_step(core, [output]).seconds
    assert {"linears", "head", "transformers", "sampling", "bookkeeping"} <= clocks.seconds.keys()
    assert sum(clocks.seconds.values()) == pytest.approx(seconds, rel=0.1)

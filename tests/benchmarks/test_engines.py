"""What `benchmarks.engines` does around the engines of others; they themselves are not started."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import pytest

from benchmarks.common.report import Report
from benchmarks.common.serving import launched
from benchmarks.engines.__main__ import kept_rows, metrics
from benchmarks.engines.conformance import read_outcome
from benchmarks.engines.direct import BRANCHES, OWN, PREFIX, Bench
from benchmarks.engines.environments import REQUIREMENTS
from benchmarks.engines.servers import ENGINES
from benchmarks.publish import engines as section
from plato.engine.torch import TorchEngine, TorchEngineConfig
from plato.ports import free_port
from tests.end_to_end.waiting import wait_until

OUTCOME = """<testsuites><testsuite>
<testcase name="a"/><testcase name="b"><failure/></testcase><testcase name="c"><error/></testcase>
<testcase name="d"><skipped/></testcase></testsuite></testsuites>"""
ROWS = [
    {"part": "conformance", "engine": "llama", "passed": 20, "failed": 1, "skipped": 0},
    {"part": "conformance", "engine": "vllm", "passed": 30, "failed": 2, "skipped": 0},
    *({"part": "speed", "engine": "vllm", "speedup": ratio} for ratio in (1.0, 2.0, 4.0)),
    {"part": "direct", "engine": "torch", "sibling_prefill_ratio": 1.0, "width_gain": 3.5},
]


def test_environments_are_pinned() -> None:
    for file in REQUIREMENTS.glob("*.txt"):
        for line in file.read_text().splitlines():
            assert line.startswith("#") or line.count("==") == 1, line
    for engine in ENGINES.values():
        assert engine.versions.keys() == set(engine.packages)


def test_the_outcome_of_tests_is_counted_and_none_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "outcome.xml"
    file.write_text(OUTCOME)
    assert read_outcome(file) == {"passed": 1, "failed": 2, "skipped": 1, "failures": ["b", "c"]}
    file.write_text('<testsuite><testcase name="d"><skipped/></testcase></testsuite>')
    with pytest.raises(RuntimeError, match="none of 1 tests ran"):
        read_outcome(file)


def test_figures_come_from_the_rows() -> None:
    found = metrics(ROWS)
    assert (found["conformance_failures"], found["speedup_vllm"]) == (3, 2.0)
    assert (found["sibling_prefill_ratio"], found["width_gain"]) == ({"torch": 1.0}, {"torch": 3.5})
    report = Report("engines", "model", {"quick": True}, metrics=found, rows=ROWS)
    shown = section(json.loads(json.dumps(vars(report))))
    assert "| vllm | 30 passed, 2 failed | 2 |  |  |" in shown
    assert "| torch |  |  | 3.5 | 1 |" in shown


def test_what_is_not_measured_again_is_kept_if_it_is_of_this_machine(tmp_path: Path) -> None:
    file = tmp_path / "engines.json"
    Report("engines", "model", {}, rows=ROWS).write(file)
    report = Report("engines", "model", {}, rows=[{"part": "speed", "engine": "vllm"}])
    assert kept_rows(file, report) == [row for row in ROWS if row["part"] != "speed"]
    report.machine = {"cpu": "another"}
    assert kept_rows(file, report) == []
    assert kept_rows(tmp_path / "missing", report) == []


def test_a_server_that_does_not_start_is_an_error_with_its_log(tmp_path: Path) -> None:
    for program, told in (
        ("print('no model'); raise SystemExit(3)", "ended after .*no model"),
        ("import time; print('slow', flush=True); time.sleep(60)", "is not ready after .*slow"),
    ):
        command = [sys.executable, "-c", program]
        began = time.perf_counter()
        with (
            pytest.raises(RuntimeError, match=f"(?s){told}"),
            launched(
                command,
                f"http://127.0.0.1:{free_port()}",
                ready="/",
                log=tmp_path / "log",
                deadline_s=1.0,
            ),
        ):
            pass
        assert time.perf_counter() - began < 10


def test_a_server_can_be_suspended_and_all_its_processes_end(tmp_path: Path) -> None:
    port = free_port()
    program = (
        "import subprocess, sys; child = subprocess.Popen(['sleep', '100']);"
        "print(child.pid, flush=True);"
        f"subprocess.run([sys.executable, '-m', 'http.server', '{port}', '-b', '127.0.0.1'])"
    )
    log = tmp_path / "log"
    url = f"http://127.0.0.1:{port}"
    with launched([sys.executable, "-c", program], url, ready="/", log=log) as server:
        child = int(log.read_text().split()[0])
        with server.suspended():
            wait_until(lambda: _state(child) == "T", 5, "the child is suspended")
        wait_until(lambda: _state(child) == "S", 5, "the child goes on")
    wait_until(lambda: _state(child) in ("Z", "gone"), 5, "the child has ended")


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "gone"


@pytest.mark.slow
def test_siblings_on_the_built_in_engine_compute_what_they_share_once(
    tiny_model_folder: str,
) -> None:
    config = TorchEngineConfig(
        tiny_model_folder, device="cpu", dtype="float32", kv_budget_bytes=16 << 20, threads=1
    )

    async def computed() -> int:
        engine = TorchEngine(config)
        count = await Bench(engine).siblings()
        await engine.close()
        return count

    assert asyncio.run(computed()) == PREFIX + BRANCHES * OWN

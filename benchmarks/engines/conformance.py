"""The conformance suite of engines, against the real ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.engines.environments import ROOT, make_environment
from benchmarks.engines.servers import RealEngine, Size

IN_PROCESS = ["tests/engine/test_conformance.py", "-k", "vllm-in-process"]
SERVER = [
    "tests/engine/test_conformance.py",
    "tests/engine/test_real_server.py",
    "-k",
    "real-server",
]
SIZE = Size(context=512, sequences=64)
DEADLINE_S = 1800.0


def check_conformance(engine: RealEngine, logs: Path) -> dict[str, Any]:
    """Run the suite; a row with what failed. Raises `RuntimeError` if it does not run at all."""
    outcome = logs / f"{engine.name}.xml"
    outcome.unlink(missing_ok=True)
    if engine.in_process:
        python = make_environment(engine.environment) / "python"
        _run(python, IN_PROCESS, {"PLATO_TEST_VLLM": "1"}, outcome)
    else:
        with engine.server(SIZE, logs / f"{engine.name}.log") as server:
            variables = {
                "PLATO_TEST_UPSTREAM": server.url,
                "PLATO_TEST_GROUP": str(server.pid),
                "PLATO_TEST_TOLERANCE": str(engine.tolerance),
            }
            _run(sys.executable, SERVER, variables, outcome)
    return read_outcome(outcome)


def _run(python: str | Path, tests: list[str], variables: dict[str, str], outcome: Path) -> None:
    """Run pytest; its output goes beside `outcome`."""
    log = outcome.with_name(f"{outcome.stem}-tests.log")
    with log.open("w") as output:
        try:
            subprocess.run(
                [python, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={outcome}", *tests],
                cwd=ROOT,
                env={**os.environ, **variables},
                stdout=output,
                stderr=output,
                timeout=DEADLINE_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"the tests take longer than {DEADLINE_S:g} s; see {log}") from error
    if not outcome.exists():
        raise RuntimeError(f"the tests did not run; see {log}")


def read_outcome(file: Path) -> dict[str, Any]:
    """What pytest's XML says: numbers of tests, and the names of those that failed.

    Raises `RuntimeError` if no test ran.
    """
    cases = list(ElementTree.parse(file).iter("testcase"))
    failed = [
        case.attrib["name"]
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    skipped = sum(case.find("skipped") is not None for case in cases)
    passed = len(cases) - len(failed) - skipped
    if passed + len(failed) == 0:
        raise RuntimeError(f"none of {len(cases)} tests ran")
    return {"passed": passed, "failed": len(failed), "skipped": skipped, "failures": failed}

"""The clients of the examples, and how their output is read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import clients
from benchmarks.clients import EXAMPLES, Client, read_clients, run, steps

LINES = [(0.1, "--- ask\n"), (1.1, "An answer,\n"), (1.2, "in two lines.\n"), (2.0, "--- stream\n")]


def results(*args: Any) -> list[tuple[str, str]]:
    return [(step["did"], step["result"]) for step in steps(*args)]


def test_each_step_has_its_output_and_its_time() -> None:
    ask, stream = steps([*LINES, (2.5, "text\n")], 3.0, None)
    assert ask == {
        "did": "ask",
        "result": "ok",
        "seconds": 1.9,
        "output": "An answer, in two lines.",
    }
    assert (stream["result"], stream["seconds"]) == ("ok", 1.0)


def test_a_step_without_output_and_a_process_that_fails_are_failures() -> None:
    assert results(LINES, 3.0, None) == [("ask", "ok"), ("stream", "no output")]
    assert results(LINES, 3.0, "Boom") == [("ask", "ok"), ("stream", "Boom")]
    assert results([], 0.1, "Boom") == [("start", "Boom")]


@pytest.mark.parametrize(
    ("program", "result"),
    [
        ("import os; print('--- ask'); print(os.environ['OPENAI_BASE_URL'])", "ok"),
        ("print('--- ask'); print('text'); raise ValueError('gone')", "ValueError: gone"),
        ("import time; print('--- ask', flush=True); time.sleep(60)", "exit status -9"),
    ],
)
async def test_an_example_is_run(
    program: str, result: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "EXAMPLE_DEADLINE_S", 2.0)
    script = tmp_path / "ask.sh"
    script.write_text(f'exec {sys.executable} -c "{program}"')
    (row,) = await run(Client("python3", (str(script),)), str(script), "http://there/v1")
    assert (row["did"], row["result"]) == ("ask", result)


def test_every_example_has_a_client_with_an_exact_version() -> None:
    listed = {example for client in read_clients() for example in client.examples}
    kept = {
        str(path.relative_to(EXAMPLES))
        for kind in ("*.py", "*.sh", "node/*.mjs")
        for path in EXAMPLES.glob(kind)
    }
    assert listed == kept
    for client in read_clients():
        assert all("==" in package for package in client.python)
        assert client.version

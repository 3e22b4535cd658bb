"""Questions of the command, to a server that replays and to the tiny model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from plato.api.answers.run_info import PlatoInfo, Usage
from plato.cli.plan_file import read_plan
from plato.runs import (
    Length,
    Mode,
    ModeChosen,
    Node,
    NodePlanned,
    NodeReport,
    NodeState,
    PlanFinished,
    PlanReport,
    RunState,
)
from tests.cli.running import plato, refused
from tests.replaying import DONE, ReplayServer, delta, event, happened
from tests.runs.examples import request

NODES = (
    NodeReport(1, "Salt", (), NodeState.DONE, tokens=5, answer_tokens=5),
    NodeReport(2, "Depth", (1,), NodeState.DONE, tokens=6, answer_tokens=6, cut="budget"),
)
QUESTION = "Why is the sea salty?"
LINES = "1 | Salt | -\n2 | - | Depth\n3 | Both | 1,2 | long\n[END]\n"
PARTS = [
    {"number": 1, "title": "Salt", "dependencies": []},
    {"number": 2, "title": "Depth", "dependencies": []},
    {"number": 3, "title": "Both", "dependencies": [1, 2], "length": "long"},
]


@pytest.fixture(autouse=True)
def model(tiny_model_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model, and short parts."""
    monkeypatch.setenv("PLATO_MODEL", tiny_model_folder)
    monkeypatch.setenv("PLATO_NODE_MAX_TOKENS", "6")
    monkeypatch.setenv("PLATO_KV_BUDGET_MB", "16")


def planned(part: dict[str, Any]) -> bytes:
    length = Length(part["length"]) if "length" in part else None
    node = Node(part["number"], part["title"], tuple(part["dependencies"]), length=length)
    return happened(NodePlanned("r1", 0.1, node))


def report(reason: str | None = None) -> bytes:
    ended = replace(RunState(request()).report(), reason=reason, nodes=NODES)
    usage = {"choices": [], "usage": Usage.of(ended).model_dump(mode="json")}
    return delta(finish="stop", **PlatoInfo.of(ended).model_dump(mode="json")) + event(usage)


CHOSEN = happened(ModeChosen("r1", 0.2, Mode.PLATO))
PLAN_FINISHED = happened(PlanFinished("r1", 0.3, PlanReport("model", 3)))


class TestAsk:
    def test_the_answer_goes_to_stdout_and_the_rest_to_stderr(self) -> None:
        with ReplayServer(
            planned(PARTS[0]), CHOSEN, delta("It "), delta("is."), report(), DONE
        ) as s:
            result = plato("ask", QUESTION, "--url", s.url, "--max-tokens", "50")
            (body,) = s.bodies
        assert result.exit_code == 0
        assert result.stdout == "It is.\n"
        assert "mode plato" in result.stderr
        assert "─ ✓ 2 Depth  needs 1" in result.stderr
        assert "note: part 2 was cut at 6 tokens" in result.stderr
        assert "\x1b" not in result.output
        assert body["max_tokens"] == 50
        assert body["plato"] == {"events": True, "mode": "auto", "headings": True}

    def test_the_answer_comes_while_it_is_written(self) -> None:
        more = threading.Event()
        with ReplayServer(delta("It "), more, delta("is."), report(), DONE) as server:
            command = [sys.executable, "-c", "from plato.cli import main; main()"]
            with subprocess.Popen(
                [*command, "ask", QUESTION, "--url", server.url],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            ) as process:
                assert process.stdout is not None
                assert os.read(process.stdout.fileno(), 100) == b"It "
                more.set()
                assert process.stdout.read() == b"is.\n"
                assert process.wait(10) == 0

    def test_json_is_one_object(self) -> None:
        with ReplayServer(CHOSEN, delta("It is."), report(reason="late"), DONE) as server:
            result = plato("ask", QUESTION, "--url", server.url, "--json")
        told = json.loads(result.stdout)
        assert (told["answer"], told["finish_reason"]) == ("It is.", "stop")
        assert told["plato"]["reason"] == "late"
        assert result.stderr == ""

    def test_a_plan_from_a_file_is_followed_in_this_process(self, tmp_path: Path) -> None:
        file = tmp_path / "plan.txt"
        file.write_text(LINES)
        result = plato("ask", QUESTION, "--local", "--plan", str(file), "--json")
        assert result.exit_code == 0, result.stderr
        told = json.loads(result.stdout)
        nodes = told["plato"]["graph"]["nodes"]
        assert [node["sees"] for node in nodes] == [[], [], [1, 2]]
        for part in PARTS:
            assert f"## {part['title']}" in told["answer"]

    def test_wrong_settings_and_models_are_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PLATO_DECODERS", "0")
        assert "PLATO_DECODERS" in refused("ask", QUESTION, "--local")
        monkeypatch.delenv("PLATO_DECODERS")
        (tmp_path / "config.json").write_text("{}")
        monkeypatch.setenv("PLATO_MODEL", str(tmp_path))
        assert str(tmp_path) in refused("ask", QUESTION, "--local", code=1)

    def test_ctrl_c_ends_quietly_and_hangs_up(self) -> None:
        with ReplayServer(delta("It "), threading.Event()) as server:
            command = [sys.executable, "-c", "from plato.cli import main; main()"]
            process = subprocess.Popen(
                [*command, "ask", QUESTION, "--url", server.url],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            assert process.stdout is not None
            assert os.read(process.stdout.fileno(), 100) == b"It "
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=10)
            assert (process.returncode, stderr) == (130, b"")
            assert server.left.wait(5)


class TestPlan:
    def test_it_prints_the_plan_and_leaves(self) -> None:
        with ReplayServer(
            planned(PARTS[0]),
            planned(PARTS[1]),
            planned(PARTS[2]),
            CHOSEN,
            PLAN_FINISHED,
            threading.Event(),
        ) as server:
            result = plato("plan", QUESTION, "--url", server.url)
            assert server.left.wait(5)
        assert result.exit_code == 0
        assert result.stdout.splitlines() == [
            "plan (plato)",
            "┌ 1 Salt",
            "└ 2 Depth",
            "▼",
            "─ 3 Both  needs 1, 2",
        ]

    def test_a_question_without_a_plan_says_why(self) -> None:
        pieces = (
            happened(ModeChosen("r1", 0.2, Mode.SEQUENTIAL, "no [b] plan")),
            planned({"number": 1, "title": "Answer", "dependencies": []}),
            PLAN_FINISHED,
        )
        with ReplayServer(*pieces, DONE) as server:
            result = plato("plan", QUESTION, "--url", server.url)
            as_json = plato("plan", QUESTION, "--url", server.url, "--json")
        assert (result.stdout, result.stderr) == ("", "note: no [b] plan\n")
        told = json.loads(as_json.stdout)
        assert told == {"mode": "sequential", "reason": "no [b] plan", "plan": []}

    @pytest.mark.slow
    def test_the_model_plans_in_this_process_and_its_plan_can_be_handed_in(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Random titles are debris; this takes any.
        monkeypatch.setenv("PLATO_EQUAL_WORK", "true")
        result = plato("plan", QUESTION, "--local", "--json")
        assert result.exit_code == 0, result.stderr
        plan = json.loads(result.stdout)
        assert plan["mode"] == "plato"
        file = tmp_path / "plan.json"
        file.write_text(result.stdout)
        assert read_plan(file) == plan["plan"]

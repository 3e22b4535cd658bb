"""Commands against a real server: runs, exports, batches, measurements, conversations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.running import plato, printed, refused
from tests.end_to_end.server import Server

pytestmark = pytest.mark.slow

KEY = "sk-a-key-of-one-tenant"
QUESTION = "Why is the sea salty?"
PLAN = [{"title": "Salt"}, {"title": "Depth"}, {"title": "Both", "dependencies": [1, 2]}]


@pytest.fixture(scope="module")
def server(tiny_model_folder: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """In one process, with the tiny model and a key."""
    command = ("plato", "serve", "--embedded", "--api-key", KEY)
    folder = tmp_path_factory.mktemp("server")
    settings = {"served_model_name": "tiny", "kv_budget_mb": 16, "node_max_tokens": 12}
    with Server(
        folder, command, model=tiny_model_folder, sequential_max_tokens=24, **settings
    ) as running:
        yield running


@pytest.fixture(autouse=True)
def at_the_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATO_URL", server.url)
    monkeypatch.setenv("PLATO_API_KEY", KEY)


@pytest.fixture(scope="module")
def run(server: Server) -> dict[str, Any]:
    """A run that has ended."""
    body = {
        "messages": [{"role": "user", "content": QUESTION}],
        "plato": {"mode": "plato", "plan": PLAN, "headings": True},
    }
    headers = {"Authorization": f"Bearer {KEY}"}
    created = httpx.post(f"{server.url}/v1/runs", json=body, headers=headers, timeout=30)
    run_id = created.raise_for_status().json()["id"]
    found: dict[str, Any] = printed("runs", "watch", run_id, "--url", server.url, "--api-key", KEY)
    assert found["status"] == "done"
    return found


def test_a_start_ends_with_what_can_be_done(server: Server) -> None:
    lines = [line.split() for line in server.log.splitlines() if line.startswith(" ")]
    for words in (
        ["page", f"{server.url}/"],
        ["API", f"{server.url}/v1"],
        ["metrics", f"{server.url}/metrics"],
        ["key", KEY],
    ):
        assert words in lines
    stages = [line for line in server.log.splitlines() if " s  " in line]
    assert [stage.split()[2] for stage in stages][:2] == ["looking", "loading"]


class TestAsk:
    def test_the_question_can_come_from_standard_input(self) -> None:
        asked = plato("ask", "Answer:", "-", "--max-tokens", "4", stdin=QUESTION)
        assert asked.exit_code == 0, asked.stderr
        answer = printed("ask", "--max-tokens", "4", stdin=QUESTION)
        shown = printed("runs", "show", answer["plato"]["run"])
        assert shown["question"] == QUESTION

    def test_words_are_one_question(self) -> None:
        answer = printed("ask", "Why", "is", "it?", "--max-tokens", "4")
        assert printed("runs", "show", answer["plato"]["run"])["question"] == "Why is it?"

    def test_system_sampling_and_seed_reach_the_server(self) -> None:
        options = ("-s", "Be brief.", "-o", "temperature=0.7", "-o", "max_nodes=3", "--seed", "5")
        answer = printed("ask", QUESTION, *options)
        sampling = answer["plato"]["sampling"]
        assert (sampling["temperature"], sampling["seed"]) == (0.7, 5)

    def test_events_are_lines_and_the_last_one_is_the_answer(self) -> None:
        asked = plato("ask", QUESTION, "--mode", "sequential", "--events")
        *events, last = map(json.loads, asked.stdout.splitlines())
        assert events[0]["type"] in ("mode_chosen", "node_planned")
        assert {event["type"] for event in events} >= {"node_started", "node_finished"}
        assert last["answer"]
        assert last["plato"]["mode"] == "sequential"

    def test_both_ways_are_compared(self) -> None:
        both = printed("ask", QUESTION, "--mode", "skeleton", "--compare")
        assert list(both) == ["sequential", "skeleton"]
        assert all(answer["duration_s"] > 0 for answer in both.values())
        shown = plato("ask", QUESTION, "--mode", "plato", "--compare").stderr
        assert [line.split()[0] for line in shown.splitlines()[-4:]] == [
            "time",
            "first",
            "tokens",
            "tokens/s",
        ]

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            ((" ",), "the question is empty; write one"),
            ((), "the question is empty; write one"),
            ((QUESTION, "-o", "temperature"), "write KEY=VALUE"),
            ((QUESTION, "--compare", "--mode", "sequential"), "--compare needs another mode"),
            ((QUESTION, "--compare", "--events"), "--events is for one answer"),
        ],
    )
    def test_what_is_wrong_is_told(self, arguments: tuple[str, ...], named: str) -> None:
        assert named in refused("ask", *arguments, stdin="")

    def test_a_field_that_is_refused_is_named(self) -> None:
        line = refused("ask", QUESTION, "-o", "temperature=9", code=4)
        assert line.startswith("'temperature' should be less than or equal to 2")

    def test_another_key_is_refused(self) -> None:
        line = refused("ask", QUESTION, "--api-key", "sk-of-nobody-in-particular", code=4)
        assert "key" in line


def test_a_conversation_remembers_what_was_said() -> None:
    lines = ["Hello", "/mode sequential", "/nonsense", "And again", "/new", "/exit", "not asked"]
    said = plato("chat", "--max-tokens", "6", stdin="\n".join(lines))
    assert said.exit_code == 0, said.stderr
    assert "the next answers are sequential" in said.stderr
    assert "/new begins anew" in said.stderr
    listed = printed("runs", "ls", "-n", "2")["data"]
    assert [run["question"] for run in listed] == ["And again", "Hello"]
    later = printed("runs", "show", listed[0]["id"])["plato"]["usage"]["prompt_tokens"]
    first = printed("runs", "show", listed[1]["id"])
    assert listed[0]["mode"] == "sequential"
    assert later > 0
    assert first["answer"] in said.stdout


class TestRuns:
    def test_they_are_listed_newest_first(self, run: dict[str, Any]) -> None:
        listed = printed("runs", "ls", "-n", "100")
        assert run["id"] in [each["id"] for each in listed["data"]]
        assert printed("runs", "ls", "--status", "running")["data"] == []
        assert run["id"] in plato("runs", "ls", "-n", "100").stdout

    def test_one_is_shown(self, run: dict[str, Any]) -> None:
        assert printed("runs", "show", run["id"])["answer"] == run["answer"]
        assert "3 Both  needs 1, 2" in plato("runs", "show", run["id"]).stderr

    def test_in_a_file_its_text_is_as_it_was_written(
        self, run: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "20")
        assert plato("runs", "show", run["id"]).stdout == f"{run['answer']}\n"

    def test_one_is_watched_to_its_end(self, run: dict[str, Any]) -> None:
        assert plato("runs", "watch", run["id"]).stdout == f"{run['answer']}\n"

    def test_one_is_cancelled(self, run: dict[str, Any]) -> None:
        assert plato("runs", "cancel", run["id"]).stdout == f"{run['id']} done\n"

    def test_one_that_is_not_there_is_refused(self) -> None:
        for command in ("show", "watch", "cancel"):
            assert "nothing" in refused("runs", command, "nothing", code=4)

    def test_one_is_exported(self, run: dict[str, Any], tmp_path: Path) -> None:
        (recording,) = json.loads(plato("runs", "export", run["id"]).stdout)
        assert recording["run"] == run
        assert recording["events"][-1]["type"] == "run_finished"
        document = plato("runs", "export", run["id"], "-f", "md").stdout
        assert run["answer"] in document
        graph = plato("runs", "export", run["id"], "-f", "mermaid").stdout
        assert "    n1 --> n3" in graph.splitlines()
        file = tmp_path / "trace.json"
        assert plato("runs", "export", run["id"], "-f", "trace", "-o", str(file)).exit_code == 0
        spans = json.loads(file.read_text())["traceEvents"]
        decoded = {span["tid"]: span for span in spans if span["name"] == "decode"}
        begin = max(decoded[number]["ts"] + decoded[number]["dur"] for number in (1, 2))
        assert decoded[3]["ts"] >= begin

    def test_a_page_replays_it(self, run: dict[str, Any], tmp_path: Path) -> None:
        file = tmp_path / "run.html"
        assert plato("trace", run["id"], "--html", str(file)).exit_code == 0
        page = file.read_text()
        assert 'src="web/' not in page
        assert "./web/" not in page
        nowhere = str(tmp_path / "none" / "run.html")
        assert "cannot be written" in refused("trace", run["id"], "--html", nowhere)


class TestBatch:
    def test_it_answers_all_and_resumes(self, tmp_path: Path) -> None:
        file = tmp_path / "questions.jsonl"
        asked = [
            {"question": QUESTION, "max_tokens": 4},
            {"id": "two", "messages": [{"role": "user", "content": "And?"}], "mode": "sequential"},
            {"custom_id": "three", "url": "/v1/chat/completions", "body": {"question": "Or?"}},
            {"id": "bad", "question": "Hm?", "temperature": 9},
        ]
        file.write_text("\n".join(map(json.dumps, asked)))
        result = plato("batch", str(file), "-c", "2", "--max-tokens", "6")
        assert result.exit_code == 1
        assert "4 questions: 3 answered, 0 before, 1 failed" in result.stderr
        target = tmp_path / "questions.answers.jsonl"
        lines = {line["id"]: line for line in map(json.loads, target.read_text().splitlines())}
        assert lines.keys() == {"1", "two", "three", "bad"}
        assert lines["1"]["usage"]["completion_tokens"] == 4
        assert lines["two"]["plato"]["mode"] == "sequential"
        assert lines["bad"]["error"]["param"] == "temperature"

        with target.open("a") as half:
            half.write('{"id": "half')
        asked[3]["temperature"] = 0
        file.write_text("\n".join(map(json.dumps, asked)))
        result = plato("batch", str(file))
        assert result.exit_code == 0
        assert "4 questions: 1 answered, 3 before, 0 failed" in result.stderr
        again = {line["id"]: line for line in map(json.loads, target.read_text().splitlines())}
        assert {name: again[name] for name in ("1", "two", "three")} == {
            name: lines[name] for name in ("1", "two", "three")
        }
        assert again["bad"]["answer"]

    @pytest.mark.parametrize(
        ("content", "named"),
        [
            ("{", "line 1 of"),
            ('{"question": "a"}\n[]', "line 2 of"),
            ("{}", "is no question"),
            ('{"question": " "}', "is no question"),
            (
                '{"id": 1, "question": "a"}\n{"id": 1, "question": "b"}',
                "has the id 1 of an earlier",
            ),
        ],
    )
    def test_a_line_that_is_wrong_is_named(self, content: str, named: str, tmp_path: Path) -> None:
        file = tmp_path / "questions.jsonl"
        file.write_text(content)
        assert named in refused("batch", str(file))


def test_a_server_is_measured() -> None:
    options = ("-n", "2", "-c", "1", "-c", "2", "--max-tokens", "6")
    rows = printed("bench", *options, "--model", "tiny:sequential", "--model", "tiny")
    assert [(row["model"], row["concurrency"], row["answered"]) for row in rows] == [
        ("tiny:sequential", 1, 2),
        ("tiny:sequential", 2, 2),
        ("tiny", 1, 2),
        ("tiny", 2, 2),
    ]
    assert all(0 < row["first_text_p50_s"] <= row["duration_p50_s"] for row in rows)
    assert all(row["tokens_per_s"] > 0 for row in rows)
    assert "tokens/s" in plato("bench", "-n", "1", "-c", "1", "--max-tokens", "4").stdout
    assert "'nobody' does not exist" in refused("bench", "--model", "nobody", code=4)

"""The steps of `python -m benchmarks.quality`, with a real runtime in this process."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from benchmarks.common.rows import read_rows, write_rows
from benchmarks.quality.__main__ import main
from benchmarks.quality.answers import Answer, Part
from benchmarks.quality.pairs import Key, Pair, Verdict
from plato.runtime import Runtime
from plato.settings import Settings
from tests.benchmarks.quality.foreign import ANSWER, foreign_server
from tests.serving import serving

QUESTIONS = [
    {"question_id": 1, "category": "generic", "turns": ["How do I plan a garden?"]},
    {"id": "b", "category": "writing", "text": "What is rain?"},
    {"id": "c", "question": "How much is 2 + 2?"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = "\n".join(json.dumps(question) for question in QUESTIONS)
    (tmp_path / "questions.jsonl").write_text(lines)
    labels = "label;request\n1;How do I plan a garden?\n1;What is rain?\n0;How much is 2 + 2?\n"
    (tmp_path / "labels.csv").write_text(labels)
    return tmp_path


def asking(folder: Path, *more: str) -> list[str]:
    paths = {"--questions": "questions.jsonl", "--labels": "labels.csv", "--out": "answers.jsonl"}
    given = [item for option, name in paths.items() for item in (option, str(folder / name))]
    return ["answer", *given, *more]


def test_answers_are_kept_compared_and_blinded(folder: Path, tiny_model_folder: str) -> None:
    settings = [
        "max_nodes=3",
        "max_title_words=2",
        "equal_work=true",
        "node_max_tokens=12",
        "served_model_name=small",
    ]
    main(asking(folder, "--max-tokens", "30", "--model", tiny_model_folder, *settings))
    answers = read_rows(folder / "answers.jsonl", Answer)
    assert [(one.id, one.mode) for one in answers] == [
        *(("1", "sequential"), ("1", "plato"), ("1", "skeleton")),
        *(("b", "plato"), ("b", "skeleton"), ("b", "sequential")),
    ]
    assert {(one.id, one.category, one.model) for one in answers} == {
        ("1", "generic", "small"),
        ("b", "writing", "small"),
    }
    for one in answers:
        assert one.text
        assert 0 < one.tokens <= 30
        assert one.latency_s > 0
        if one.split:
            assert one.text.startswith(one.parts[0].text.strip())
            assert all(part.title for part in one.parts)
        else:
            assert [(part.title, part.text) for part in one.parts] == [("", one.text)]
    assert any(one.split for one in answers)

    path = str(folder / "answers.jsonl")
    main(["metrics", path, "--json", str(folder / "metrics.json")])
    found = json.loads((folder / "metrics.json").read_text())["metrics"]
    assert found["plato/sequential"]["questions"] == 2
    assert found["plato/sequential"]["all"]["length_ratio"] > 0

    blinded = ["--pairs", str(folder / "pairs.jsonl"), "--key", str(folder / "key.jsonl")]
    main(["pairs", path, *blinded])
    pairs = read_rows(folder / "pairs.jsonl", Pair)
    texts = {one.text for one in answers}
    assert len(pairs) == 4
    assert all({pair.answer_1, pair.answer_2} <= texts for pair in pairs)

    sides = {key.pair: key.side for key in read_rows(folder / "key.jsonl", Key)}
    verdicts = [Verdict(pair, "1>2" if side == 1 else "2>1") for pair, side in sides.items()]
    write_rows(folder / "verdicts.jsonl", verdicts)
    given = [str(folder / "key.jsonl"), str(folder / "verdicts.jsonl")]
    main(["report", *given, "--json", str(folder / "report.json")])
    report = json.loads((folder / "report.json").read_text())
    assert report["metrics"]["net_win"] == 1.0
    assert report["settings"]["against"] == "sequential"


async def test_answers_of_a_server_are_those_of_the_process(
    folder: Path, tiny_model_folder: str
) -> None:
    settings = Settings(
        model=tiny_model_folder,
        served_model_name="tiny",
        kv_budget_mb=64,
        max_nodes=3,
        max_title_words=2,
        equal_work=True,
        node_max_tokens=12,
    )
    async with await Runtime.open(settings) as runtime, serving(runtime.service, settings) as url:
        ask = asking(folder, "--url", url, "--max-tokens", "40", "--modes", "plato", "sequential")
        await asyncio.to_thread(main, ask)
    answers = read_rows(folder / "answers.jsonl", Answer)
    assert [one.model for one in answers] == ["tiny"] * 4
    for one in answers:
        assert 0 < one.tokens <= 40
        assert one.text.startswith(one.parts[0].text.strip())
    split = [one for one in answers if one.split]
    assert split
    assert all(any(part.text for part in one.parts[1:]) for one in split if one.tokens < 40)


def test_any_server_gives_plain_answers_and_verdicts(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with foreign_server() as url:
        assert "not served by Plato; use --modes sequential" in refused(
            asking(folder, "--url", url, "--modes", "plato"), capsys
        )
        main(asking(folder, "--url", f"{url}/v1"))
        answers = read_rows(folder / "answers.jsonl", Answer)
        assert [(one.id, one.mode, one.model) for one in answers] == [
            ("1", "sequential", "large"),
            ("b", "sequential", "large"),
        ]
        assert {(one.text, one.tokens) for one in answers} == {(ANSWER, 7)}
        assert all(one.parts == (Part("", (), 7, "length", ANSWER),) for one in answers)

        write_rows(folder / "pairs.jsonl", [Pair(str(n), "What?", "a", "b") for n in range(3)])
        judge = ["--judge-url", url, "--judge-model", "large", "--concurrency", "2"]
        main(["judge", str(folder / "pairs.jsonl"), "--out", str(folder / "v.jsonl"), *judge])
    verdicts = read_rows(folder / "v.jsonl", Verdict)
    assert {(one.pair, one.verdict) for one in verdicts} == {(str(n), "1>2") for n in range(3)}


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code
    return capsys.readouterr().err


def test_bad_input_says_what_to_change(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no setting max_node" in refused(asking(folder, "max_node=2"), capsys)
    (folder / "labels.csv").write_text("label;request\n1;What is rain?\n")
    assert "question 1 has no label" in refused(asking(folder), capsys)
    (folder / "labels.csv").write_text("1;What is rain?\n")
    assert "first line must be 'label;request'" in refused(asking(folder), capsys)
    (folder / "questions.jsonl").write_text('{"task": "rain"}\n')
    assert "line 1: a question needs 'question'" in refused(asking(folder), capsys)
    (folder / "questions.jsonl").write_text('{"id": 1, "text": "a"}\n{"id": 1, "text": "b"}')
    assert "two questions have the id 1" in refused(asking(folder), capsys)
    nobody = asking(folder, "--url", "http://127.0.0.1:9")
    (folder / "questions.jsonl").write_text('{"text": "What is rain?"}')
    (folder / "labels.csv").write_text("label;request\n1;What is rain?\n")
    assert "lists no model" in refused(nobody, capsys)
    (folder / "answers.jsonl").write_text("")
    none = ["pairs", str(folder / "answers.jsonl"), "--pairs", "x", "--key", "y"]
    assert "no answers in mode plato" in refused(none, capsys)
    assert "cannot be read" in refused(["metrics", str(folder / "nothing")], capsys)

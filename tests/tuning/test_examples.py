"""The examples that come with the package, and how files of examples are read."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from plato.errors import InvalidRequestError
from plato.planning.titles import refusal
from plato.runs import Length
from plato.settings import Settings
from plato.tuning.examples import Example, Kind, read_examples

EXAMPLES = read_examples()
SPLIT = [example for example in EXAMPLES if example.plan]
ORDINARY = [example for example in EXAMPLES if example.is_ordinary]
WRITTEN = [example for example in SPLIT if example.texts]
TEXTS = [text for example in WRITTEN for text in example.texts if text]
SENTENCES = {Length.SHORT: (1, 2), Length.MEDIUM: (2, 5), Length.LONG: (4, 9)}


def words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.casefold())


def trigrams(text: str) -> set[tuple[str, ...]]:
    found = words(text)
    return set(zip(found, found[1:], found[2:], strict=False))


def shape(example: Example) -> str:
    needs = [node.dependencies for node in example.plan]
    if not any(needs):
        return "independent"
    chain = [(), *((number,) for number in range(1, len(needs)))]
    return "chain" if needs == chain else "mixed"


def test_there_are_enough_of_every_kind() -> None:
    assert len(EXAMPLES) >= 1500
    assert len(EXAMPLES) - len(SPLIT) - len(ORDINARY) >= 300
    assert len(ORDINARY) >= 440
    assert len(WRITTEN) >= 650
    assert len(TEXTS) >= 2200
    kinds = Counter(example.kind for example in EXAMPLES)
    assert min(kinds[kind] for kind in Kind) >= 20


def test_graphs_are_of_all_shapes() -> None:
    shares = Counter(map(shape, SPLIT))
    assert 0.4 <= shares["independent"] / len(SPLIT) <= 0.6
    assert 0.35 <= shares["mixed"] / len(SPLIT) <= 0.6
    assert 0.03 <= shares["chain"] / len(SPLIT) <= 0.15
    sizes = {len(example.plan) for example in SPLIT}
    assert sizes == {2, 3, 4, 5, 6}


def test_titles_are_such_that_a_planner_takes_them() -> None:
    longest = Settings.model_fields["max_title_words"].default
    for example in SPLIT:
        titles = [node.title for node in example.plan]
        for place, title in enumerate(titles):
            assert refusal(title, titles[:place], longest) is None, (example.question, title)


MEASURED = Path("benchmarks/data/dependent_questions.jsonl")
"""Questions whose plans are measured, and which no model must have seen."""


def test_no_question_is_nearly_another_or_one_that_is_measured() -> None:
    measured = [json.loads(line)["question"] for line in MEASURED.read_text("utf-8").splitlines()]
    questions = [*measured, *(example.question for example in EXAMPLES)]
    sets = [frozenset(words(question)) for question in questions]
    for place, one in enumerate(sets):
        for other in sets[:place]:
            assert len(one & other) <= 0.6 * len(one | other), sorted(one)


def test_parts_end_have_their_length_and_do_not_repeat_each_other() -> None:
    for example in WRITTEN:
        texts = [text for text in example.texts if text]
        counts = Counter(trigram for text in texts for trigram in trigrams(text))
        repeated = sum(count > 1 for count in counts.values())
        assert repeated <= 0.04 * len(counts), example.question
        openings = Counter(tuple(words(text)[:2]) for text in texts)
        assert max(openings.values()) == 1, example.question
        for node, text in zip(example.plan, example.texts, strict=True):
            if text is None:
                continue
            assert text.rstrip().endswith((".", "!", "?")), text
            least, most = SENTENCES[node.length or Length.MEDIUM]
            assert least <= len(re.findall(r"[.!?](?=\s|$)", text)) <= most, text


GOOD = {
    "question": "How do I bake bread?",
    "kind": "how_to",
    "parts": [
        {"title": "The dough", "dependencies": [], "length": "medium", "text": "Mix it."},
        {"title": "The oven", "dependencies": [1], "length": "short", "text": "Heat it."},
    ],
}


def test_a_file_of_ones_own_is_read(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    fact_line = json.dumps({"question": "Who\u2028or what?", "kind": "fact"}, ensure_ascii=False)
    file.write_text(f'{json.dumps(GOOD)}\n{fact_line}\n{{"question": "Hello!"}}\n', "utf-8")
    bread, fact, hello = read_examples(file)
    assert [node.dependencies for node in bread.plan] == [(), (1,)]
    assert bread.texts == ("Mix it.", "Heat it.")
    assert (fact.kind, fact.plan, fact.texts) == (Kind.FACT, (), ())
    assert (hello.kind, hello.plan, hello.texts) == (None, (), ())
    assert [example.is_ordinary for example in (bread, fact, hello)] == [False, False, True]


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        ({"kind": "poem"}, "kind: Input should be 'explain'"),
        ({"kind": "fact"}, "must not have parts"),
        ({"parts": []}, "must have parts"),
        ({"question": ""}, "question: String should have at least 1 character"),
        ({"parts": [{"dependencies": []}]}, "parts.0.title: Field required"),
        ({"parts": [{"title": "A", "needs": [1]}]}, "parts.0.needs: Extra inputs"),
        ({"parts": [{"title": "A", "dependencies": [1], "length": "short"}]}, "part 1"),
        ({"parts": [{"title": "A", "dependencies": [], "length": "huge"}]}, "parts.0.length"),
        ({"parts": [{"title": 7, "dependencies": [], "length": "short"}]}, "parts.0.title"),
        ({"parts": [{"title": "A", "text": "B.", "context": "C."}]}, "not both"),
    ],
)
def test_a_line_that_is_not_an_example_is_named(
    changed: dict[str, object], wrong: str, tmp_path: Path
) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text(f"{json.dumps(GOOD)}\n{json.dumps({**GOOD, **changed})}\n", "utf-8")
    with pytest.raises(InvalidRequestError, match=rf"own.jsonl, line 2.*{wrong}"):
        read_examples(file)


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    parts = [{"title": "A", "text": "One."}, {"title": "B", "context": "Two."}, {"title": "C"}]
    seen = [{"title": "A", "context": "One."}, {"title": "B", "dependencies": [1]}]
    plan = [{"title": "A"}, {"title": "B", "dependencies": [1]}]
    lines = [{"question": "Why?", "parts": each} for each in (parts, seen, plan)]
    file.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    written, titled, planned = read_examples(file)
    assert (written.kind, written.texts) == (None, ("One.", "Two.", None))
    assert written.contexts == {2, 3}
    assert (titled.texts, titled.contexts) == (("One.", None), {1, 2})
    assert planned.texts == ()


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"none.jsonl cannot be read \(No such"):
        read_examples(tmp_path / "none.jsonl")

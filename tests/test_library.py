"""`from plato import Plato`: the whole engine in this process, with and without an event loop."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

import plato
from plato import Answer, AsyncPlato, Plato, PlatoError
from plato.errors import SettingsError
from plato.models.sampling import RECOMMENDED, default_sampling
from plato.runs import NodeOutput
from plato.settings import DEFAULT_MODEL, Settings

PLAN = [{"title": "Salt"}, {"title": "Depth", "dependencies": [1]}]
SETTINGS = {"kv_budget_mb": 16, "node_max_tokens": 6, "temperature": 0.0, "equal_work": True}


@pytest.fixture(scope="module")
def opened(tiny_model_folder: str) -> Iterator[Plato]:
    with Plato(tiny_model_folder, **SETTINGS) as model:
        yield model


def test_an_answer_has_text_graph_usage_and_timings(opened: Plato) -> None:
    answer = opened.ask("Why is the sea salty?", plan=PLAN, headings=True)
    assert isinstance(answer, Answer)
    assert str(answer).startswith("## Salt\n\n")
    assert [(node.title, node.sees) for node in answer.graph.nodes] == [
        ("Salt", ()),
        ("Depth", (1,)),
    ]
    assert answer.usage.completion_tokens == sum(node.tokens for node in answer.graph.nodes)
    assert answer.timings.duration_s > 0
    assert "n1 --> n2" in answer.mermaid()


def test_a_notebook_shows_the_graph_and_the_text(opened: Plato) -> None:
    planned = opened.ask("Why?", plan=PLAN)._repr_html_()
    assert "<svg" in planned
    assert "Salt" in planned
    sequential = opened.ask("Why?", mode="sequential", max_tokens=3)
    assert "<svg" not in sequential._repr_html_()


async def test_it_works_where_an_event_loop_runs(opened: Plato) -> None:
    assert opened.ask("Why?", mode="sequential", max_tokens=3).text


def test_an_answer_can_be_read_while_it_is_written(opened: Plato) -> None:
    updates = list(opened.stream("Why?", plan=PLAN))
    answer = updates[-1].answer
    assert answer is not None
    assert "".join(update.text for update in updates) == answer.text
    assert sum(isinstance(update.event, NodeOutput) for update in updates) > 1


def test_leaving_a_stream_cancels_the_answer(opened: Plato) -> None:
    endless = {"mode": "sequential", "max_tokens": 1500, "exact_lengths": True}
    with closing(opened.stream("Why?", **endless)) as updates:
        next(updates)
    client = opened._asker._client
    assert client is not None
    assert not client._runtime.scheduler.runs


def test_wrong_options_are_told(opened: Plato) -> None:
    with pytest.raises(PlatoError, match=r"plato\.mode"):
        opened.ask("Why?", mode="fast")


async def test_without_a_thread(tiny_model_folder: str) -> None:
    threads = threading.active_count()
    # Loaded for the first question.
    model = AsyncPlato(tiny_model_folder, **SETTINGS)
    try:
        assert threading.active_count() == threads
        assert (await model.ask("Why?", plan=PLAN)).info.mode == "plato"
    finally:
        await model.close()


@pytest.mark.parametrize(
    ("model", "settings", "wrong"),
    [(None, {"kv_budget": 16}, "kv_budget_mb"), ("/nowhere", {}, "/nowhere")],
)
def test_wrong_settings_and_models_are_told(
    model: str | None, settings: dict[str, object], wrong: str
) -> None:
    with pytest.raises(PlatoError, match=wrong), Plato(model, **settings):
        pass


def test_wrong_settings_are_told_before_anything_is_loaded() -> None:
    with pytest.raises(SettingsError):
        Plato(node_max_tokens=0)


def test_the_default_model_samples_so_that_it_does_not_loop(model_folder: str) -> None:
    sampling = default_sampling(Settings(), model_folder)
    assert sampling.repetition_penalty == RECOMMENDED[DEFAULT_MODEL].repetition_penalty
    assert sampling.repetition_penalty > 1


def test_all_names_are_there() -> None:
    assert all(getattr(plato, name) for name in plato.__all__)
    with pytest.raises(AttributeError, match="Nothing"):
        _ = plato.Nothing

"""From a body to what the scheduler is asked to do."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest

from plato.api.questions.requests import (
    parse_request,
    random_seed,
    to_run_request,
    validate_request,
)
from plato.engine import SamplingParams
from plato.errors import InvalidPlanError, InvalidRequestError
from plato.runs import Length, Message, Mode, Node, RunRequest
from plato.settings import Settings

QUESTION = {"role": "user", "content": "Why?"}
CONTEXT = 2048
SETTINGS = Settings(served_model_name="tiny", max_nodes=6, run_deadline_s=60, equal_work=True)
SAMPLING = SamplingParams(temperature=0.6, top_p=0.95, top_k=20, min_p=0.1, repetition_penalty=1.3)
"""The deployment's."""


def run_request(settings: Settings = SETTINGS, **fields: Any) -> RunRequest:
    body = parse_request(json.dumps({"model": "tiny", "messages": [QUESTION], **fields}))
    return to_run_request(
        body,
        settings=settings,
        context_length=CONTEXT,
        sampling=SAMPLING,
        tenant="t",
        run_id="r1",
        seed_source=lambda: 2**64 + 7,
    )


def test_a_bare_request_gets_the_deployments_defaults() -> None:
    assert run_request() == RunRequest(
        run_id="r1",
        messages=(Message("user", "Why?"),),
        tenant="t",
        mode=Mode.AUTO,
        sampling=SAMPLING,
        max_nodes=6,
        deadline_s=60.0,
    )


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8-sig", "utf-16"])
def test_a_body_in_another_encoding_is_told_which_one_to_use(encoding: str) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "Où ?"}]}, ensure_ascii=False)
    with pytest.raises(InvalidRequestError, match="not valid JSON in UTF-8"):
        parse_request(body.encode(encoding))


@pytest.mark.parametrize("content", ["\ud83d", "\ud83d and more"])
def test_a_text_with_half_of_a_character_is_refused_with_advice(content: str) -> None:
    with pytest.raises(InvalidRequestError, match="half of a surrogate pair") as caught:
        run_request(messages=[{"role": "user", "content": content}])
    assert caught.value.code == "invalid_json"


def test_everything_that_is_asked_for_arrives() -> None:
    request = run_request(
        messages=[{"role": "developer", "content": "Be brief."}, QUESTION],
        temperature=0.7,
        top_p=0.9,
        top_k=40,
        min_p=0.05,
        repetition_penalty=1.1,
        presence_penalty=-0.5,
        frequency_penalty=1,
        logit_bias={"50": -100, "7": 2.5},
        seed=-1,
        stop=["END", "\n\n\n"],
        max_completion_tokens=50,
        plato={
            "mode": "skeleton",
            "max_nodes": 3,
            "prompts": True,
            "headings": True,
            "exact_lengths": True,
            "decode_plan": True,
            "deadline_s": 5,
            "plan": [
                {"title": "A", "max_tokens": 9},
                {"title": "B", "dependencies": [1], "max_tokens": 8},
                {
                    "title": "C",
                    "dependencies": [2, 1],
                    "number": 3,
                    "max_tokens": 7,
                    "length": "long",
                },
            ],
        },
    )
    assert request == RunRequest(
        run_id="r1",
        messages=(Message("system", "Be brief."), Message("user", "Why?")),
        tenant="t",
        mode=Mode.SKELETON,
        sampling=SamplingParams(
            temperature=0.7,
            top_p=0.9,
            seed=2**63 - 1,
            repetition_penalty=1.1,
            top_k=40,
            min_p=0.05,
            presence_penalty=-0.5,
            frequency_penalty=1.0,
            logit_bias=((50, -100.0), (7, 2.5)),
        ),
        stop=("END", "\n\n\n"),
        max_tokens=50,
        max_nodes=3,
        plan=(Node(1, "A", (), 9), Node(2, "B", (1,), 8), Node(3, "C", (1, 2), 7, Length.LONG)),
        decode_plan=True,
        exact_lengths=True,
        include_prompts=True,
        headings=True,
        deadline_s=5,
    )


@pytest.mark.parametrize(
    ("fields", "seed"),
    [({}, 0), ({"top_p": 0.5}, 0), ({"temperature": 0}, 0), ({"temperature": 0.6}, 7)],
)
def test_a_seed_is_drawn_only_for_a_request_that_sets_a_temperature(
    fields: dict[str, float], seed: int
) -> None:
    assert run_request(**fields).sampling.seed == seed
    assert run_request(**fields, seed=5).sampling.seed == 5


def test_drawn_seeds_differ_and_survive_as_json_numbers() -> None:
    seeds = {random_seed() for _ in range(8)}
    assert len(seeds) == 8
    assert all(int(float(seed)) == seed for seed in seeds)


@pytest.mark.parametrize(
    ("asked", "used"),
    [
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"top_p": 1, "top_k": None}, {"top_p": 1.0}),
        ({"top_k": 0}, {"top_k": 0}),
        ({"min_p": 0}, {"min_p": 0.0}),
        ({"repetition_penalty": 1}, {"repetition_penalty": 1.0}),
    ],
)
def test_a_request_replaces_the_deployments_sampling_field_by_field(
    asked: dict[str, float | None], used: dict[str, float]
) -> None:
    assert run_request(**asked).sampling == replace(SAMPLING, **used)


def test_a_top_k_of_minus_one_keeps_all() -> None:
    assert run_request(top_k=-1).sampling.top_k == 0


def test_metadata_is_kept_with_the_time_of_the_request() -> None:
    before = time.time()
    request = run_request(metadata={"ticket": "7"}, store=True)
    assert request.metadata == (("ticket", "7"),)
    assert before <= request.created_unix_s <= time.time()


def test_ignored_parameters_are_noted() -> None:
    assert run_request(verbosity="low", whatever=1).ignored == ("verbosity", "whatever")


@pytest.mark.parametrize("model", [None, ""])
def test_a_request_without_a_model_gets_the_only_one(model: str | None) -> None:
    assert run_request(model=model) == run_request()


@pytest.mark.parametrize("mode", ["plato", "skeleton", "sequential"])
def test_the_name_of_the_model_can_choose_the_mode(mode: str) -> None:
    named = run_request(model=f"tiny:{mode}")
    assert named == run_request(plato={"mode": mode})
    assert named == run_request(model=f"tiny:{mode}", plato={"mode": mode})


@pytest.mark.parametrize("model", ["tiny:fast", "tiny:auto", "big:plato", ":plato", "tiny:plato:"])
def test_other_names_are_not_found(model: str) -> None:
    with pytest.raises(InvalidRequestError, match="does not exist here"):
        run_request(model=model)


def test_another_model_is_not_found() -> None:
    with pytest.raises(
        InvalidRequestError, match="'big' does not exist here; use 'tiny'"
    ) as caught:
        run_request(model="big")
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")
    assert caught.value.param == "model"


@pytest.mark.parametrize(
    ("options", "param"),
    [({"max_nodes": 7}, "plato.max_nodes"), ({"deadline_s": 61}, "plato.deadline_s")],
)
def test_more_than_the_deployment_allows_is_refused(options: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError, match="this deployment allows") as caught:
        run_request(plato=options)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "plan",
    [
        [{"title": "A"}, {"title": "B", "dependencies": [3]}],
        [{"title": "A"}, {"title": "B", "dependencies": [2]}],
        [{"title": "A"}, {"title": "B", "number": 1}],
        [{"title": "A"}, {"title": "B", "dependencies": [1, 1]}],
        [{"title": "A"}] * 7,
    ],
)
def test_a_plan_that_is_no_plan_is_refused(plan: list[dict[str, Any]]) -> None:
    with pytest.raises(InvalidPlanError) as caught:
        run_request(plato={"plan": plan})
    assert str(caught.value.param).startswith("plato.plan")


@pytest.mark.parametrize("option", ["decode_plan", "exact_lengths"])
def test_equal_work_is_refused_where_the_settings_do_not_allow_it(option: str) -> None:
    plan = [{"title": title, "max_tokens": 5} for title in "ABC"]
    fields = {"plato": {"plan": plan, option: True}}
    assert getattr(run_request(**fields), option)
    settings = SETTINGS.model_copy(update={"equal_work": False})
    with pytest.raises(InvalidRequestError, match="equal_work=true") as caught:
        run_request(settings, **fields)
    assert caught.value.param == f"plato.{option}"


def test_a_plan_that_the_planner_could_not_write_is_not_decoded() -> None:
    plan = [{"title": "A"}]
    assert run_request(plato={"plan": plan}).plan
    with pytest.raises(InvalidPlanError, match="at least 2") as caught:
        run_request(plato={"plan": plan, "decode_plan": True})
    assert caught.value.param == "plato.decode_plan"


def test_fields_may_be_what_a_library_has_instead_of_json() -> None:
    request = validate_request(
        {
            "model": "tiny",
            "messages": (Message("user", "Why?"),),
            "stop": ("END",),
            "plato": {"mode": Mode.SKELETON, "plan": (Node(1, "A"), Node(2, "B", (1,), 9))},
        }
    )
    fields = json.loads(request.model_dump_json(exclude_unset=True))
    assert request == parse_request(json.dumps(fields))
    assert fields["messages"] == [QUESTION]
    assert fields["plato"]["plan"][1] == {
        "number": 2,
        "title": "B",
        "dependencies": [1],
        "max_tokens": 9,
        "length": None,
    }


def test_fields_that_are_wrong_are_refused_in_the_words_for_a_body() -> None:
    fields = {"model": "tiny", "messages": {}, "plato": [], "stop": 5}
    with pytest.raises(InvalidRequestError) as in_body:
        parse_request(json.dumps(fields))
    with pytest.raises(InvalidRequestError) as as_fields:
        validate_request(fields)
    assert as_fields.value.message == in_body.value.message
    with pytest.raises(InvalidRequestError, match="JSON"):
        validate_request({**fields, "seed": object()})

"""Chat completions through the official client, in all modes."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai import OpenAI

QUESTION = "How do I choose my first road bicycle?"
BUDGET = 100
PLAN = [
    {"title": "Frame size"},
    {"title": "Wheels and tyres"},
    {"title": "Which one to buy", "dependencies": [1, 2]},
]


def ask(client: OpenAI, plato: dict[str, Any], **options: Any) -> Any:
    return client.chat.completions.create(
        model="small",
        messages=options.pop("messages", [{"role": "user", "content": QUESTION}]),
        extra_body={"plato": plato},
        **options,
    )


@pytest.fixture(scope="module")
def whole_answers() -> dict[tuple[str, str], Any]:
    """Answers that came in one piece, by server and mode."""
    return {}


@pytest.fixture
def whole(client: OpenAI, whole_answers: dict[tuple[str, str], Any], mode: str) -> Any:
    """The answer in a mode, in one piece; each server is asked for it once."""
    key = (str(client.base_url), mode)
    if key not in whole_answers:
        whole_answers[key] = ask(client, {"mode": mode}, max_tokens=BUDGET)
    return whole_answers[key]


@pytest.mark.parametrize("mode", ["plato", "skeleton", "sequential", "auto"])
def test_an_answer_says_how_it_came_about(whole: Any, mode: str) -> None:
    answer = whole
    info = answer.plato
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert info["requested_mode"] == mode
    nodes = info["graph"]["nodes"]
    decoded = sum(node["tokens"] for node in nodes)
    visible = answer.usage.completion_tokens - info["plan"]["tokens"]
    assert visible == min(decoded, BUDGET), "what was cut is not counted"
    assert answer.usage.completion_tokens_details.reasoning_tokens == info["plan"]["tokens"]
    # Billed is the question alone, whatever the parts were told.
    assert answer.usage.prompt_tokens <= min(node["prompt_tokens"] for node in nodes)
    assert info["usage"]["prompt_tokens"] == sum(
        each["prompt_tokens"] for each in (info["plan"], *nodes)
    )
    if mode in ("plato", "skeleton"):
        assert info["mode"] == mode
        assert len(nodes) >= 2
        assert info["plan"]["source"] == "model"
        assert info["plan"]["steps"] < info["plan"]["tokens"], "the grammar forces tokens"
    if mode == "skeleton":
        assert not any(node["dependencies"] or node["sees"] for node in nodes)
    if mode == "sequential":
        assert [node["title"] for node in nodes] == ["Answer"]
    if mode == "auto":
        assert 0 < info["plan"]["one_probability"] < 1


@pytest.mark.parametrize("mode", ["plato", "skeleton", "sequential", "auto"])
def test_a_stream_brings_the_same_text_as_a_single_response(
    client: OpenAI, whole: Any, mode: str
) -> None:
    chunks = list(
        ask(
            client,
            {"mode": mode},
            max_tokens=BUDGET,
            stream=True,
            stream_options={"include_usage": True},
        )
    )

    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert len([c for c in chunks if c.choices and c.choices[0].delta.content]) > 5
    finishing = [c for c in chunks if c.choices and c.choices[0].finish_reason]
    assert [c.choices[0].finish_reason for c in finishing] == [whole.choices[0].finish_reason]
    assert finishing[0].plato["mode"] == whole.plato["mode"]
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_the_second_time_the_prompt_is_cached(client: OpenAI) -> None:
    messages = [{"role": "user", "content": "Name the planets, and say something of each."}]
    ask(client, {"mode": "sequential"}, max_tokens=4, messages=messages)
    again = ask(client, {"mode": "sequential"}, max_tokens=4, messages=messages)
    assert again.usage.prompt_tokens_details.cached_tokens == again.usage.prompt_tokens - 1


def test_another_key_finds_nothing_of_it(client: OpenAI) -> None:
    def cached(key: str, question: str) -> int:
        answer = ask(
            client.with_options(api_key=key),
            {"mode": "sequential"},
            max_tokens=4,
            messages=[{"role": "user", "content": question}],
        )
        return int(answer.usage.prompt_tokens_details.cached_tokens)

    cached("one-key", "Tell me about the moons of Jupiter.")
    public = cached("one-key", "Who was Isaac Newton?")
    assert cached("another-key", "Tell me about the moons of Jupiter.") == public
    assert cached("one-key", "Tell me about the moons of Jupiter.") > public


def test_system_prompt_and_history_reach_every_part(client: OpenAI) -> None:
    messages = [
        {"role": "system", "content": "Be kind to CHRYSANTHEMUM lovers."},
        {"role": "user", "content": "My garden is in OSLOMARKA."},
        {"role": "assistant", "content": "A cool place."},
        {"role": "user", "content": QUESTION},
    ]
    for mode in ("plato", "sequential"):
        plato: dict[str, Any] = {"mode": mode, "prompts": True}
        if mode == "plato":
            plato["plan"] = PLAN
        answer = ask(client, plato, max_tokens=24, messages=messages)
        for node in answer.plato["graph"]["nodes"]:
            if node["prompt"] is None:
                assert node["state"] == "cancelled"
                continue
            for part in ("CHRYSANTHEMUM", "OSLOMARKA", "A cool place.", QUESTION):
                assert part in node["prompt"]


def test_max_tokens_and_stop_bound_the_composed_answer(client: OpenAI) -> None:
    cut = ask(client, {"mode": "plato", "plan": PLAN}, max_tokens=10)
    assert cut.choices[0].finish_reason == "length"

    whole = ask(client, {"mode": "plato", "plan": PLAN, "headings": True}, max_tokens=60)
    text = whole.choices[0].message.content
    word = text.split()[len(text.split()) // 2]
    stopped = ask(
        client, {"mode": "plato", "plan": PLAN, "headings": True}, max_tokens=60, stop=[word]
    )
    assert stopped.choices[0].message.content == text[: text.index(word)]


def test_the_model_is_listed(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names == ["small", "small:plato", "small:skeleton", "small:sequential"]
    assert client.models.retrieve("small").id == "small"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("large")


@pytest.mark.parametrize(
    ("change", "status", "param", "says"),
    [
        ({"model": "large"}, 404, "model", "small"),
        ({"n": 3}, 400, "n", "one request"),
        ({"max_tokens": 0}, 400, "max_tokens", ""),
        ({"messages": []}, 400, "messages", ""),
        ({"extra_body": {"plato": {"mode": "fast"}}}, 400, "plato.mode", "plato"),
        (
            {
                "extra_body": {
                    "plato": {"plan": [{"title": "A", "dependencies": [2]}, {"title": "B"}]}
                }
            },
            400,
            "plato.plan",
            "smaller",
        ),
        ({"extra_body": {"plato": {"no_such_thing": 1}}}, 400, "plato.no_such_thing", "remove"),
        (
            {"messages": [{"role": "user", "content": "word " * 9000}]},
            400,
            "messages",
            "8192",
        ),
    ],
)
def test_a_wrong_request_is_told_what_to_change(
    client: OpenAI, change: dict[str, Any], status: int, param: str, says: str
) -> None:
    request: dict[str, Any] = {
        "model": "small",
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": 8,
        **change,
    }
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(**request)
    assert caught.value.status_code == status
    assert caught.value.param is not None
    assert caught.value.param.startswith(param)
    assert says in caught.value.message

"""Responses as the official `openai` package reads them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, get_args

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from plato.api.answers import sse
from plato.api.chat.response import ChatResponse
from plato.api.errors import error_text
from plato.api.questions.requests import parse_request
from plato.api.runs.events import describe_event, read_event
from plato.engine import FinishReason, SamplingParams
from plato.errors import NodeFailedError, OverloadedError
from plato.runs import (
    Answer,
    AnswerFinish,
    Event,
    EventId,
    Length,
    Mode,
    ModeChosen,
    Node,
    NodeFinished,
    NodeOutput,
    NodePlanned,
    NodeReport,
    NodeStarted,
    NodeState,
    PlanFinished,
    PlanReport,
    RunEvent,
    RunFailed,
    RunFinished,
    RunReport,
)

NODES = (
    NodeReport(1, "Sun", (), NodeState.DONE, tokens=30, finish=FinishReason.STOP),
    NodeReport(2, "Wind", (1,), NodeState.DONE, sees=(1,), tokens=20, finish=FinishReason.LENGTH),
)
PLAN = PlanReport(
    "model",
    2,
    tokens=12,
    steps=9,
    prompt_tokens=100,
    cached_tokens=90,
    started_s=0.25,
    finished_s=1.0,
)
REPORT = RunReport(
    run_id="r1",
    requested_mode=Mode.AUTO,
    mode=Mode.PLATO,
    reason="two parts",
    plan=PLAN,
    nodes=NODES,
    prompt_tokens=200,
    cached_tokens=150,
    conversation_tokens=14,
    output_tokens=50,
    duration_s=3.0,
    sampling=SamplingParams(
        temperature=0.7,
        top_p=0.9,
        seed=7,
        repetition_penalty=1.1,
        logit_bias=((5, -100.0),),
        top_k=40,
        min_p=0.05,
        presence_penalty=-0.5,
        frequency_penalty=0.25,
    ),
    first_text_s=0.5,
    answer_tokens=50,
    degraded=("context store",),
)


def answer(finish: AnswerFinish) -> Answer:
    return Answer("Hi", replace(REPORT, finish_reason=finish))


def test_a_completion_is_openais() -> None:
    text = ChatResponse("r1", "tiny", created=5).whole(answer("length"))
    completion = ChatCompletion.model_validate_json(text, strict=True)
    assert completion.id == "chatcmpl-r1"
    assert completion.created == 5
    assert completion.model == "tiny"
    assert completion.choices[0].message.content == "Hi"
    assert completion.choices[0].finish_reason == "length"
    usage = completion.usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (14, 62, 76)
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 4
    assert usage.completion_tokens_details is not None
    assert usage.completion_tokens_details.reasoning_tokens == 12


def test_a_completion_tells_how_the_run_went() -> None:
    plato = json.loads(ChatResponse("r1", "tiny").whole(answer("stop")))["plato"]
    assert plato["run"] == "r1"
    assert (plato["mode"], plato["requested_mode"]) == ("plato", "auto")
    assert plato["reason"] == "two parts"
    assert plato["plan"]["source"] == "model"
    assert plato["plan"]["steps"] == 9
    assert [node["title"] for node in plato["graph"]["nodes"]] == ["Sun", "Wind"]
    assert plato["graph"]["nodes"][1]["dependencies"] == [1]
    assert plato["graph"]["nodes"][1]["finish"] == "length"
    assert plato["timings"] == {"duration_s": 3.0, "first_text_s": 0.5, "plan_s": 0.75}
    assert plato["sampling"] == {
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
        "repetition_penalty": 1.1,
        "presence_penalty": -0.5,
        "frequency_penalty": 0.25,
        "seed": 7,
    }
    assert plato["usage"] == {
        "prompt_tokens": 200,
        "cached_tokens": 150,
        "output_tokens": 50,
        "plan_tokens": 12,
    }
    assert plato["degraded"] == ["context store"]


def test_the_chunks_of_a_stream_are_openais() -> None:
    response = ChatResponse("r1", "tiny", include_usage=True)
    texts = [response.opening(), response.text("Hi"), response.closing(answer("stop"))]
    chunks = [ChatCompletionChunk.model_validate_json(text, strict=True) for text in texts]
    assert {chunk.id for chunk in chunks} == {"chatcmpl-r1"}
    assert [chunk.choices[0].delta.role for chunk in chunks] == ["assistant", None, None]
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["", "Hi", None]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, "stop"]
    assert all(json.loads(text)["usage"] is None for text in texts)
    usage = ChatCompletionChunk.model_validate_json(response.usage(answer("stop")), strict=True)
    assert usage.choices == []
    assert usage.usage is not None
    assert usage.usage.total_tokens == 76


def test_chunks_say_nothing_of_usage_unless_asked() -> None:
    response = ChatResponse("r1", "tiny")
    chunk = json.loads(response.text("Hi"))
    assert chunk["choices"] == [
        {"index": 0, "delta": {"content": "Hi"}, "logprobs": None, "finish_reason": None}
    ]
    assert "usage" not in chunk
    assert "plato" not in chunk
    closing = json.loads(response.closing(answer("stop")))
    assert closing["choices"][0]["delta"] == {}
    assert closing["plato"]["timings"]["first_text_s"] == 0.5


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (ModeChosen("r1", 1.0, Mode.PLATO), {"type": "mode_chosen", "mode": "plato"}),
        (NodePlanned("r1", 1.0, Node(2, "W", (1,))), {"type": "node_planned"}),
        (PlanFinished("r1", 1.0, PLAN), {"type": "plan_finished", "reason": None}),
        (
            NodeStarted("r1", 1.0, 2, 0, NODES[1]),
            {"type": "node_started", "number": 2, "attempt": 0},
        ),
        (
            NodeOutput("r1", 1.0, 2, 0, 4, (7, 8), " hm", text="hm", text_offset=9),
            {
                "type": "node_output",
                "offset": 4,
                "tokens": [7, 8],
                "node_text": " hm",
                "text": "hm",
                "text_offset": 9,
            },
        ),
        (
            NodeFinished("r1", 1.0, 2, FinishReason.STOP, NODES[1]),
            {"type": "node_finished", "finish": "stop"},
        ),
    ],
)
def test_what_happens_to_a_part_travels_in_a_chunk_without_text(
    event: Any, expected: dict[str, Any]
) -> None:
    text = ChatResponse("r1", "tiny").event(event)
    assert text is not None
    chunk = ChatCompletionChunk.model_validate_json(text, strict=True)
    assert chunk.choices[0].delta.content is None
    sent = json.loads(text)["plato"]["event"]
    assert sent.items() >= {**expected, "run": "r1", "at_s": 1.0}.items()


def test_the_parts_of_an_event_keep_their_fields() -> None:
    node = Node(2, "W", (1,), length=Length.SHORT)
    text = ChatResponse("r1", "tiny").event(NodePlanned("r1", 1.0, node))
    assert json.loads(text or "")["plato"]["event"]["node"] == {
        "number": 2,
        "title": "W",
        "dependencies": [1],
        "max_tokens": None,
        "length": "short",
    }


ENDS = (RunFinished("r1", 1.0, REPORT), RunFailed.of(OverloadedError("full"), "r1"))


@pytest.mark.parametrize("end", ENDS)
def test_the_end_of_a_run_is_no_event_of_a_part(end: Event) -> None:
    assert ChatResponse("r1", "tiny").event(end) is None


KINDS = [kind for kind in get_args(RunEvent) if kind not in (RunFinished, RunFailed)]


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_an_event_that_was_described_can_be_read_again(
    kind: type[Event], data: st.DataObject
) -> None:
    natural = st.integers(0, 2**53)
    event = replace(
        data.draw(st.from_type(kind)), id=data.draw(st.builds(EventId, natural, natural))
    )
    sent = json.loads(json.dumps(describe_event(event)))
    # By their texts: ids are not compared otherwise, and NaN is not equal to itself.
    assert repr(read_event(sent)) == repr(event)


def test_an_event_of_another_release_is_read_as_far_as_it_is_known() -> None:
    sent = describe_event(ModeChosen("r1", 1.0, Mode.PLATO)) or {}
    assert read_event({**sent, "cost": 5}) == ModeChosen("r1", 1.0, Mode.PLATO)
    assert read_event({**sent, "type": "node_paused"}) is None


@contextmanager
def server(
    status: int, headers: dict[str, str], *pieces: bytes
) -> Iterator[tuple[str, list[bytes]]]:
    """Answers every POST with `pieces`; yields its address and the bodies it was sent."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            for piece in pieces:
                self.wfile.write(piece)

        def log_message(self, *args: Any) -> None:
            pass

    httpd = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}/v1", bodies
    finally:
        httpd.shutdown()
        thread.join(timeout=5)
        httpd.server_close()


def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=5)


STREAM = {"Content-Type": sse.MEDIA_TYPE}


def test_the_official_client_reads_a_whole_stream_and_its_request_is_understood() -> None:
    response = ChatResponse("r1", "tiny", include_usage=True)
    pieces = [
        response.opening(),
        response.event(NodeStarted("r1", 1.0, 2, 0, NODES[1])) or "",
        response.text("Hi\n\n"),
        response.text("you"),
        response.closing(answer("stop")),
        response.usage(answer("stop")),
    ]
    stream = [sse.PING, *map(sse.event, pieces), sse.DONE]
    with server(200, STREAM, *stream) as (url, bodies), client(url) as api:
        chunks = list(
            api.chat.completions.create(
                model="tiny",
                messages=[{"role": "user", "content": "Why?"}],
                stream=True,
                stream_options={"include_usage": True},
                temperature=0.5,
                stop="END",
                extra_body={"plato": {"mode": "plato", "events": True}},
            )
        )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hi\n\nyou"
    assert chunks[1].model_extra is not None
    assert chunks[1].model_extra["plato"]["event"]["type"] == "node_started"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    request = parse_request(bodies[0])
    assert request.include_usage
    assert request.options.mode is Mode.PLATO
    assert request.options.events
    assert request.stop == ["END"]


def test_the_official_client_raises_on_an_error_in_mid_stream() -> None:
    error = error_text(NodeFailedError("part 2 could not be decoded"))
    pieces = [sse.event(ChatResponse("r1", "tiny").text("Hi")), sse.event(error)]
    with server(200, STREAM, *pieces) as (url, _), client(url) as api:
        stream = api.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "Why?"}], stream=True
        )
        assert next(stream).choices[0].delta.content == "Hi"
        with pytest.raises(openai.APIError, match="part 2 could not be decoded"):
            next(stream)


def test_the_official_client_maps_a_refused_run_to_its_own_error() -> None:
    body = error_text(OverloadedError("too many runs; try again later")).encode()
    with (
        server(429, {"Content-Type": "application/json"}, body) as (url, _),
        client(url) as api,
        pytest.raises(openai.RateLimitError, match="too many runs") as caught,
    ):
        api.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "Why?"}])
    assert caught.value.code == "overloaded"

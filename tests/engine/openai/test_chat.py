"""Chat completions: messages out of prompts, tokens out of text, and what is found out at start."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from plato.engine import (
    FinishReason,
    GenerateRequest,
    Prompt,
    RequestRefusedError,
    SamplingParams,
    Segment,
    StopConditions,
    UpstreamError,
    losses,
)
from plato.engine.openai import UpstreamConfig, UpstreamEngine
from plato.engine.openai.dialects import DIALECTS, Delta, Generation
from plato.engine.openai.text_codec import TextCodec
from plato.engine.thinking import NO_THINKING
from plato.engine.tokenizer_config import TokenizerConfig
from plato.engine.torch import TorchEngine
from tests.engine.helpers import collect
from tests.engine.upstream.chat_wire import ChatServer, PlainChatServer, ThinkingChatServer
from tests.engine.upstream.scripted import byte_tokenizer

CHAT = DIALECTS["chat"]
NEUTRAL = {"top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"}


def content(text: str, role: str = "user") -> Segment:
    return Segment(tuple(text.encode()), role=role)


def markup(text: str) -> Segment:
    return Segment(tuple(text.encode()), public=True)


def request(*segments: Segment, **fields: Any) -> GenerateRequest:
    prompt = Prompt(segments or (content("Hi"),))
    defaults = {"run_id": "r", "node": 1, "prompt": prompt, "max_tokens": 9}
    return GenerateRequest(**{**defaults, **fields})


def generation(asked: GenerateRequest, **fields: Any) -> Generation:
    return Generation(asked, "model", messages=codec().messages(asked), **fields)


def codec() -> TextCodec:
    return TextCodec(byte_tokenizer().backend)


def event(text: str | None = None, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}, "finish_reason": finish, **fields}]}


def top(**likely: float) -> dict[str, Any]:
    found = [{"token": token, "logprob": value} for token, value in likely.items()]
    return {"content": [{**found[0], "top_logprobs": found}]}


class TestMessages:
    def test_contents_are_messages_and_markup_is_left_out(self) -> None:
        asked = request(
            markup("<sys>"), content("Be brief.", "system"), markup("<user>"),
            content("What is "), content("this?"), markup("<assistant>"),
        )  # fmt: skip
        assert codec().messages(asked) == (
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is this?"},
        )

    def test_what_was_emitted_is_the_beginning_of_the_answer(self) -> None:
        user, emitted = {"role": "user", "content": "Hi"}, tuple(b"lo")
        assert codec().messages(request(emitted=emitted)) == (
            user,
            {"role": "assistant", "content": "lo"},
        )
        begun = request(content("Hi"), markup("<a>"), content("Hel", "assistant"), emitted=emitted)
        assert codec().messages(begun) == (user, {"role": "assistant", "content": "Hello"})

    def test_text_gives_tokens_whose_text_it_is(self) -> None:
        tokens = codec().tokens("Grüße</s>")
        assert codec().text(tokens) == "Grüße</s>"
        assert len(tokens) == len("Grüße</s>".encode()), "no special token"


class TestBody:
    def test_parameters_that_many_servers_do_not_know_are_sent_only_if_they_matter(self) -> None:
        body = CHAT.body(generation(request()))
        assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0, 1, 9)
        assert not NEUTRAL & body.keys()
        assert "ignore_eos" not in body
        sampling = SamplingParams(top_k=5, repetition_penalty=1.2, logit_bias=((7, 1.0),))
        stop = StopConditions(end_tokens=False)
        body = CHAT.body(generation(request(sampling=sampling, stop=stop)))
        assert NEUTRAL & body.keys() == {"top_k", "repetition_penalty"}
        assert body["logit_bias"] == {"7": 1.0}
        assert body["ignore_eos"] is True

    def test_an_answer_that_is_begun_is_continued(self) -> None:
        assert "continue_final_message" not in CHAT.body(generation(request()))
        body = CHAT.body(generation(request(emitted=(97,))))
        assert body["continue_final_message"] is True
        assert body["add_generation_prompt"] is False
        assert body["max_tokens"] == 8

    def test_a_schema_is_a_response_format(self) -> None:
        body = CHAT.body(generation(request(), grammar=("json_schema", '{"type": "object"}')))
        assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}


class TestReader:
    def test_text_finish_and_usage_are_read(self) -> None:
        read = CHAT.reader(generation(request()))
        assert read(event()) == Delta()
        assert read(event("a")) == Delta(text="a")
        assert read(event("", "length")) == Delta(finish=FinishReason.LENGTH)
        details = {"prompt_tokens_details": {"cached_tokens": 3}}
        counted = {"prompt_tokens": 5, "completion_tokens": 2, **details}
        last = read({"choices": [], "usage": counted})
        assert (last.cached_tokens, last.usage) == (3, (5, 2))

    @pytest.mark.parametrize("reason", ["tool_calls", "content_filter"])
    def test_an_end_that_is_no_answer_is_an_error(self, reason: str) -> None:
        with pytest.raises(UpstreamError, match=reason):
            CHAT.reader(generation(request()))(event("", reason))

    def test_scores_are_those_of_the_first_token(self) -> None:
        read = CHAT.reader(generation(request(score=(1, 2)), scored=("a", "z")))
        assert read(event("a", logprobs=top(a=-0.5, b=-2.0))).scores == (-0.5, -math.inf)
        assert read(event("b", logprobs=top(z=-0.1))).scores == ()

    def test_scores_of_other_tokens_or_none_are_refused(self) -> None:
        read = CHAT.reader(generation(request(score=(1,)), scored=("z",)))
        with pytest.raises(RequestRefusedError, match="other tokens") as refused:
            read(event("a", logprobs=top(a=-0.5)))
        assert refused.value.param == "score"
        read = CHAT.reader(generation(request(score=(1,)), scored=("z",)))
        with pytest.raises(UpstreamError, match="no log probabilities"):
            read(event("a", "length", logprobs=None))


class TestThinking:
    """How a server keeps its model from thinking is found out by what it answers."""

    Connect = Callable[[type[ChatServer], str | None], Awaitable[tuple[UpstreamEngine, ChatServer]]]

    @pytest.fixture
    async def connect(self, shared_engine: TorchEngine, tiny_folder: str) -> AsyncIterator[Connect]:
        closing: list[Any] = []

        async def connect(
            kind: type[ChatServer], heeds: str | None
        ) -> tuple[UpstreamEngine, ChatServer]:
            tokenizer = TokenizerConfig.load(tiny_folder)
            server = kind(shared_engine, tokenizer, 512)
            if isinstance(server, ThinkingChatServer):
                server.heeds = heeds
            await server.http.start()
            config = UpstreamConfig(server.http.url, tokenizer, grammar="none")
            engine = await asyncio.to_thread(UpstreamEngine, config)
            closing.extend((engine.close, server.stop))
            return engine, server

        yield connect
        for close in closing:
            await close()

    @pytest.mark.parametrize(
        ("kind", "heeds", "sent"),
        [
            (ChatServer, None, {"chat_template_kwargs": NO_THINKING}),
            (ThinkingChatServer, "chat_template_kwargs", {"chat_template_kwargs": NO_THINKING}),
            (ThinkingChatServer, "reasoning_effort", {"reasoning_effort": "none"}),
        ],
    )
    async def test_what_works_is_sent_with_every_part(
        self, connect: Connect, kind: type[ChatServer], heeds: str | None, sent: dict[str, Any]
    ) -> None:
        engine, server = await connect(kind, heeds)
        assert engine.capabilities.thinking_off
        await collect(engine, request(content("Hi"), max_tokens=3))
        body = server.bodies[-1]
        known = ("chat_template_kwargs", "reasoning_effort")
        assert {key: body[key] for key in known if key in body} == sent

    @pytest.mark.parametrize("kind", [PlainChatServer, ThinkingChatServer])
    async def test_where_nothing_works_it_is_said(
        self, connect: Connect, kind: type[ChatServer]
    ) -> None:
        engine, _ = await connect(kind, None)
        assert not engine.capabilities.thinking_off
        assert any("thinks before it answers" in lost for lost in losses(engine.capabilities))

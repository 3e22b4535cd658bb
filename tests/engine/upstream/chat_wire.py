"""Servers with chat completions only: one of a wire format, and Plato's own endpoint."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime
from functools import cache
from typing import ClassVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from plato.api.app import new_app
from plato.engine import Chunk, Engine, GenerateRequest, SamplingParams
from plato.engine.tokenizer_config import TokenizerConfig
from plato.prompting.model_tools import ModelTools
from plato.prompting.rendering import Renderer
from plato.runtime import Runtime
from plato.settings import Settings
from tests.engine.upstream.http import HttpServer
from tests.engine.upstream.server import MODEL, Body, WireServer, as_bias, as_grammar


class ChatServer(WireServer):
    """With log probabilities, and answers that are continued, as vLLM's chat completions have."""

    owner = "acme"
    path = "/v1/chat/completions"

    def read(self, body: Body) -> GenerateRequest:
        assert body["model"] == MODEL
        sampling = SamplingParams(
            temperature=body.get("temperature", 1.0),
            top_p=body.get("top_p", 1.0),
            top_k=body.get("top_k", 0),
            seed=body.get("seed", 0),
            logit_bias=as_bias(body.get("logit_bias")),
        )
        form = body.get("response_format")
        schema = form and json.dumps(form["json_schema"]["schema"])
        everything = tuple(range(self.tokenizer.backend.get_vocab_size()))
        return self.new_request(
            self._tokens(body),
            body["max_tokens"],
            sampling,
            ignore_eos=body.get("ignore_eos", False),
            grammar=as_grammar(schema=schema),
            score=everything if body.get("logprobs") else (),
        )

    def _tokens(self, body: Body) -> list[int]:
        messages = [(message["role"], message["content"]) for message in body["messages"]]
        begun = body.get("continue_final_message", False)
        text = Renderer(self.tokenizer, datetime.now()).render(messages, opened=not begun)
        if begun:
            last = messages[-1][1]
            text = text[: text.rindex(last) + len(last)]
        ids: list[int] = self.tokenizer.backend.encode(text, add_special_tokens=False).ids
        return ids

    async def events(self, body: Body, chunks: AsyncIterator[Chunk]) -> AsyncIterator[Body | str]:
        decoded = 0
        async for chunk in chunks:
            decoded += len(chunk.tokens)
            yield {"choices": [self._choice(chunk, {"delta": {"content": chunk.text}})]}
        if body["stream_options"]["include_usage"]:
            yield {"choices": [], "usage": _usage(chunk, decoded)}
        yield "[DONE]"

    def answer(self, body: Body, chunks: list[Chunk]) -> Body:
        content = {"message": {"content": "".join(chunk.text for chunk in chunks)}}
        decoded = sum(len(chunk.tokens) for chunk in chunks)
        choice = self._choice(chunks[0], content) | {"finish_reason": chunks[-1].finish}
        return {"choices": [choice], "usage": _usage(chunks[-1], decoded)}

    def _choice(self, chunk: Chunk, content: Body) -> Body:
        choice: Body = {"index": 0, **content, "finish_reason": chunk.finish}
        if chunk.scores:
            likely = sorted(enumerate(chunk.scores), key=lambda each: -each[1])[:20]
            top = [{"token": self._text(token), "logprob": value} for token, value in likely]
            choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
        return choice

    def _text(self, token: int) -> str:
        return str(self.tokenizer.backend.decode([token], skip_special_tokens=False))


def _usage(last: Chunk, decoded: int) -> Body:
    return {
        "prompt_tokens": last.prompt_tokens,
        "completion_tokens": decoded,
        "prompt_tokens_details": {"cached_tokens": last.cached_tokens},
    }


class PlainChatServer(ChatServer):
    """Refuses what OpenAI's first chat completions did not have."""

    async def _generate(self, request: Request) -> Response:
        body = await request.json()
        unknown = body.keys() & {
            "logprobs", "continue_final_message", "response_format",
            "chat_template_kwargs", "reasoning_effort",
        }  # fmt: skip
        if unknown:
            return JSONResponse({"error": {"message": f"unknown: {sorted(unknown)}"}}, 400)
        return await super()._generate(request)


class ThinkingChatServer(ChatServer):
    """Its model thinks unless it is kept from it by `heeds`; other fields are ignored."""

    heeds: str | None = "reasoning_effort"

    async def _generate(self, request: Request) -> Response:
        body = await request.json()
        if self.heeds in body:
            return await super()._generate(request)
        self.bodies.append(body)
        message = {"content": "", "reasoning": "Okay, the user"}
        return JSONResponse({"choices": [{"message": message, "finish_reason": "length"}]})


class PlatoServer:
    """Plato's own endpoint, asked for sequential answers."""

    model_name: ClassVar[str] = "upstream:sequential"

    def __init__(self, engine: Engine, tokenizer: TokenizerConfig, context_length: int) -> None:
        """Serves what `engine` decodes, and does not close it."""
        settings, tools = _model(engine.stats().model)
        self._runtime = Runtime(settings, tools, {"tiny": engine})
        self.http = HttpServer(new_app(self._runtime.service, settings))

    async def stop(self) -> None:
        await self.http.stop()
        await self._runtime.scheduler.close()


@cache
def _model(folder: str) -> tuple[Settings, ModelTools]:
    settings = Settings(
        model=folder, served_model_name="upstream", dtype="float32", adapter="none", lease_ttl_s=60
    )
    return settings, ModelTools.load(settings)

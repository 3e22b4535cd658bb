"""The wire formats."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from plato.engine import Chunk, FinishReason, GenerateRequest, SamplingParams
from tests.engine.upstream.server import MODEL, Body, WireServer, as_bias, as_grammar

SLOTS = 64
UTF8_BYTES = 4
"""Of the longest character."""


def sampling_of(fields: Body, **others: Any) -> SamplingParams:
    """What all servers call by the same name, and `others`."""
    return SamplingParams(
        temperature=fields["temperature"],
        top_p=fields["top_p"],
        min_p=fields["min_p"],
        presence_penalty=fields["presence_penalty"],
        frequency_penalty=fields["frequency_penalty"],
        **others,
    )


class VllmServer(WireServer):
    """`vllm serve --enable-prompt-tokens-details --scheduling-policy priority`."""

    owner = "vllm"
    path = "/v1/completions"

    def more_routes(self) -> list[Route]:
        return [Route("/metrics", self._metrics)]

    async def _metrics(self, request: Request) -> Response:
        return PlainTextResponse('vllm:cache_config_info{block_size="1",engine="0"} 1.0\n')

    def read(self, body: Body) -> GenerateRequest:
        assert body["model"] == MODEL
        assert body["return_token_ids"]
        assert "logprob_token_ids" not in body or body["return_tokens_as_token_ids"]
        structured = body.get("structured_outputs", {})
        sampling = sampling_of(
            body,
            top_k=body["top_k"],
            seed=body["seed"],
            repetition_penalty=body["repetition_penalty"],
            logit_bias=as_bias(body.get("logit_bias")),
        )
        return self.new_request(
            body["prompt"],
            body["max_tokens"],
            sampling,
            ignore_eos=body["ignore_eos"],
            salt=body.get("cache_salt"),
            priority=-body.get("priority", 0),
            grammar=as_grammar(structured.get("grammar"), structured.get("json")),
            score=tuple(body.get("logprob_token_ids", ())),
        )

    async def events(self, body: Body, chunks: AsyncIterator[Chunk]) -> AsyncIterator[Body | str]:
        cached = 0
        named = body.get("logprob_token_ids", ())
        async for chunk in chunks:
            cached = chunk.cached_tokens
            choice: Body = {
                "index": 0,
                "text": chunk.text,
                "token_ids": list(chunk.tokens),
                "finish_reason": chunk.finish,
            }
            if named:
                scored = zip(named, chunk.scores, strict=False)
                first = {f"token_id:{token}": max(value, -9999.0) for token, value in scored}
                choice["logprobs"] = {"top_logprobs": [first, *[{}] * (len(chunk.tokens) - 1)]}
            yield {"id": "cmpl-1", "model": MODEL, "choices": [choice]}
        if body["stream_options"]["include_usage"]:
            details = {"prompt_tokens_details": {"cached_tokens": cached}}
            yield {"id": "cmpl-1", "model": MODEL, "choices": [], "usage": details}
        yield "[DONE]"


class SglangServer(WireServer):
    """`sglang.launch_server` of an older release."""

    owner = "sglang"
    path = "/generate"
    incremental = False
    salt: ClassVar[str] = "extra_key"
    """The field by which it keeps tenants apart; it ignores those that it does not know."""

    def read(self, body: Body) -> GenerateRequest:
        params = body["sampling_params"]
        sampling = sampling_of(
            params,
            top_k=max(0, params["top_k"]),
            seed=params["sampling_seed"],
            repetition_penalty=params["repetition_penalty"],
            logit_bias=as_bias(params.get("logit_bias")),
        )
        return self.new_request(
            body["input_ids"],
            params["max_new_tokens"],
            sampling,
            ignore_eos=params["ignore_eos"],
            salt=body.get(self.salt),
            priority=body.get("priority", 0),
            grammar=as_grammar(params.get("ebnf"), params.get("json_schema")),
            score=tuple(body.get("token_ids_logprob", ())),
        )

    async def events(self, body: Body, chunks: AsyncIterator[Chunk]) -> AsyncIterator[Body | str]:
        named = body.get("token_ids_logprob", ())
        decoded: list[int] = []
        positions: list[list[list[float | None]]] = []
        async for chunk in chunks:
            decoded += chunk.tokens
            scored = zip(named, chunk.scores, strict=False)
            # JSON has no infinities: the server writes its lowest number.
            first = [[max(value, -1e38), token, None] for token, value in scored]
            positions += [first, *[[]] * (len(chunk.tokens) - 1)] if chunk.tokens else []
            about: Body = {
                "id": "1",
                "prompt_tokens": chunk.prompt_tokens,
                "completion_tokens": len(decoded),
                "cached_tokens": chunk.cached_tokens,
                "finish_reason": chunk.finish and {"type": str(chunk.finish)},
            }
            if body.get("return_logprob"):
                about["output_token_ids_logprobs"] = positions
            yield {
                "text": "",
                "output_ids": list(chunk.tokens) if self.incremental else decoded,
                "meta_info": about,
            }
        yield "[DONE]"


class IncrementalSglangServer(SglangServer):
    """A newer one, with `--incremental-streaming-output`."""

    incremental = True
    salt = "cache_salt"


class LlamaServer(WireServer):
    """`llama-server -np 64`."""

    owner = "llamacpp"
    path = "/completion"

    def more_routes(self) -> list[Route]:
        return [Route("/props", self._props)]

    async def _props(self, request: Request) -> Response:
        settings = {"n_ctx": self.context_length}
        return JSONResponse({"total_slots": SLOTS, "default_generation_settings": settings})

    def model(self) -> Body:
        return {"id": MODEL, "owned_by": self.owner, "meta": {"n_ctx_train": 99_999}}

    def text(self, body: Body) -> str:
        text: str = body["content"]
        assert body["add_special"] is False
        return text

    def read(self, body: Body) -> GenerateRequest:
        schema = body.get("json_schema")
        bias = tuple((token, value) for token, value in body["logit_bias"])
        if not body.get("stream"):
            assert body["samplers"] == []
            assert body["n_probs"] == len(bias)
            return self.new_request(
                body["prompt"],
                body["n_predict"],
                SamplingParams(),
                ignore_eos=False,
                score=tuple(token for token, _ in bias),
            )
        sampling = sampling_of(
            body,
            top_k=body["top_k"],
            seed=body["seed"],
            repetition_penalty=body["repeat_penalty"],
            logit_bias=bias,
        )
        return self.new_request(
            body["prompt"],
            body["n_predict"],
            sampling,
            ignore_eos=body["ignore_eos"],
            grammar=as_grammar(body.get("grammar"), schema and json.dumps(schema)),
        )

    async def events(self, body: Body, chunks: AsyncIterator[Chunk]) -> AsyncIterator[Body | str]:
        decoded = 0
        finish, cached = FinishReason.STOP, 0
        unsent: list[int] = []
        async for chunk in chunks:
            cached, finish = chunk.cached_tokens, chunk.finish or finish
            for token in chunk.tokens:
                decoded += 1
                unsent.append(token)
                text = self.tokenizer.backend.decode(unsent)
                if text.endswith("\N{REPLACEMENT CHARACTER}") and len(unsent) < UTF8_BYTES:
                    continue  # It has no event, and its id is never sent.
                unsent.clear()
                tokens = [token] if body["return_tokens"] else []
                about = {"tokens_predicted": decoded, "tokens_evaluated": chunk.prompt_tokens}
                yield {"index": 0, "content": text, "tokens": tokens, "stop": False, **about}
        yield {
            "index": 0,
            "content": "",
            "tokens": [],
            "stop": True,
            "stop_type": "limit" if finish is FinishReason.LENGTH else "eos",
            "tokens_predicted": decoded,
            "timings": {"cache_n": cached},
        }

    def answer(self, body: Body, chunks: list[Chunk]) -> Body:
        scores = next(chunk.scores for chunk in chunks if chunk.scores)
        total = sum(map(math.exp, scores))
        shares = [math.exp(score) / total for score in scores]
        named = [token for token, _ in body["logit_bias"]]
        top = [
            {"id": token, "token": "", "bytes": [], "prob": share}
            for token, share in zip(named, shares, strict=True)
        ]
        top.sort(key=lambda each: -each["prob"])
        return {"content": "", "stop": True, "completion_probabilities": [{"top_probs": top}]}

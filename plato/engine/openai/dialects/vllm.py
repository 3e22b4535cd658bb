"""vLLM's server, by what is read in its version 0.32 (`vllm/entrypoints/openai/completion`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from plato.engine.capabilities import Capabilities, PrefixSharing, Scores
from plato.engine.errors import (
    EngineBusyError,
    NoScoresError,
    RequestRefusedError,
    UpstreamError,
)
from plato.engine.openai.client import UpstreamClient
from plato.engine.openai.dialects.dialect import (
    Delta,
    Dialect,
    Generation,
    ServerInfo,
    finish_of,
    from_server,
)

BLOCK_TOKENS = 16
"""Default of `--block-size` on GPUs."""
METRICS = "/metrics"
_BLOCK_SIZE = re.compile(
    r'^vllm:cache_config_info\{(?:[^\n]*,)?block_size="([1-9]\d*)"', re.MULTILINE
)


class VllmDialect(Dialect):
    """`POST /v1/completions` with token ids.

    Start it with `--enable-prompt-tokens-details`, or cached tokens are reported as 0. Its guidance
    backend for structured outputs reads Lark, its others GBNF. Scores are comparable in all of its
    `--logprobs-mode`s: they are differences, of requests without penalties at temperature 0.
    """

    name = "vllm"
    owner = "vllm"
    path = "/v1/completions"
    capabilities = Capabilities(
        prefix_granularity=BLOCK_TOKENS,
        prefix_sharing=PrefixSharing.COMPUTING,
        kv_events=False,
        kv_transfer=False,
        pins=False,
        grammars=frozenset({"gbnf", "lark", "json_schema"}),
        grammar_resumption=False,
        forced_tokens=False,
        scores=Scores.LOG_PROBABILITIES,
        keyed_seeds=False,
        exempt_penalties=False,
        scripts=False,
        tenants=True,
        priority=True,
        token_ids=True,
        # The salt counts from the first token on.
        public_sharing=False,
    )

    async def describe(self, client: UpstreamClient, model: Mapping[str, Any]) -> ServerInfo:
        """See `Dialect.describe`."""
        info = await super().describe(client, model)
        try:
            found = _BLOCK_SIZE.search(await client.text(METRICS))
        except (RequestRefusedError, UpstreamError, EngineBusyError):
            # A gateway in front of it may pass on only what clients need.
            found = None
        block_tokens = int(found[1]) if found else BLOCK_TOKENS
        return replace(
            info, capabilities=replace(self.capabilities, prefix_granularity=block_tokens)
        )

    def body(self, generation: Generation) -> dict[str, Any]:
        """See `Dialect.body`."""
        request, sampling = generation.request, generation.sampling
        body: dict[str, Any] = {
            "model": generation.model,
            "prompt": generation.tokens,
            "max_tokens": generation.budget,
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_token_ids": True,
            "add_special_tokens": False,
            "ignore_eos": not request.stop.end_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "seed": generation.seed,
            "repetition_penalty": sampling.repetition_penalty,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
        }
        if sampling.logit_bias:
            body["logit_bias"] = {str(token): value for token, value in sampling.logit_bias}
        if generation.grammar is not None:
            notation, text = generation.grammar
            kind = "json" if notation == "json_schema" else "grammar"
            body["structured_outputs"] = {kind: text}
        if generation.salt is not None:
            body["cache_salt"] = generation.salt
        if generation.priority is not None:
            body["priority"] = generation.priority
        if request.score:
            body |= {
                "logprobs": 1,
                "logprob_token_ids": list(request.score),
                "return_tokens_as_token_ids": True,
            }
        return body

    def reader(self, generation: Generation) -> Callable[[Mapping[str, Any]], Delta]:
        """See `Dialect.reader`."""
        score = generation.request.score

        def read(event: Mapping[str, Any]) -> Delta:
            details = (event.get("usage") or {}).get("prompt_tokens_details") or {}
            cached = details.get("cached_tokens") or 0
            if not event["choices"]:
                return Delta(cached_tokens=cached)
            choice = event["choices"][0]
            if choice.get("token_ids") is None:
                raise UpstreamError("it returns no token ids (`return_token_ids`); update vLLM")
            tokens = tuple(choice["token_ids"])
            return Delta(
                tokens,
                finish=finish_of(choice.get("finish_reason")),
                scores=_scores(choice.get("logprobs"), score) if tokens and score else (),
                cached_tokens=cached,
            )

        return read


def _scores(logprobs: Mapping[str, Any] | None, tokens: tuple[int, ...]) -> tuple[float, ...]:
    """Log probabilities of `tokens` at the first position of an event."""
    first = ((logprobs or {}).get("top_logprobs") or [None])[0] or {}
    missing = [token for token in tokens if f"token_id:{token}" not in first]
    if missing:
        raise NoScoresError(f"it returns no log probabilities of the tokens {missing}")
    return tuple(from_server(first[f"token_id:{token}"]) for token in tokens)

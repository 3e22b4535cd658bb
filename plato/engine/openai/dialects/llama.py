"""llama.cpp's server, by its public source (`tools/server/README.md`, `server-task.cpp`)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from plato.engine.capabilities import Capabilities, PrefixSharing, Scores
from plato.engine.errors import UpstreamError
from plato.engine.openai.client import UpstreamClient
from plato.engine.openai.dialects.dialect import Delta, Dialect, Generation, ServerInfo
from plato.engine.protocol import FinishReason

SCORE_BIAS = 100.0
"""Added to the logits of tokens to score, so that they are the most likely ones."""
_FINISHES = {
    "eos": FinishReason.STOP,
    "word": FinishReason.STOP,
    "limit": FinishReason.LENGTH,
}


class LlamaDialect(Dialect):
    """`POST /completion` with token ids.

    Start it with `-np N -c N*length`. Its slots do not share KV, so every part of an answer
    computes what it shares with others.
    """

    name = "llama"
    owner = "llamacpp"
    path = "/completion"
    capabilities = Capabilities(
        prefix_granularity=1,
        prefix_sharing=PrefixSharing.ENDED,
        kv_events=False,
        kv_transfer=False,
        pins=False,
        grammars=frozenset({"gbnf", "json_schema"}),
        grammar_resumption=False,
        forced_tokens=False,
        scores=Scores.RELATIVE,
        keyed_seeds=False,
        exempt_penalties=False,
        scripts=False,
        tenants=False,
        priority=False,
        token_ids=True,
    )

    async def describe(self, client: UpstreamClient, model: Mapping[str, Any]) -> ServerInfo:
        """See `Dialect.describe`."""
        props = await client.ask("/props")
        settings = props.get("default_generation_settings") or {}
        return ServerInfo(model["id"], settings.get("n_ctx"), props.get("total_slots"))

    async def tokenize(self, client: UpstreamClient, model: str, text: str) -> list[int]:
        """See `Dialect.tokenize`."""
        body = {"content": text, "add_special": False, "parse_special": False}
        tokens: list[int] = (await client.ask("/tokenize", body))["tokens"]
        return tokens

    def body(self, generation: Generation) -> dict[str, Any]:
        """See `Dialect.body`."""
        request, sampling = generation.request, generation.sampling
        tokens = generation.tokens
        body: dict[str, Any] = {
            "prompt": tokens,
            "n_predict": generation.budget,
            "stream": True,
            "cache_prompt": True,
            "return_tokens": True,
            "ignore_eos": not request.stop.end_tokens,
            "seed": generation.seed,
            # The order that `SamplingParams` documents; all others are off.
            "samplers": ["penalties", "temperature", "min_p", "top_k", "top_p"],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            # All of them; newer releases refuse the -1 of older ones.
            "repeat_last_n": len(tokens) + generation.budget,
            "repeat_penalty": sampling.repetition_penalty,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "logit_bias": [list(pair) for pair in sampling.logit_bias],
        }
        if generation.grammar is not None:
            notation, text = generation.grammar
            if notation == "json_schema":
                body["json_schema"] = json.loads(text)
            else:
                body["grammar"] = text
        return body

    def reader(self, generation: Generation) -> Callable[[Mapping[str, Any]], Delta]:
        """See `Dialect.reader`."""
        decoded = 0

        def read(event: Mapping[str, Any]) -> Delta:
            nonlocal decoded
            if event["stop"]:
                # Without tokens; what is missing here is the beginning of a character.
                cached = (event.get("timings") or {}).get("cache_n") or 0
                return Delta(finish=_FINISHES[event["stop_type"]], cached_tokens=cached)
            tokens, text = tuple(event["tokens"]), event["content"]
            if text and not tokens:
                raise UpstreamError("it returns no token ids (`return_tokens`); update llama.cpp")
            decoded += len(tokens)
            if text and event["tokens_predicted"] > decoded:
                # Tokens that end within a character have no event, and the next event has all of
                # the text but only the last token. Once some are missing, their number is not
                # known any more: with speculative decoding the server counts ahead.
                return Delta(text=text)
            return Delta(tokens)

        return read

    def score_body(self, generation: Generation) -> dict[str, Any] | None:
        """A request for one token, whose bias leaves only the tokens to score.

        `n_probs` alone reports the most likely tokens, and those to score can be far from them.
        """
        score = generation.request.score
        if not score:
            return None
        return {
            "prompt": generation.tokens,
            "n_predict": 1,
            "cache_prompt": True,
            "samplers": [],
            "logit_bias": [[token, SCORE_BIAS] for token in score],
            "n_probs": len(score),
            "post_sampling_probs": True,
        }

    def scores(self, generation: Generation, answer: Mapping[str, Any]) -> tuple[float, ...]:
        """See `Dialect.scores`."""
        positions = answer.get("completion_probabilities")
        if not positions:
            raise UpstreamError("it returns no probabilities")
        found = {each["id"]: each["prob"] for each in positions[0]["top_probs"]}
        shares = [found.get(token) or 0.0 for token in generation.request.score]
        if not any(shares):
            raise UpstreamError("it returns no probabilities of the tokens to score")
        return tuple(math.log(share) if share else -math.inf for share in shares)

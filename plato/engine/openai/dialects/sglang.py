"""SGLang's server, by its public source (`srt/managers/io_struct.py`, `tokenizer_manager.py`)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from plato.engine.capabilities import Capabilities, PrefixSharing, Scores
from plato.engine.errors import NoScoresError, UpstreamError
from plato.engine.openai.dialects.dialect import (
    Delta,
    Dialect,
    Generation,
    finish_of,
    from_server,
)
from plato.engine.openai.statuses import MAX_DETAIL_CHARS, status_error
from plato.engine.protocol import FinishReason

logger = logging.getLogger(__name__)


class SglangDialect(Dialect):
    """`POST /generate` with token ids.

    Start it with `--incremental-streaming-output`, or every event repeats all tokens so far.
    """

    name = "sglang"
    owner = "sglang"
    path = "/generate"
    capabilities = Capabilities(
        prefix_granularity=1,
        # Also with its policy FCFS; with LPM it makes siblings wait itself.
        prefix_sharing=PrefixSharing.COMPUTED,
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

    def body(self, generation: Generation) -> dict[str, Any]:
        """See `Dialect.body`."""
        request, sampling = generation.request, generation.sampling
        params: dict[str, Any] = {
            "max_new_tokens": generation.budget,
            "ignore_eos": not request.stop.end_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or -1,
            "min_p": sampling.min_p,
            "sampling_seed": generation.seed,
            "repetition_penalty": sampling.repetition_penalty,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
        }
        if sampling.logit_bias:
            params["logit_bias"] = {str(token): value for token, value in sampling.logit_bias}
        if generation.grammar is not None:
            notation, text = generation.grammar
            params["json_schema" if notation == "json_schema" else "ebnf"] = text
        body: dict[str, Any] = {
            "input_ids": generation.tokens,
            "sampling_params": params,
            "stream": True,
        }
        if generation.salt is not None:
            # Newer and older releases; each ignores the other's.
            body["cache_salt"] = body["extra_key"] = generation.salt
        if generation.priority is not None:
            body["priority"] = -generation.priority  # Higher is earlier there.
        if request.score:
            body |= {
                "return_logprob": True,
                "logprob_start_len": -1,
                "token_ids_logprob": list(request.score),
            }
        return body

    def reader(self, generation: Generation) -> Callable[[Mapping[str, Any]], Delta]:
        """See `Dialect.reader`."""
        score, received = generation.request.score, 0

        def read(event: Mapping[str, Any]) -> Delta:
            nonlocal received
            about = event["meta_info"]
            new = about["completion_tokens"] - received
            # With `--incremental-streaming-output` these are the new tokens, otherwise all.
            tokens = tuple(event["output_ids"][-new:]) if new else ()
            if len(tokens) != new:
                raise UpstreamError(f"it counts {new} new tokens and returns {len(tokens)}")
            scores = _scores(about, score) if score and new and received == 0 else ()
            received += new
            finish = _finish(about.get("finish_reason"))
            cached = about.get("cached_tokens") or 0
            return Delta(tokens, finish=finish, scores=scores, cached_tokens=cached)

        return read


def _finish(reason: Mapping[str, Any] | None) -> FinishReason | None:
    if reason is None:
        return None
    if reason["type"] == "abort":
        status = reason.get("status_code") or HTTPStatus.INTERNAL_SERVER_ERROR
        detail = str(reason.get("message") or "")[:MAX_DETAIL_CHARS]
        logger.info("SGLang aborts a sequence with status %d: %r", status, detail)
        raise status_error(status, detail)
    return finish_of(reason["type"])


def _scores(about: Mapping[str, Any], tokens: tuple[int, ...]) -> tuple[float, ...]:
    """Log probabilities of `tokens` at the first position."""
    positions = about.get("output_token_ids_logprobs") or [[]]
    found = {token: value for value, token, *_ in positions[0] or []}
    missing = [token for token in tokens if found.get(token) is None]
    if missing:
        raise NoScoresError(f"it returns no log probabilities of the tokens {missing}")
    return tuple(from_server(found[token]) for token in tokens)

"""Requests that no engine can serve, whatever it computes with."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from plato.engine.capabilities import Capabilities, Scores
from plato.engine.errors import (
    ContextExceededError,
    OtherModelError,
    RequestRefusedError,
    ResumptionRefusedError,
)
from plato.engine.protocol import GenerateRequest, SamplingParams

_HUGE = 1e9
"""Bound of every parameter: far below float32 overflow, and far above any useful value."""


def check_request(
    request: GenerateRequest,
    *,
    fingerprints: Collection[str],
    context_length: int,
    vocabulary: int,
) -> None:
    """Raise `RequestRefusedError` if a request can never be served.

    Raises `ContextExceededError` if it is too long, and `OtherModelError` if it is for another
    model than those with these `fingerprints`.

    Args:
        request: to check.
        fingerprints: of the engine's model, with and without its adapter.
        context_length: longest sequence of the engine, in tokens.
        vocabulary: number of token ids.
    """
    if request.prompt.fingerprint not in ("", *fingerprints):
        raise OtherModelError(
            f"the prompt is for the model {request.prompt.fingerprint}, and this decoder has "
            f"{' and '.join(fingerprints)}; give all processes the same model and dtype"
        )
    if len(request.prompt) == 0:
        raise RequestRefusedError("the prompt is empty")
    if request.max_tokens <= len(request.emitted):
        raise RequestRefusedError(
            f"max_tokens is {request.max_tokens}, and {len(request.emitted)} output tokens are "
            "emitted already; raise it",
            "max_tokens",
        )
    if "" in request.stop.strings:
        raise RequestRefusedError("a stop string is empty; leave it out", "stop")
    if len(request.prompt) + request.max_tokens > context_length:
        raise ContextExceededError(
            f"{len(request.prompt)} prompt tokens and {request.max_tokens} output tokens pass "
            f"the model's context of {context_length} tokens; shorten one of them",
            "max_tokens",
        )
    check_sampling(request.sampling, vocabulary)
    _check_tokens("score", request.score, vocabulary)
    if any(not 0 <= token < vocabulary for token in request.script):
        raise RequestRefusedError(
            f"the script has token ids outside the vocabulary of {vocabulary}", "script"
        )


def check_capabilities(request: GenerateRequest, can: Capabilities) -> None:
    """Raise `RequestRefusedError` if a request needs what an engine cannot do.

    What it can only do worse is no reason; see `plato.engine.losses`.
    """
    if request.grammar is not None and not any(
        getattr(request.grammar, notation) for notation in can.grammars
    ):
        raise RequestRefusedError("the engine cannot decode under this grammar", "grammar")
    if request.grammar is not None and request.emitted and not can.grammar_resumption:
        raise RequestRefusedError("the engine cannot resume within a grammar", "grammar")
    if request.emitted and not can.resumption:
        raise ResumptionRefusedError("the engine cannot go on where an earlier attempt stopped")
    if not can.token_ids:
        _check_messages(request, can)
    if request.score and can.scores is Scores.NONE:
        raise RequestRefusedError("the engine reports no log probabilities", "score")
    if request.script and not can.scripts:
        raise RequestRefusedError("the engine decodes no scripts", "script")


def _check_messages(request: GenerateRequest, can: Capabilities) -> None:
    """Raise `RequestRefusedError` unless the prompt can be sent as chat messages."""
    roles = [role for role, _ in request.prompt.messages]
    if not roles:
        raise RequestRefusedError(
            "the engine takes chat messages only and cannot continue a plain text; use "
            "/v1/chat/completions",
            "prompt",
        )
    if roles[-1] == "assistant" and not can.resumption:
        raise RequestRefusedError("the engine cannot continue an answer that is begun", "prompt")


def check_sampling(params: SamplingParams, vocabulary: int) -> None:
    """Raise `RequestRefusedError` for invalid parameters.

    `vocabulary` is the number of logits in a row.
    """
    bounds = {
        "temperature": (params.temperature, 0, _HUGE),
        "top_p": (params.top_p, 0, 1),
        "top_k": (params.top_k, 0, _HUGE),
        "min_p": (params.min_p, 0, 1),
        "repetition_penalty": (params.repetition_penalty, 1 / _HUGE, _HUGE),
        "presence_penalty": (params.presence_penalty, -_HUGE, _HUGE),
        "frequency_penalty": (params.frequency_penalty, -_HUGE, _HUGE),
    }
    for name, (value, low, high) in bounds.items():
        if not low <= value <= high:
            raise RequestRefusedError(f"{name} is {value:g}; it must be {low:g} to {high:g}", name)
    if params.top_p == 0:
        raise RequestRefusedError(
            "top_p is 0, which keeps no token; use temperature 0 for greedy decoding", "top_p"
        )
    _check_bias(params.logit_bias, vocabulary)
    _check_tokens("penalised", params.penalised, vocabulary)


def _check_tokens(name: str, tokens: Iterable[int], vocabulary: int) -> None:
    """Raise `RequestRefusedError` for a token that the model does not have."""
    for token in tokens:
        if not 0 <= token < vocabulary:
            raise RequestRefusedError(
                f"{name} has token {token}, and this model's tokens are 0 to {vocabulary - 1}; "
                "remove it",
                name,
            )


def _check_bias(bias: Sequence[tuple[int, float]], vocabulary: int) -> None:
    seen: set[int] = set()
    _check_tokens("logit_bias", (token for token, _ in bias), vocabulary)
    for token, value in bias:
        if token in seen:
            raise RequestRefusedError(f"logit_bias has token {token} twice; keep one", "logit_bias")
        if not -_HUGE <= value <= _HUGE:
            raise RequestRefusedError(
                f"logit_bias adds {value:g} to token {token}; it must be {-_HUGE:g} to {_HUGE:g}",
                "logit_bias",
            )
        seen.add(token)

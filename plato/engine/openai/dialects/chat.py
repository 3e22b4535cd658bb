"""Any server with OpenAI's `POST /v1/chat/completions`, by OpenAI's API reference.

`continue_final_message` is of vLLM and SGLang; others ignore or refuse it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from plato.engine.capabilities import Capabilities, PrefixSharing, Scores
from plato.engine.errors import NoScoresError, RequestRefusedError
from plato.engine.openai.client import UpstreamClient
from plato.engine.openai.dialects.dialect import (
    ChatMessage,
    Delta,
    Dialect,
    Generation,
    ServerInfo,
    finish_of,
    from_server,
)
from plato.engine.protocol import SamplingParams
from plato.engine.thinking import BEGIN_THINKING, NO_THINKING

TOP_LOGPROBS = 20
"""The most that servers return."""
_ASKED: ChatMessage = {"role": "user", "content": "Is the sky blue?"}
_BEGUN: ChatMessage = {"role": "assistant", "content": "On most days, the sky"}
_SCORES = {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
_CONTINUE = {"continue_final_message": True, "add_generation_prompt": False}
_THINKING_OFF: tuple[Mapping[str, Any], ...] = (
    {"chat_template_kwargs": NO_THINKING},
    {"reasoning_effort": "none"},
)
"""Of vLLM, SGLang and llama.cpp; of OpenAI and Ollama, which ignores the former."""
_BEGUN_THINKING = 8
"""Tokens within which a model that thinks has begun to."""


class ChatDialect(Dialect):
    """Chat messages in, text out.

    Whether the server returns log probabilities, goes on with an answer that is begun, and keeps a
    model from thinking, is found out by asking for a few tokens.
    """

    name = "chat"
    owner = ""
    path = "/v1/chat/completions"
    health = "/v1/models"
    capabilities = Capabilities(
        prefix_granularity=1,
        # Not known; waiting for each other would gain nothing on a server that shares anyway.
        prefix_sharing=PrefixSharing.COMPUTING,
        kv_events=False,
        kv_transfer=False,
        pins=False,
        grammars=frozenset({"json_schema"}),
        grammar_resumption=False,
        forced_tokens=False,
        scores=Scores.LOG_PROBABILITIES,
        keyed_seeds=False,
        exempt_penalties=False,
        scripts=False,
        tenants=False,
        priority=False,
        token_ids=False,
        resumption=True,
    )

    async def describe(self, client: UpstreamClient, model: Mapping[str, Any]) -> ServerInfo:
        """See `Dialect.describe`. Raises `RequestRefusedError` if it has no chat completions."""
        name = model["id"]
        await self._ask(client, name, [_ASKED])
        off = await self._thinking_off(client, name)
        fields = off or {}
        scores = await self._has_scores(client, name, fields)
        capabilities = replace(
            self.capabilities,
            scores=Scores.LOG_PROBABILITIES if scores else Scores.NONE,
            resumption=await self._continues(client, name, fields),
            thinking_off=off is not None,
        )
        length = model.get("max_model_len")
        return ServerInfo(name, length, capabilities=capabilities, fields=fields)

    async def _ask(
        self, client: UpstreamClient, model: str, messages: list[ChatMessage], **fields: Any
    ) -> Any:
        """The answer to a request for one token, unless told otherwise."""
        body = {"model": model, "messages": messages, "max_tokens": 1, **fields}
        return await client.ask(self.path, body)

    async def _thinking_off(self, client: UpstreamClient, model: str) -> Mapping[str, Any] | None:
        """The fields that keep the model from thinking, if it ever does; `None`: none do.

        Some servers ignore what they do not know, so the answer has to show it.
        """
        for fields in _THINKING_OFF:
            try:
                answer = await self._ask(
                    client, model, [_ASKED], **fields, max_tokens=_BEGUN_THINKING
                )
            except RequestRefusedError:
                continue
            if not _thinks(answer["choices"][0]["message"]):
                return fields
        return None

    async def _has_scores(
        self, client: UpstreamClient, model: str, fields: Mapping[str, Any]
    ) -> bool:
        try:
            answer = await self._ask(client, model, [_ASKED], **fields, **_SCORES)
        except RequestRefusedError:
            return False
        return bool(_top(answer["choices"][0]))

    async def _continues(
        self, client: UpstreamClient, model: str, fields: Mapping[str, Any]
    ) -> bool:
        """Whether the server goes on with a last message of the assistant.

        Then the prompt is shorter than with that message as a whole turn: servers that do not know
        the fields ignore or refuse them.
        """
        messages = [_ASKED, _BEGUN]
        try:
            begun = await self._ask(client, model, messages, **fields, **_CONTINUE)
            whole = await self._ask(client, model, messages, **fields)
        except RequestRefusedError:
            return False
        counts = [
            (answer.get("usage") or {}).get("prompt_tokens") or 0 for answer in (begun, whole)
        ]
        return 0 < counts[0] < counts[1]

    def body(self, generation: Generation) -> dict[str, Any]:
        """See `Dialect.body`."""
        request, sampling = generation.request, generation.sampling
        body: dict[str, Any] = {
            "model": generation.model,
            "messages": list(generation.messages),
            "max_tokens": generation.budget,
            "stream": True,
            "stream_options": {"include_usage": True},
            "seed": generation.seed,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            **_unusual(sampling),
            **generation.fields,
        }
        if not request.stop.end_tokens:
            body["ignore_eos"] = True
        if sampling.logit_bias:
            body["logit_bias"] = {str(token): value for token, value in sampling.logit_bias}
        if generation.messages[-1]["role"] == "assistant":
            body |= _CONTINUE
        if generation.grammar is not None:
            _, schema = generation.grammar
            named = {"name": "answer", "strict": True, "schema": json.loads(schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        if request.score:
            body |= _SCORES
        return body

    def reader(self, generation: Generation) -> Callable[[Mapping[str, Any]], Delta]:
        """See `Dialect.reader`. Raises `RequestRefusedError` if the scores are of other tokens."""
        awaited = generation.scored

        def read(event: Mapping[str, Any]) -> Delta:
            nonlocal awaited
            usage = event.get("usage") or {}
            counted = (usage["prompt_tokens"], usage["completion_tokens"]) if usage else None
            cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
            if not event["choices"]:
                return Delta(cached_tokens=cached, usage=counted)
            choice = event["choices"][0]
            finish = finish_of(choice.get("finish_reason"))
            scores: tuple[float, ...] = ()
            if awaited and (top := _top(choice)):
                scores, awaited = _scores(top, awaited), ()
            if awaited and finish is not None:
                raise NoScoresError("it returns no log probabilities")
            text = (choice.get("delta") or {}).get("content") or ""
            return Delta(
                text=text, finish=finish, scores=scores, cached_tokens=cached, usage=counted
            )

        return read


def _unusual(sampling: SamplingParams) -> dict[str, float]:
    """Parameters that are not neutral: servers that do not know them refuse them."""
    neutral = SamplingParams()
    names = ("presence_penalty", "frequency_penalty", "repetition_penalty", "top_k", "min_p")
    values = {name: getattr(sampling, name) for name in names}
    return {name: value for name, value in values.items() if value != getattr(neutral, name)}


def _thinks(message: Mapping[str, Any]) -> bool:
    """Whether an answer begins with thinking, which servers put in fields of their own, or not."""
    apart = message.get("reasoning_content") or message.get("reasoning")
    return bool(apart) or (message.get("content") or "").lstrip().startswith(BEGIN_THINKING)


def _top(choice: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The most likely tokens at the first position of a choice, if it says."""
    positions = (choice.get("logprobs") or {}).get("content") or [{}]
    found: list[Mapping[str, Any]] = positions[0].get("top_logprobs") or []
    return found


def _scores(top: list[Mapping[str, Any]], texts: tuple[str, ...]) -> tuple[float, ...]:
    """Log probabilities of the tokens with these texts; -inf: not among the most likely ones."""
    found = {each["token"]: from_server(each["logprob"]) for each in top}
    if not found.keys() & set(texts):
        raise RequestRefusedError("the server's log probabilities are of other tokens", "score")
    return tuple(found.get(text, -math.inf) for text in texts)

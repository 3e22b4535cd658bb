"""What a server does with grammars, scores and tenants, found out by asking for a few tokens."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from tokenizers import Tokenizer

from plato.engine.errors import EngineError, NoScoresError, RequestRefusedError
from plato.engine.openai.config import NOTATIONS, Configured, Notation
from plato.engine.openai.dialects import Delta
from plato.engine.prompt import Prompt, Segment
from plato.engine.protocol import GenerateRequest, Grammar

PROBE = Grammar(
    # With an escape that llguidance's reader of GBNF gets wrong.
    lark='start: "{\\"sky\\":\\"" /[\\u0061-\\u007a]{4}/ "\\"}"',
    gbnf='root ::= "{\\"sky\\":\\"" [\\u0061-\\u007a]{4,4} "\\"}"',
    json_schema=json.dumps(
        {
            "type": "object",
            "properties": {"sky": {"type": "string", "enum": ["blue", "grey"]}},
            "required": ["sky"],
            "additionalProperties": False,
        }
    ),
)
"""Nothing that a model writes unless it has to."""
_MATCH = re.compile(r'\s*\{\s*"sky"\s*:\s*"[a-z]{4}"\s*\}\s*')
QUESTION = "Is the sky blue?"
"""All prompts begin with it."""
_MAX_TOKENS = 48
_REPEATED = 50
"""How often the question makes a prompt that is longer than any server's blocks."""


Decode = Callable[[GenerateRequest], AsyncGenerator[Delta]]
"""Has a server decode a request."""


async def find_notations(
    known: frozenset[str], configured: Configured | None, tokenizer: Tokenizer, decode: Decode
) -> frozenset[str]:
    """The notations that a server reads: JSON schemas, perhaps, and one for all other grammars.

    Args:
        known: those that some server of its kind reads.
        configured: the other notation, or `none` for no grammars at all; `None`: find it out.
        tokenizer: of its model.
        decode: what it raises is raised, but for `RequestRefusedError`.

    Raises `EngineError` if no server of its kind reads the configured one.
    """
    if configured == "none":
        return frozenset()
    if configured is not None and configured not in known:
        raise EngineError(f"the server reads no grammars in {configured}; leave it out")
    found: set[str] = set()
    if "json_schema" in known and await _reads("json_schema", tokenizer, decode):
        found.add("json_schema")
    if configured is not None:
        return frozenset({*found, configured})
    for notation in NOTATIONS:
        if notation in known - {"json_schema"} and await _reads(notation, tokenizer, decode):
            found.add(notation)
            break
    return frozenset(found)


async def _reads(notation: Notation, tokenizer: Tokenizer, decode: Decode) -> bool:
    """Whether a server follows a grammar in this notation."""
    grammar = Grammar(**{"lark": "", notation: getattr(PROBE, notation)})
    request = _request(_prompt(QUESTION, tokenizer), _MAX_TOKENS, grammar=grammar)
    decoded: list[int] = []
    try:
        async with aclosing(decode(request)) as deltas:
            async for delta in deltas:
                decoded.extend(delta.tokens)
    except RequestRefusedError:
        return False
    return _MATCH.fullmatch(tokenizer.decode(decoded)) is not None


async def gives_scores(tokenizer: Tokenizer, decode: Decode) -> bool:
    """Whether a server returns the log probability of a named token; see `find_notations`."""
    prompt = _prompt(QUESTION, tokenizer)
    try:
        async with aclosing(decode(_request(prompt, score=prompt.tokens[:1]))) as deltas:
            return any([delta.scores async for delta in deltas])
    except (RequestRefusedError, NoScoresError):
        return False


async def separates_tenants(tokenizer: Tokenizer, decode: Decode) -> bool:
    """Whether nothing that one tenant has sent is cached for another; see `find_notations`.

    A server that does not say what it had cached is believed.
    """
    cached = 0
    try:
        for _ in range(2):
            prompt = _prompt(QUESTION * _REPEATED, tokenizer, tenant=uuid.uuid4().hex)
            async with aclosing(decode(_request(prompt))) as deltas:
                async for delta in deltas:
                    cached = max(cached, delta.cached_tokens)
    except RequestRefusedError:
        return False
    return cached == 0


def _prompt(text: str, tokenizer: Tokenizer, tenant: str = "") -> Prompt:
    tokens = tuple(tokenizer.encode(text, add_special_tokens=False).ids)
    return Prompt((Segment(tokens, role="user"),), tenant)


def _request(prompt: Prompt, max_tokens: int = 1, **fields: Any) -> GenerateRequest:
    return GenerateRequest("probe", 0, prompt, max_tokens, **fields)

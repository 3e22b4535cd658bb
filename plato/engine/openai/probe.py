"""Which notations of grammars a server reads, found out by asking for a few tokens."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from tokenizers import Tokenizer

from plato.engine.errors import EngineError, RequestRefusedError
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
_QUESTION = "Is the sky blue?"
_MAX_TOKENS = 48


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
    asked = tuple(tokenizer.encode(_QUESTION, add_special_tokens=False).ids)
    request = GenerateRequest(
        run_id="probe",
        node=0,
        prompt=Prompt((Segment(asked, role="user"),)),
        max_tokens=_MAX_TOKENS,
        grammar=Grammar(**{"lark": "", notation: getattr(PROBE, notation)}),
    )
    decoded: list[int] = []
    try:
        async with aclosing(decode(request)) as deltas:
            async for delta in deltas:
                decoded.extend(delta.tokens)
    except RequestRefusedError:
        return False
    return _MATCH.fullmatch(tokenizer.decode(decoded)) is not None

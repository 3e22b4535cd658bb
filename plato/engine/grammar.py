"""Grammars for `GenerateRequest.grammar` that callers of the API ask for, and their bounds.

llguidance is imported on first use.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import cache
from typing import Any

from plato.engine.closed_schema import closed, objects_in
from plato.engine.errors import RequestRefusedError
from plato.engine.protocol import Grammar

MAX_SCHEMA_CHARS = 32 << 10
"""Of a JSON schema; within `parser_limits` it is compiled in 50 ms."""
MAX_MULTIPLES = 10_000
"""Of `multipleOf` in a schema: their least common multiple, times their number.

A lexer has a state for every remainder, which `parser_limits` do not bound: compiling takes the
engine 40 ms for one of 9,973, and 7 s for one of 999,983.
"""


@cache
def parser_limits() -> Any:
    """The bounds of every grammar, in time to compile and in memory (`LLParserLimits`).

    With llguidance's defaults a lexer may take 500 MB, and messages repeat the grammar.
    """
    from llguidance import LLParserLimits

    return LLParserLimits(
        initial_lexer_fuel=1_000_000,
        max_grammar_size=100_000,
        max_lexer_states=20_000,
        verbose_errors=False,
    )


def answer_grammar(text: str) -> Grammar:
    """What `json_grammar` has written, in all notations."""
    schema = json.loads(text)["grammars"][0]["json_schema"]
    plain = {key: value for key, value in schema.items() if key != "x-guidance"}
    return Grammar(lark=text, json_schema=json.dumps(plain))


def json_grammar(schema: Mapping[str, Any]) -> str:
    """The grammar of the JSON texts that `schema` (JSON Schema) allows, without white space.

    Objects are `closed`, and `oneOf` is treated as `anyOf`. Raises `RequestRefusedError` if the
    schema is not valid, too large, or has keywords that llguidance cannot enforce.
    """
    from llguidance import LLMatcher

    size = len(json.dumps(schema))
    if size > MAX_SCHEMA_CHARS:
        raise RequestRefusedError(
            f"the schema has {size} characters; send at most {MAX_SCHEMA_CHARS}"
        )
    multiples = list(_multiples(schema))
    if len(multiples) * math.lcm(*multiples) > MAX_MULTIPLES:
        raise RequestRefusedError(
            "the schema has a 'multipleOf' that is too large, or too many different ones; leave "
            f"them out, or send one of at most {MAX_MULTIPLES}"
        )
    try:
        grammar: str = LLMatcher.grammar_from_json_schema(
            json.dumps(closed(schema)),
            overrides={"whitespace_flexible": False, "coerce_one_of": True},
        )
    except ValueError as error:
        raise RequestRefusedError(f"the schema is not valid: {error}") from error
    refused, messages = LLMatcher.validate_grammar_with_warnings(grammar, limits=parser_limits())
    if refused:
        raise RequestRefusedError(f"the schema cannot be enforced: {'; '.join(messages)}")
    return grammar


def _multiples(schema: Mapping[str, Any]) -> Iterator[int]:
    """The values of `multipleOf` in a schema, each in units of its last decimal."""
    for each in objects_in(schema):
        value = each.get("multipleOf")
        # Anything else is no valid schema.
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and value and math.isfinite(value):
            _, digits, exponent = Decimal(str(value)).as_tuple()
            yield int("".join(map(str, digits))) * 10 ** max(0, int(exponent))

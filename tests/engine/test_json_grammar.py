"""Grammars of JSON schemas: what can be enforced is, and the rest is refused in words."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import pytest

from plato.engine import RequestRefusedError
from plato.engine.grammar import MAX_SCHEMA_CHARS, json_grammar


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {
            "type": "object",
            "properties": {"ok": {"type": "boolean"}},
            "required": ["ok"],
            "additionalProperties": False,
        },
        {"$ref": "#/$defs/item", "$defs": {"item": {"type": "integer", "minimum": 1}}},
        {"oneOf": [{"type": "string"}, {"type": "null"}]},
        {"type": "array", "items": {"$ref": "#"}},
    ],
)
def test_a_schema_becomes_a_grammar(schema: dict[str, Any]) -> None:
    assert json_grammar(schema)


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "shape"}, "Invalid type: shape"),
        ({"$ref": "#/$defs/none"}, "does not exist"),
        ({"$ref": "https://example.org/schema"}, "not present in a registry"),
        ({"type": "string", "pattern": "(a"}, "regex parse error"),
        ({"not": {"type": "string"}}, 'Unimplemented keys: ["not"]'),
    ],
)
def test_a_schema_that_cannot_be_enforced_is_refused_with_the_reason(
    schema: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RequestRefusedError) as caught:
        json_grammar(schema)
    assert reason in str(caught.value)


@pytest.mark.hostile
def test_a_schema_has_a_bounded_size() -> None:
    with pytest.raises(RequestRefusedError, match=f"send at most {MAX_SCHEMA_CHARS}"):
        json_grammar({"enum": ["x" * MAX_SCHEMA_CHARS]})


@pytest.mark.parametrize("multiples", [[0.01] * 12, [5, 10, 100, 1000], [9973], [2.5, 0.25]])
def test_multiples_that_people_use_can_be_enforced(multiples: list[float]) -> None:
    properties = {f"p{i}": {"type": "number", "multipleOf": m} for i, m in enumerate(multiples)}
    assert json_grammar({"type": "object", "properties": properties})


@pytest.mark.parametrize("multiple", [0, True, "7", None, float("inf"), float("nan")])
def test_what_is_no_multiple_is_refused_in_words(multiple: object) -> None:
    with pytest.raises(RequestRefusedError):
        json_grammar({"type": "integer", "multipleOf": multiple})


@pytest.mark.hostile
@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "multipleOf": 999_983},
        {"type": "integer", "multipleOf": -999_983},
        {"type": "number", "multipleOf": 1e300},
        {"type": "number", "multipleOf": 99.9983},
        {"allOf": [{"type": "integer", "multipleOf": 997}, {"multipleOf": 991}]},
        {"type": "object", "properties": {f"p{i}": {"multipleOf": 9000 + i} for i in range(50)}},
    ],
)
def test_multiples_for_which_a_lexer_takes_seconds_are_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(RequestRefusedError, match="'multipleOf' that is too large"):
        json_grammar(schema)


@pytest.mark.hostile
@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [{"anyOf": [{"required": [f"{i}{j}"]} for j in range(4)]} for i in range(12)]},
        {"type": "string", "pattern": "^(((a{1,100}){1,100}){1,100})$"},
        {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(1000)}},
        {"anyOf": [{"properties": {f"k{i}": {"type": "string"}}} for i in range(700)]},
    ],
    ids=["products", "repetitions", "properties", "choices"],
)
def test_no_schema_takes_long(schema: dict[str, Any]) -> None:
    started = time.process_time()
    with suppress(RequestRefusedError):
        json_grammar(schema)
    assert time.process_time() - started < 1.0

"""Objects have the properties that their schema names, unless it says otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from plato.engine.closed_schema import closed

NAMED: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "string"}}}
CLOSED = {**NAMED, "additionalProperties": False}


@pytest.mark.parametrize(
    "inside",
    [
        lambda schema: schema,
        lambda schema: {"properties": {"x": schema}, "additionalProperties": True},
        lambda schema: {"type": "array", "items": schema},
        lambda schema: {"prefixItems": [schema, True]},
        lambda schema: {"anyOf": [schema, {"type": "null"}]},
        lambda schema: {"$ref": "#/$defs/x", "$defs": {"x": schema}},
        lambda schema: {"type": "object", "additionalProperties": schema},
    ],
)
def test_an_object_is_closed_wherever_it_is(inside: Any) -> None:
    assert closed(inside(NAMED)) == inside(CLOSED)


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        CLOSED,
        {**NAMED, "additionalProperties": {"type": "integer"}},
        {**NAMED, "patternProperties": {"^x": {"type": "integer"}}},
        {"enum": [NAMED]},
        {**NAMED, "required": ["b"]},
        {**NAMED, "required": 5},
        {**NAMED, "required": [["a"]]},
        {"properties": 5},
    ],
)
def test_what_a_schema_says_is_kept(schema: dict[str, Any]) -> None:
    assert closed(schema) == schema


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [NAMED, {"properties": {"b": {"type": "integer"}}}]},
        {**NAMED, "anyOf": [{"properties": {"b": {}}}, {"properties": {"c": {}}}]},
        {**NAMED, "$ref": "#/$defs/x", "$defs": {"x": NAMED}},
        {"properties": {"x": {"not": NAMED}}},
    ],
)
def test_schemas_that_are_combined_are_left_alone(schema: dict[str, Any]) -> None:
    assert closed(schema) is schema

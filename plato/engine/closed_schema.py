"""JSON schemas whose objects have the properties that they name, and no others.

Clients leave `additionalProperties` out, because large models add none. Small models do not stop
adding. xgrammar, and so vLLM, closes objects too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_SCHEMA = frozenset({"items", "additionalProperties"})
_SCHEMAS = frozenset({"anyOf", "oneOf", "prefixItems"})
_NAMED_SCHEMAS = frozenset({"properties", "patternProperties", "$defs", "definitions"})
"""Keywords that hold a schema, a list of them, or an object of them."""
_BESIDE = frozenset({"allOf", "dependentSchemas", "if", "not"})
"""Keywords whose schemas describe the same object as the schema that they are in."""
_INSTEAD = frozenset({"$ref", "anyOf", "oneOf"})
"""Those that do so if it names properties too."""


def closed(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema with `additionalProperties: false` wherever it leaves that open.

    Itself, if it combines schemas: each of them would then forbid what the others name.
    """
    return schema if any(map(_combines, objects_in(schema))) else _closed(schema)


def _combines(schema: Mapping[str, Any]) -> bool:
    names = schema.keys()
    return bool(names & _BESIDE or ("properties" in names and names & _INSTEAD))


def objects_in(value: Any) -> Iterator[Mapping[str, Any]]:
    """All objects in a JSON value."""
    if isinstance(value, Mapping):
        yield value
    if isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from objects_in(inner)


def _closed(schema: Any) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    result = dict(schema)
    for name, value in schema.items():
        if name in _SCHEMA:
            result[name] = _closed(value)
        elif name in _SCHEMAS and isinstance(value, list):
            result[name] = [_closed(inner) for inner in value]
        elif name in _NAMED_SCHEMAS and isinstance(value, Mapping):
            result[name] = {key: _closed(inner) for key, inner in value.items()}
    if _names_all(schema):
        result.setdefault("additionalProperties", False)
    return result


def _names_all(schema: Mapping[str, Any]) -> bool:
    """Whether it names properties, and nothing hints at others."""
    named, required = schema.get("properties"), schema.get("required", [])
    if not isinstance(named, Mapping) or "patternProperties" in schema:
        return False
    return isinstance(required, list) and set(map(str, required)) <= named.keys()

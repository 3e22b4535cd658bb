"""The HTTP API, of the OpenAPI document that a server serves (`plato/api/openapi.py`)."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any

from sphinx.pycode import ModuleAnalyzer

from plato.api.app import new_app
from plato.api.openapi import openapi_document
from plato.api.runs.events import DESCRIBED_TYPES
from plato.engine import SamplingParams
from plato.errors import PlatoError
from plato.settings import Settings
from plato_docs.markdown import code, sections, table

Json = dict[str, Any]
_DOCSTRINGS = {
    key: " ".join(lines)
    for module in ("plato.runs.events", "plato.runs.graph", "plato.runs.report")
    for key, lines in ModuleAnalyzer.for_module(module).find_attr_docs().items()
}
"""Of the fields of dataclasses, which the document lacks, by class and field."""
EVENTS = [kind.__name__ for kind in DESCRIBED_TYPES]
"""Schemas that have a page of their own."""


@cache
def document() -> Json:
    """The document of a server with the default settings."""
    # What the routes are made with; nothing is asked of it.
    service: Any = SimpleNamespace(context_length=0, sampling=SamplingParams(), thinks=False)
    settings = Settings.model_construct()
    return openapi_document(new_app(service, settings).routes, settings)


def operations() -> str:
    """What each path takes and answers."""
    return sections(
        *(
            text
            for path, methods in document()["paths"].items()
            for method, operation in methods.items()
            for text in _operation(f"{method.upper()} {path}", operation)
        )
    )


def schemas() -> str:
    """The types of bodies and answers."""
    found = document()["components"]["schemas"]
    return sections(
        *(
            text
            for name, schema in sorted(found.items())
            if name not in EVENTS
            for text in _schema(name, schema)
        )
    )


def errors() -> str:
    """The errors that clients receive."""
    found = {kind.code: kind for kind in reversed([*_kinds(PlatoError)])}
    named = {
        text.partition("`")[2].partition("`")[0]
        for methods in document()["paths"].values()
        for operation in methods.values()
        for response in operation["responses"].values()
        for text in response["description"].splitlines()
    }
    return table(
        ["code", "status", "meaning"],
        (
            [code(name), str(kind.status), inspect.getdoc(kind) or ""]
            for name, kind in sorted(found.items(), key=lambda item: item[1].status)
            if name in named
        ),
    )


def _kinds(kind: type[PlatoError]) -> Iterator[type[PlatoError]]:
    """A kind of error and all below it."""
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)


def events() -> str:
    """The events of a run."""
    found = document()["components"]["schemas"]
    return sections(*(text for name in EVENTS for text in _event(found[name])))


def _operation(title: str, operation: Json) -> Iterator[str]:
    yield f"### {title}"
    yield operation["summary"]
    if operation["parameters"]:
        yield table(
            ["parameter", "in", "type", "meaning"],
            (
                [code(one["name"]), one["in"], _type(one["schema"]), one.get("description", "")]
                for one in operation["parameters"]
            ),
        )
    if "requestBody" in operation:
        (content,) = operation["requestBody"]["content"].values()
        yield f"Body: {_type(content['schema'])}"
    responses = operation["responses"]
    yield table(
        ["status", "body"],
        (
            [status, _content(response.get("content", {})) or "none"]
            for status, response in responses.items()
            if status < "400"
        ),
    )
    codes = [
        code
        for status, response in responses.items()
        if status >= "400"
        for code in re.findall(r"^`\w+`", response["description"], re.MULTILINE)
    ]
    yield f"[Errors](#errors): {', '.join(codes)}"


def _content(content: Json) -> str:
    """The bodies of a response."""
    bodies = []
    for kind, body in content.items():
        if "itemSchema" in body:
            first = body["itemSchema"]["properties"]["data"]["anyOf"][0]
            bodies.append(f"{code(kind)}, each event {_type(first['contentSchema'])}")
        else:
            bodies.append(_type(body["schema"]))
    return " or ".join(bodies)


def _schema(name: str, schema: Json) -> Iterator[str]:
    yield f"### {name}"
    yield schema.get("description", "")
    if "properties" in schema:
        yield _fields(schema, schema["properties"])
    else:
        yield _type(schema)


def _event(schema: Json) -> Iterator[str]:
    fields = dict(schema["properties"])
    yield f"## {fields.pop('type')['const']}"
    yield schema.get("description", "")
    common = {"run", "id", "at_s", "text", "text_offset"}
    own = {name: field for name, field in fields.items() if name not in common}
    yield _fields(schema, own)


def _fields(schema: Json, fields: Json) -> str:
    required = schema.get("required", ())
    return table(
        ["field", "type", "meaning"],
        (
            [
                code(name) if name in required else f"{code(name)}, optional",
                _type(field),
                field.get("description") or _DOCSTRINGS.get((schema.get("title", ""), name), ""),
            ]
            for name, field in fields.items()
        ),
    )


def _type(schema: Json) -> str:
    """A type in words, with links to those that have a name."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name in EVENTS:
            return f"[{name}](events.md)"
        return f"[{name}](http.md#{name.lower()})"
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(map(_type, schema[several])))
    if "const" in schema:
        return code(schema["const"])
    if "enum" in schema:
        return ", ".join(map(code, schema["enum"]))
    kind = schema.get("type", "any value")
    if kind == "array" and "items" in schema:
        return f"list of {_type(schema['items'])}"
    bounds = [
        f"{words} {schema[name]}"
        for name, words in (
            ("minimum", "at least"),
            ("exclusiveMinimum", "more than"),
            ("maximum", "at most"),
            ("exclusiveMaximum", "less than"),
        )
        if name in schema
    ]
    return ", ".join([kind, " and ".join(bounds)] if bounds else [kind])

"""Answers that are JSON, or JSON under a schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from plato.api.wire import LenientModel, Name
from plato.engine import RequestRefusedError
from plato.engine.grammar import json_grammar
from plato.errors import InvalidRequestError

MAX_REASON_CHARS = 300
ANY_OBJECT = {"type": "object"}


class NamedSchema(LenientModel):
    """A JSON schema; its name and description have no effect, and it is always strict."""

    name: Name | None = None
    description: str | None = None
    strict: bool | None = None
    definition: dict[str, Any] = Field(default=ANY_OBJECT, alias="schema")


class ResponseFormat(LenientModel):
    """The form of an answer. JSON is decoded sequentially, under a grammar."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None
    definition: dict[str, Any] | None = Field(
        default=None, alias="schema", description="Of a `json_object`, as for llama.cpp."
    )

    @property
    def schema_definition(self) -> dict[str, Any] | None:
        """The JSON schema of the answer; None if it is text."""
        if self.type == "text":
            return None
        if self.type == "json_schema" and self.json_schema is not None:
            return self.json_schema.definition
        return self.definition or ANY_OBJECT


def grammar_of(answer: ResponseFormat | None) -> str | None:
    """The grammar of an answer; None if it is text. Raises the errors of `grammar_under`."""
    schema = answer.schema_definition if answer is not None else None
    return grammar_under(schema, "response_format") if schema is not None else None


def grammar_under(schema: Mapping[str, Any], param: str) -> str:
    """The grammar of JSON under `schema`, which the request has in `param`.

    Raises `InvalidRequestError` if it cannot be enforced.
    """
    try:
        return json_grammar(schema)
    except RequestRefusedError as error:
        # It can repeat what the client has sent.
        raise InvalidRequestError(
            f"'{param}' is not supported: {str(error)[:MAX_REASON_CHARS]}", param=param
        ) from error

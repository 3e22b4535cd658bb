"""What the schemas share: the strictness of requests and how refusals are worded; responses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
)
from pydantic_core import PydanticCustomError, core_schema
from starlette.responses import Response

MAX_SHOWN_CHARS = 50
MAX_NAME_CHARS = 512
"""Of names that are only compared or ignored, such as `user`."""
MAX_METADATA = 16
"""Pairs of `metadata`, as at OpenAI."""
TOKEN_COUNT = 2**31
"""Bound of every number of tokens: above all contexts, and within what is stored."""

Name = Annotated[str, Field(max_length=MAX_NAME_CHARS)]


OMITTED: Any = Field(default=None, exclude_if=lambda value: value is None)
"""A field of a response that is left out where it has no value."""


class AnswerModel(BaseModel):
    """Base of what responses consist of; the docstrings of its fields describe them in OpenAPI."""

    model_config = ConfigDict(use_attribute_docstrings=True, from_attributes=True)

    def as_response(self, status: int = 200, headers: dict[str, str] | None = None) -> Response:
        """The response with this body."""
        return Response(self.model_dump_json(), status, headers, "application/json")


class WireModel(BaseModel):
    """Rejects other types and unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class LenientModel(WireModel):
    """Rejects other types, and takes unknown fields for hints, which have no effect."""

    model_config = ConfigDict(extra="allow")

    @property
    def hints(self) -> Iterator[str]:
        """Names of the unknown fields that have a value other than an empty one."""
        for name, value in (self.model_extra or {}).items():
            if value not in (None, False, [], {}):
                yield name


class _FailFast(FailFast):
    """Tells only the first wrong item of a list, of which there can be many; hashable."""

    def __hash__(self) -> int:
        return hash(type(self))


FAIL_FAST = _FailFast()


class _Neutral:
    """Accepts null and some values; rejects everything else with a hint."""

    def __init__(self, values: tuple[object, ...], hint: str) -> None:
        self._values = values
        self._hint = hint

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {
            "enum": [None, *self._values],
            "description": f"Anything else is refused: {self._hint}.",
        }

    def _check(self, value: Any) -> Any:
        if value is None or value in self._values:
            return value
        raise PydanticCustomError(
            "unsupported_value", "is not supported; {hint}", {"hint": self._hint}
        )


def neutral(*values: object, hint: str) -> _Neutral:
    """Accept null and the neutral `values`; reject everything else with `hint`."""
    return _Neutral(values, hint)


def shown(value: object) -> str:
    """A value of the client in a message: not all of it, which can be megabytes."""
    return repr(value)[:MAX_SHOWN_CHARS]


def error_at(param: str, message: str) -> PydanticCustomError:
    """A request-level error about `param`."""
    return PydanticCustomError("invalid_value", "{message}", {"param": param, "message": message})

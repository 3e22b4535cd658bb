"""What all request schemas share: strictness, and how refusals are worded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field
from pydantic_core import PydanticCustomError

MAX_SHOWN_CHARS = 50
MAX_NAME_CHARS = 512
"""Of names that are only compared or ignored, such as `user`."""
MAX_METADATA = 16
"""Pairs of `metadata`, as at OpenAI."""
TOKEN_COUNT = 2**31
"""Bound of every number of tokens: above all contexts, and within what is stored."""

Name = Annotated[str, Field(max_length=MAX_NAME_CHARS)]


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


def neutral(*values: object, hint: str) -> BeforeValidator:
    """Accept null and the neutral `values`; reject everything else with `hint`."""

    def check(value: Any) -> Any:
        if value is None or value in values:
            return value
        raise PydanticCustomError("unsupported_value", "is not supported; {hint}", {"hint": hint})

    return BeforeValidator(check)


def shown(value: object) -> str:
    """A value of the client in a message: not all of it, which can be megabytes."""
    return repr(value)[:MAX_SHOWN_CHARS]


def error_at(param: str, message: str) -> PydanticCustomError:
    """A request-level error about `param`."""
    return PydanticCustomError("invalid_value", "{message}", {"param": param, "message": message})

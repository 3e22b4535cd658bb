"""What pydantic wants and finds, in a few words."""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo

_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    SecretStr: "text",
    tuple: "values separated by commas",
    dict: "a JSON object",
}
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def first_problem(error: ValidationError) -> str:
    """The first problem, as `place: reason`, or the reason alone if it is about the whole."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    reason = first["msg"].removeprefix("Value error, ")
    return f"{place}: {reason}" if place else reason


def kind_of(field: FieldInfo) -> Any:
    """The type of a field's values other than `None`: a class, or a `Literal`."""
    kind: Any = field.annotation
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (each for each in get_args(kind) if each is not type(None))
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    origin = get_origin(kind)
    return kind if origin in (None, Literal) else origin


def is_optional(field: FieldInfo) -> bool:
    """Whether a field can be `None`."""
    return type(None) in get_args(field.annotation)


def is_mapping(field: FieldInfo) -> bool:
    """Whether a field's value is a JSON object."""
    return kind_of(field) is dict


def is_secret(field: FieldInfo) -> bool:
    """Whether a field's value must not be shown."""
    return kind_of(field) is SecretStr


def what_it_takes(field: FieldInfo) -> str:
    """The values that a field takes, in words: `a whole number, at least 2, at most 32`."""
    kind = kind_of(field)
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    bounds = [
        f"{words} {getattr(each, bound):g}"
        for each in field.metadata
        for bound, words in _BOUNDS.items()
        if hasattr(each, bound)
    ]
    return ", ".join([_KINDS[kind], *bounds])

"""Settings from what people have written, and what is wrong with it in words."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from difflib import get_close_matches

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from plato.errors import SettingsError
from plato.settings.settings import Settings, variable_of
from plato.settings.values import NULL
from plato.validation import is_mapping, is_optional, is_secret, what_it_takes

_UNPARSED = re.compile(r'error parsing value for field "(\w+)"')
"""Said by pydantic-settings of a variable that is not JSON where JSON is wanted."""


def read_settings(
    values: Mapping[str, object] | None = None, written: Mapping[str, str] | None = None
) -> Settings:
    """Settings from `values` and the environment.

    A value can be the text that a person has written, as in the environment. `written` says by
    setting how: as a flag, for example. Raises `SettingsError` that names it so.
    """
    given = {name: _typed(name, value) for name, value in (values or {}).items()}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        raise SettingsError(_problem(error.errors()[0], given, written or {})) from error


def _typed(name: str, value: object) -> object:
    """A value as pydantic takes it, from text as in the environment."""
    field = Settings.model_fields.get(name)
    if field is None or not isinstance(value, str):
        return value
    if value == NULL and is_optional(field):
        return None
    if is_mapping(field):
        with suppress(ValueError):
            return json.loads(value)
    return value


def _problem(problem: ErrorDetails, given: Mapping[str, object], written: Mapping[str, str]) -> str:
    """What is wrong, by the name that the person knows it by, and what would be right."""
    name = str(problem["loc"][0]) if problem["loc"] else ""
    told = written.get(name, name if name in given else variable_of(name))
    if problem["type"] == "extra_forbidden":
        near = get_close_matches(name, Settings.model_fields, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"there is no setting {written.get(name, name)}{hint}"
    if problem["type"] == "value_error":
        reason = problem["msg"].removeprefix("Value error, ")
        if (unparsed := _UNPARSED.match(reason)) is not None:
            name = unparsed[1]
            return f"{variable_of(name)} takes {what_it_takes(Settings.model_fields[name])}"
        return f"{told} is invalid: {reason}" if name else reason
    field = Settings.model_fields[name]
    if problem["type"] == "string_pattern_mismatch":
        return f"{told} has {problem['input']!r}, which it cannot take. {field.description}"
    value = "" if is_secret(field) else f" is {problem['input']!r}; it"
    return f"{told}{value} takes {what_it_takes(field)}"

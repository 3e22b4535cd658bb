"""A flag for each setting, made from its field: type, help, and section."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar, get_origin

import typer
from pydantic.fields import FieldInfo

from plato.settings import Settings, section_of
from plato.validation import is_secret, kind_of, what_it_takes

F = TypeVar("F", bound=Callable[..., Any])

ALIASES = {"upstreams": "--upstream"}
"""Second flags, for those who repeat one."""
_METAVARS = {int: "INTEGER", float: "NUMBER", dict: "JSON"}


def flag_of(name: str) -> str:
    """The flag of a setting."""
    return f"--{name.replace('_', '-')}"


def with_settings(command: F) -> F:
    """Give a command that ends in `**settings` a flag for each; those not given are `None`."""
    signature = inspect.signature(command, eval_str=True)
    parameters = [
        each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD
    ]
    parameters += [_parameter(name, field) for name, field in Settings.model_fields.items()]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


def given_flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The settings whose flags were given, as `plato.settings.read_settings` takes them."""
    return {
        name: ",".join(value) if isinstance(value, list) else value
        for name, value in flags.items()
        if value is not None
    }


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    kind = kind_of(field)
    flags = [flag_of(name)]
    if name in ALIASES:
        flags.append(ALIASES[name])
    of_flag: Any = {bool: bool, tuple: list[str]}.get(kind, str)
    option = typer.Option(
        *flags,
        help=_help(field),
        metavar=None if kind is bool else _METAVARS.get(kind, "TEXT"),
        rich_help_panel=f"Settings: {section_of(name)}",
        show_default=False,
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[of_flag | None, option],
    )


def _help(field: FieldInfo) -> str:
    sentences = [field.description or ""]
    if get_origin(kind_of(field)) is Literal:
        sentences.append(f"Takes {what_it_takes(field)}.")
    default = field.default
    if default is not None and default not in ((), {}, False) and not is_secret(field):
        shown = default if isinstance(default, str) else json.dumps(default)
        sentences.append(f"Default: {shown}.")
    return " ".join(sentences)

"""The settings, of `plato/settings.py`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from plato.settings import SamplingFields, Settings
from plato_docs.markdown import code, sections, table

_HEADING = re.compile(r"    # (?P<title>[A-Z].*)")
_FIELD = re.compile(r"    (?P<name>[a-z]\w*): ")
_BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
    "pattern": "matches `{}`",
}


def settings() -> str:
    """A table for each group of settings."""
    groups = {"Sampling": list(SamplingFields.model_fields), **dict(_groups())}
    missing = Settings.model_fields.keys() - {name for names in groups.values() for name in names}
    if missing:
        raise ValueError(f"no group of settings has {missing}")
    return sections(
        *(
            f"## {title}\n\n"
            + table(
                ["setting", "values", "default", "meaning"],
                (_row(name, Settings.model_fields[name]) for name in names),
            )
            for title, names in groups.items()
        )
    )


def _groups() -> Iterator[tuple[str, list[str]]]:
    """The fields below each comment that is a heading in the source of `Settings`."""
    names: list[str] = []
    for line in inspect.getsource(Settings).splitlines():
        if heading := _HEADING.fullmatch(line):
            names = []
            yield heading["title"], names
        elif (field := _FIELD.match(line)) and field["name"] in Settings.model_fields:
            names.append(field["name"])


def _row(name: str, field: FieldInfo) -> list[str]:
    default = field.get_default(call_default_factory=True)
    shown = "" if default is None or default in ((), {}) else code(default)
    return [code(name), _values(field), shown, field.description or ""]


def _values(field: FieldInfo) -> str:
    """What a setting takes, in words."""
    kind: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    schema = TypeAdapter(kind).json_schema()
    options = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
    return "; ".join(_words(one) for one in options)


def _words(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(map(code, schema["enum"]))
    if schema["type"] == "array":
        return "list, separated by commas"
    bounds = [
        words.format(schema[name])
        for name, words in _BOUNDS.items()
        if schema.get(name) is not None
    ]
    kind = {"object": "JSON object"}.get(schema["type"], schema["type"])
    return f"{kind}, {' and '.join(bounds)}" if bounds else kind

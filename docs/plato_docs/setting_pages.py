"""The settings, of `plato/settings`."""

from __future__ import annotations

from itertools import groupby

from plato.settings import Settings, section_of
from plato.validation import what_it_takes
from plato_docs.markdown import code, sections, table


def settings() -> str:
    """A table for each section of the settings."""
    return sections(
        *(
            f"## {title}\n\n" + table(["setting", "takes", "default", "meaning"], map(_row, names))
            for title, names in groupby(Settings.model_fields, section_of)
        )
    )


def _row(name: str) -> list[str]:
    field = Settings.model_fields[name]
    default = field.get_default(call_default_factory=True)
    shown = "" if default is None or default in ((), {}) else code(default)
    return [code(name), what_it_takes(field), shown, field.description or ""]

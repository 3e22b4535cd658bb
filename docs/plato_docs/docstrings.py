"""Docstrings are Markdown: in them, an indented block is code."""

from __future__ import annotations

from sphinx.application import Sphinx

INDENT = " " * 4


def mark_code(
    _app: Sphinx, _what: str, _name: str, _of: object, _options: object, lines: list[str]
) -> None:
    """Put what reStructuredText wants in front of code."""
    marked: list[str] = []
    text = ""
    for line in lines:
        begins = line.startswith(INDENT) and (not marked or not marked[-1])
        if begins and text and not text.startswith((" ", ":", "..")):
            marked += ["::", ""]
        if line:
            text = line
        marked.append(line)
    lines[:] = marked


def setup(app: Sphinx) -> dict[str, bool]:
    """Register it behind napoleon, which reads the sections of docstrings."""
    app.connect("autodoc-process-docstring", mark_code, priority=900)
    return {"parallel_read_safe": True}

"""The parts of the reference that are made of the code when the documentation is built.

A page says where, with `<!-- generated: NAME -->`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from plato_docs import command_line_pages, http_pages, metric_pages, setting_pages

GENERATED: dict[str, Callable[[], str]] = {
    "settings": setting_pages.settings,
    "operations": http_pages.operations,
    "errors": http_pages.errors,
    "schemas": http_pages.schemas,
    "events": http_pages.events,
    "commands": command_line_pages.commands,
    "metrics": metric_pages.metrics,
}
PLACE = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)


def fill(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put what is generated into the text of a page."""
    source[0] = PLACE.sub(lambda place: GENERATED[place[1]](), source[0])


def outdated(app: Sphinx, env: BuildEnvironment, *_: object) -> list[str]:
    """Pages with something generated are read at every build, because the code may have changed."""
    return [name for name in env.found_docs if PLACE.search(Path(env.doc2path(name)).read_text())]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register what fills the pages."""
    app.connect("source-read", fill)
    app.connect("env-get-outdated", outdated)
    return {"parallel_read_safe": True}

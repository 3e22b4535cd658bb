"""Links to files of the repository: what a page links to becomes a page, too."""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from docutils import nodes
from pygments.lexers import get_lexer_for_filename
from pygments.util import ClassNotFound
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

PREFIX = "source"
"""First part of the names of these pages."""
MAX_BYTES = 200_000
"""Above that a file stays a download."""


class RepositoryLinks(SphinxTransform):
    """Points links that leave the documentation to the pages of `source_pages`."""

    default_priority = 400

    def apply(self, **_: Any) -> None:
        """Replace the links of one page."""
        found = [
            *self.document.findall(addnodes.pending_xref),
            *self.document.findall(addnodes.download_reference),
        ]
        for node in found:
            path = self._path(node) if node.get("reftype") == "myst" else None
            if path is None:
                continue
            _linked(self.app).add(path)
            uri = self.app.builder.get_relative_uri(self.env.docname, f"{PREFIX}/{path}")
            node.replace_self(nodes.reference("", "", *node.children, refuri=uri, internal=True))

    def _path(self, node: nodes.Element) -> Path | None:
        """What a link leads to, below the root; None for a page or a place in one."""
        root, target = Path(self.env.srcdir), node["reftarget"]
        if node["refdomain"] == "doc":
            if target in self.env.found_docs:
                return None
            path = root / f"{target}.md"
        else:
            path = (root / self.env.docname).parent / unquote(target).partition("#")[0]
        path = path.resolve()
        if not target or target.startswith("#") or not path.is_relative_to(root):
            return None
        return path.relative_to(root) if path.is_dir() or _is_text(path) else None


def _linked(app: Sphinx) -> set[Path]:
    """The paths that pages link to."""
    if not hasattr(app.env, "repository_paths"):
        app.env.repository_paths = set()
    return app.env.repository_paths


def source_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """A page for each linked file and folder, and for the files in such a folder."""
    root = Path(app.srcdir)
    folders = {path: _entries(root / path) for path in _linked(app) if (root / path).is_dir()}
    files = {path for path in _linked(app) if path not in folders}
    files |= {path / name for path, names in folders.items() for name in names}
    for path, names in folders.items():
        items = "".join(
            f'<li><a href="{html.escape(path.name)}/{html.escape(name)}.html">'
            f"{html.escape(name)}</a></li>"
            for name in names
        )
        yield _page(path, f"<ul>{items}</ul>")
    for path in sorted(files):
        text = (root / path).read_text("utf-8")
        try:
            language = get_lexer_for_filename(path.name).aliases[0]
        except ClassNotFound:
            language = "text"
        yield _page(path, app.builder.highlighter.highlight_block(text, language, force=True))


def _entries(folder: Path) -> list[str]:
    """Names of the text files in a folder."""
    return sorted(path.name for path in folder.iterdir() if _is_text(path))


def _is_text(path: Path) -> bool:
    """Whether a path is a file of text that is small enough for a page, and not empty."""
    try:
        small = path.is_file() and path.stat().st_size <= MAX_BYTES
        return small and bool(path.read_text("utf-8"))
    except UnicodeDecodeError:
        return False


def _page(path: Path, body: str) -> tuple[str, dict[str, Any], str]:
    title = html.escape(str(path))
    body = f"<h1>{title}</h1>{body}"
    return f"{PREFIX}/{path}", {"title": title, "body": body}, "page.html"


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the links and their pages."""
    app.add_transform(RepositoryLinks)
    app.connect("html-collect-pages", source_pages)
    return {"parallel_read_safe": False}

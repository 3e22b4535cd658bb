"""Links between pages and to files lead somewhere, on a web host and in what is built."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.docs.pages import ROOT, anchors, links, page_names

DIAGRAMS = ROOT / "docs" / "diagrams"


def leads_somewhere(page: str, link: str) -> bool:
    """Whether a link has its file, and its place in it."""
    path, _, anchor = unquote(link).partition("#")
    target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
    if not anchor:
        return target.exists()
    return target.is_file() and anchor in anchors(str(target.relative_to(ROOT)))


@pytest.mark.parametrize("page", page_names())
def test_links_of_a_page_lead_somewhere(page: str) -> None:
    own = [link for link in links(page) if not re.match(r"[a-z]+:", link)]
    assert [link for link in own if not leads_somewhere(page, link)] == []


@pytest.mark.parametrize("diagram", sorted(DIAGRAMS.glob("*.mmd")), ids=lambda path: path.stem)
def test_the_picture_of_a_diagram_is_of_its_source(diagram: Path) -> None:
    picture = ROOT / "docs" / "images" / f"{diagram.stem}.svg"
    source = hashlib.sha256(diagram.read_bytes()).hexdigest()
    assert source in picture.read_text().splitlines()[0], "run docs/diagrams/render.py"

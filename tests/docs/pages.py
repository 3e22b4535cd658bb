"""The Markdown of the repository, in parts."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
_OF_HTML = re.compile(r'(?:src|href)="([^"]+)"')
_PARSER = MarkdownIt("commonmark").enable("table")


def page_names() -> list[str]:
    """All pages, relative to the root."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return sorted(name for name in listed.stdout.split() if (ROOT / name).is_file())


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of code."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@cache
def _tokens(page: str) -> tuple[Token, ...]:
    return tuple(_PARSER.parse((ROOT / page).read_text("utf-8")))


def _inline(page: str) -> Iterator[Token]:
    for token in _tokens(page):
        yield from token.children or ()


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page."""
    return [
        Block(page, token.map[0] + 1, token.info.strip(), token.content)
        for token in _tokens(page)
        if token.type == "fence" and token.map
    ]


def inline_code(page: str) -> list[str]:
    """What a page has between single backticks, on one line each."""
    return [
        " ".join(token.content.split()) for token in _inline(page) if token.type == "code_inline"
    ]


def links(page: str) -> list[str]:
    """Where the links and pictures of a page lead."""
    found: list[str] = []
    for token in (*_tokens(page), *_inline(page)):
        if token.type == "link_open":
            found.append(str(token.attrGet("href")))
        elif token.type == "image":
            found.append(str(token.attrGet("src")))
        elif token.type in ("html_block", "html_inline"):
            found += _OF_HTML.findall(token.content)
    return found


@cache
def anchors(page: str) -> frozenset[str]:
    """The places of a page that a link can name, as web hosts make them of headings."""
    taken: Counter[str] = Counter()
    found = []
    for token, inside in pairwise(_tokens(page)):
        if token.type != "heading_open":
            continue
        shown = "".join(
            child.content
            for child in inside.children or ()
            if child.type in ("text", "code_inline")
        )
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        found.append(f"{slug}-{taken[slug]}" if taken[slug] else slug)
        taken[slug] += 1
    return frozenset(found)

"""Commands in pages exist: `plato`, `make`, `python -m`, and the paths of tests."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
from typer.main import get_command

from plato.cli import app
from plato.settings import Settings
from tests.docs.pages import ROOT, blocks, inline_code, page_names

PAGES = page_names()
MAKEFILE = (ROOT / "Makefile").read_text()
OWN = ("plato", "benchmarks", "deployments", "tests")
"""Packages whose modules are checked."""


def commands(page: str) -> Iterator[list[str]]:
    """The words of every command in blocks of shell, and between backticks."""
    texts = [block.text.replace("\\\n", " ") for block in blocks(page) if block.language == "bash"]
    lines = [line for text in texts for line in text.splitlines()]
    for line in (*lines, *inline_code(page)):
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            # Half of a quotation that goes on in the next line.
            continue
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            del words[0]
        if words:
            yield [words[0].removeprefix(".venv/bin/"), *words[1:]]


def until_operator(words: list[str]) -> list[str]:
    """The words of the first of several commands in a line."""
    for index, word in enumerate(words):
        if word in ("|", "||", "&&", ">", ";", "&"):
            return words[:index]
    return words


def problems(words: list[str]) -> Iterator[str]:
    """What is wrong with the arguments of `plato`."""
    command: Any = get_command(app)
    words = until_operator(words)
    options: set[str] = set()
    while True:
        options |= {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
        subcommands = getattr(command, "commands", {})
        if not subcommands or not words or words[0].startswith("-"):
            break
        name, *words = words
        if name == "COMMAND":
            return
        if name not in subcommands:
            yield f"there is no command {name}"
            return
        command = subcommands[name]
    options |= {"--help"}
    for word in words:
        name, _, _ = word.partition("=")
        if name.startswith("-") and name != "-" and name not in options:
            yield f"{command.name} has no option {name}"
        is_setting = re.fullmatch(r"[a-z_]+=.*", word) and command.name == "serve"
        if is_setting and name not in (*Settings.model_fields, "key"):
            yield f"there is no setting {name}"


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_plato_exist(page: str) -> None:
    found = [
        f"{' '.join(words)}: {problem}"
        for words in commands(page)
        if words[0] == "plato"
        for problem in problems(words[1:])
    ]
    assert found == []


@pytest.mark.parametrize("page", PAGES)
def test_targets_of_make_exist(page: str) -> None:
    for words in commands(page):
        if words[0] == "make" and len(words) > 1 and "=" not in words[1]:
            assert re.search(rf"^{re.escape(words[1])}:", MAKEFILE, re.MULTILINE), words


@pytest.mark.parametrize("page", PAGES)
def test_modules_exist(page: str) -> None:
    for words in commands(page):
        if words[0].startswith("python") and words[1:2] == ["-m"]:
            module = words[2]
            if module.partition(".")[0] in OWN:
                assert find_spec(module) is not None, module


@pytest.mark.parametrize("page", PAGES)
def test_named_tests_exist(page: str) -> None:
    for code in inline_code(page):
        for path, name in re.findall(r"\b(tests/[\w/]+\.py)(?:::(\w+))?", code):
            assert (ROOT / path).is_file(), path
            assert name in (ROOT / path).read_text(), (path, name)


def test_a_command_that_does_not_exist_is_found() -> None:
    assert list(problems(["ask", "Why?", "--mode", "plato", "&&", "ls", "--all"])) == []
    assert list(problems(["asks", "Why?"])) == ["there is no command asks"]
    assert list(problems(["ask", "Why?", "--moder"])) == ["ask has no option --moder"]

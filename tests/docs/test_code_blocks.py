"""Every block of code says its language, and is valid in it."""

from __future__ import annotations

import json
import subprocess
import tomllib
from collections.abc import Callable

import pytest
import yaml

from tests.docs.pages import Block, blocks, page_names

BLOCKS = [block for page in page_names() for block in blocks(page)]


def read_python(text: str) -> None:
    compile(text, "block", "exec")


def read_shell(text: str) -> None:
    subprocess.run(["bash", "-n"], input=text, text=True, check=True, capture_output=True)


def read_yaml(text: str) -> None:
    list(yaml.safe_load_all(text))


def read_nothing(_: str) -> None:
    """Output, lists, and what is for Sphinx: the build reads it."""


READERS: dict[str, Callable[[str], object]] = {
    "python": read_python,
    "bash": read_shell,
    "json": json.loads,
    "toml": tomllib.loads,
    "yaml": read_yaml,
    "text": read_nothing,
    "{toctree}": read_nothing,
    "{eval-rst}": read_nothing,
}


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_is_valid_in_its_language(block: Block) -> None:
    assert block.language in READERS, "name the language of the block"
    READERS[block.language](block.text)

"""The blocks of the tutorial, and of the library, do what they say, at a real server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Block, blocks
from tests.end_to_end.server import Server

pytestmark = pytest.mark.slow

DEFAULT, OWN = "http://127.0.0.1:8000", "http://127.0.0.1:8001"
"""The servers of the pages: of the default model, and of the reader's own."""
NOT_RUN = ("plato serve", "pip install", "python3 -m venv")
"""Beginnings of blocks: the tests have a server, and what is installed."""
DEADLINE_S = 100


@pytest.fixture(scope="module")
def urls(
    model_folder: str, tiny_model_folder: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """Addresses of the pages, and where their servers are."""
    command = ("plato", "serve", "--embedded")
    first, second = tmp_path_factory.mktemp("default"), tmp_path_factory.mktemp("own")
    name = "HuggingFaceTB/SmolLM2-135M-Instruct"
    with (
        Server(first, command, model=model_folder, served_model_name=name) as default,
        Server(second, command, model=tiny_model_folder, kv_budget_mb=64) as own,
    ):
        yield {DEFAULT: default.url, OWN: own.url}


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `plato` and `python` of this environment."""
    folder = tmp_path_factory.mktemp("bin")
    for name, command in (("plato", "-m plato"), ("python", "")):
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {command} "$@"\n')
        script.chmod(0o755)
    return folder


PAGES = ("tutorial/first-answer", "tutorial/own-plan", "tutorial/own-model", "how-to/library")


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run(
    page: str, urls: dict[str, str], model_folder: str, commands: Path, tmp_path: Path
) -> None:
    for block in blocks(f"docs/{page}.md"):
        if block.language in ("bash", "python") and not block.text.startswith(NOT_RUN):
            run(block, urls, model_folder, commands, tmp_path)


def run(block: Block, urls: dict[str, str], model: str, commands: Path, folder: Path) -> None:
    """Run a block as a reader would, in a folder of the page."""
    text = block.text
    for address, url in urls.items():
        text = text.replace(address, url)
    runner = ("bash", "-euo", "pipefail", "-c") if block.language == "bash" else ("python", "-c")
    done = subprocess.run(
        [*runner, text],
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PLATO_URL": urls[DEFAULT],
            "PLATO_MODEL": model,
        },
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    assert done.stdout.strip() or done.stderr.strip() or ">" in text, f"{block} prints nothing"

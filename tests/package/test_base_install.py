"""What works with the base dependencies alone: a client."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution, files
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from plato.ports import free_port
from tests.client.test_server import WHOLE
from tests.package.wheels import ROOT
from tests.replaying import ReplayServer

ASK = """
from plato import Client
with Client({url!r}) as client:
    print(client.ask("Why?"))
"""
LOAD = """
from plato import Plato, PlatoError
try:
    Plato().ask("Why?")
except PlatoError as error:
    print(error)
"""


def required(requirements: Iterable[Requirement]) -> set[str]:
    """The distributions that come with requirements, all in all."""
    found: set[str] = set()
    waiting = [*requirements]
    while waiting:
        requirement = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            needed = distribution(requirement.name)
        except PackageNotFoundError:
            continue
        if needed.name not in found:
            found.add(needed.name)
            waiting += [Requirement(line) for line in needed.requires or ()]
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with links to the base dependencies, and nothing else."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    folder = tmp_path_factory.mktemp("base")
    for name in required(Requirement(line) for line in project["dependencies"]):
        for file in files(name) or ():
            link = folder / file.parts[0]
            if file.parts[0] not in ("..", "__pycache__") and not link.exists():
                link.symlink_to(Path(str(file.locate())).parents[len(file.parts) - 1] / link.name)
    assert (folder / "httpx").exists()
    assert not (folder / "numpy").exists()
    return folder


def python(base: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code that sees this checkout and the base dependencies."""
    return subprocess.run(
        # Without `site`, nothing else that is installed is seen.
        [sys.executable, "-S", "-c", code, *arguments],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{base}:{ROOT}", "HOME": str(base)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def plato(base: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return python(base, "from plato.__main__ import main; main()", *arguments)


def test_the_library_asks_a_server(base: Path) -> None:
    with ReplayServer(*WHOLE) as server:
        asked = python(base, ASK.format(url=server.url))
    assert asked.stdout == "The Dead Sea.\n", asked.stderr


def test_the_command_asks_a_server(base: Path) -> None:
    with ReplayServer(*WHOLE) as server:
        asked = plato(base, "ask", "Why?", "--url", server.url)
    assert asked.stdout == "The Dead Sea.\n", asked.stderr


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("serve", "--port", str(free_port())), "serve"),
        (("serve", "--embedded", "--port", str(free_port())), "torch"),
        (("ask", "--local", "Why?"), "torch"),
        (("tune", "/nowhere/adapter"), "torch"),
    ],
)
def test_a_command_that_needs_more_says_what_to_install(
    base: Path, arguments: tuple[str, ...], extra: str
) -> None:
    refused = plato(base, *arguments)
    assert refused.returncode in (1, 2)
    (line,) = refused.stderr.splitlines()
    assert f"pip install 'plato-serve[{extra}]'" in line


def test_an_engine_that_needs_more_says_what_to_install(base: Path) -> None:
    refused = python(base, LOAD)
    assert refused.stdout.endswith("pip install 'plato-serve[torch]'\n"), refused.stderr


def test_importing_plato_imports_nothing_else(base: Path) -> None:
    code = "import sys; import plato; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = set(python(base, code).stdout.split())
    assert "plato" in loaded
    assert loaded.isdisjoint({"httpx", "pydantic", "torch", "numpy", "ray", "asyncio"})

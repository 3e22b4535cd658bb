"""What works with the base dependencies alone: a client."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.client.test_server import WHOLE
from tests.package.wheels import ROOT
from tests.replaying import ReplayServer

HIDE = """
import sys

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hide())
"""


def distributions(names: Iterator[Requirement] | list[Requirement]) -> set[str]:
    """Distributions that come with requirements, all in all."""
    found: set[str] = set()
    waiting = [requirement for requirement in names if _applies(requirement)]
    while waiting:
        name = canonicalize_name(waiting.pop().name)
        if name in found:
            continue
        found.add(name)
        try:
            needed = map(Requirement, requires(name) or ())
        except PackageNotFoundError:
            continue
        waiting += [requirement for requirement in needed if _applies(requirement)]
    return found


def _applies(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


@pytest.fixture(scope="module")
def hide() -> str:
    """Code after which everything but the base dependencies seems not to be installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base = distributions([Requirement(line) for line in project["dependencies"]])
    hidden = {
        module
        for module, sources in packages_distributions().items()
        if base.isdisjoint(map(canonicalize_name, sources))
    }
    assert {"torch", "ray", "numpy", "tokenizers"} <= hidden
    return HIDE.format(hidden=hidden - {"plato", "deployments"})


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def plato(hide: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    code = f"{hide}\nsys.argv = ['plato', *{arguments!r}]\nfrom plato.__main__ import main\nmain()"
    return python(code)


def test_the_library_asks_a_server(hide: str) -> None:
    with ReplayServer(*WHOLE) as server:
        code = f"""
        from plato import Client
        with Client({server.url!r}) as client:
            print(client.ask("Why?"))
        """
        asked = python(hide + textwrap.dedent(code))
    assert asked.stdout == "The Dead Sea.\n", asked.stderr


def test_the_command_asks_a_server(hide: str) -> None:
    with ReplayServer(*WHOLE) as server:
        asked = plato(hide, "ask", "Why?", "--url", server.url)
    assert asked.stdout == "The Dead Sea.\n", asked.stderr


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("serve",), "serve"),
        (("serve", "--embedded"), "torch"),
        (("ask", "--local", "Why?"), "torch"),
        (("tune", "/nowhere/adapter"), "torch"),
    ],
)
def test_a_command_that_needs_more_says_what_to_install(
    hide: str, arguments: tuple[str, ...], extra: str
) -> None:
    refused = plato(hide, *arguments)
    assert refused.returncode in (1, 2)
    assert "Traceback" not in refused.stderr
    assert refused.stderr.endswith(f"pip install 'plato-serve[{extra}]'\n")


def test_an_engine_that_needs_more_says_what_to_install(hide: str) -> None:
    code = "from plato import Plato, PlatoError\ntry:\n    Plato().ask('Why?')\n"
    refused = python(f"{hide}\n{code}except PlatoError as error:\n    print(error)")
    assert refused.stdout.endswith("pip install 'plato-serve[torch]'\n"), refused.stderr


def test_importing_plato_imports_nothing_else() -> None:
    code = "import sys; import plato; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = set(python(code).stdout.split())
    assert loaded.isdisjoint({"httpx", "pydantic", "torch", "numpy", "ray", "asyncio"})

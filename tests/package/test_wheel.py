"""The wheel has everything that runs from it, and runs."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.package.wheels import ROOT, Environment, build_wheel

pytestmark = pytest.mark.slow

PLAN = "1 | Salt | -\n2 | Depth | 1\n[END]\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def test_it_has_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    packed = {Path(name) for name in ZipFile(wheel).namelist()}
    expected = {
        path.relative_to(ROOT)
        for package in ("plato", "deployments")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {path for path in packed if not path.parts[0].endswith(".dist-info")} == expected
    # The kernels, the page, the adapter of the default model, the examples for tuning.
    assert {".c", ".h", ".html", ".js", ".css", ".safetensors", ".jsonl"} <= {
        path.suffix for path in packed
    }


@pytest.mark.skipif(not find_spec("check_wheel_contents"), reason="needs check-wheel-contents")
def test_its_contents_are_in_order(wheel: Path) -> None:
    command = [sys.executable, "-m", "check_wheel_contents", "--config", ROOT / "pyproject.toml"]
    checked = subprocess.run([*command, wheel], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_it_serves_and_answers(wheel: Path, tmp_path: Path, tiny_model_folder: str) -> None:
    environment = Environment(tmp_path)
    environment.install("--no-deps", "--no-index", str(wheel))
    environment.share_dependencies()
    with environment.serving(tiny_model_folder) as url:
        _ask(environment, url, tmp_path)
        page = environment.run("python", "-c", _fetch(url))
        assert "<title>" in page.stdout


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_it_installs_into_an_empty_environment(
    wheel: Path, tmp_path: Path, tiny_model_folder: str
) -> None:
    client, server = tmp_path / "client", tmp_path / "server"
    client.mkdir()
    server.mkdir()
    base = Environment(client)
    base.install(str(wheel))
    assert "torch" not in base.run("python", "-c", "import plato, sys; print(*sys.modules)").stdout
    embedded = Environment(server)
    embedded.install(f"{wheel}[torch]")
    with embedded.serving(tiny_model_folder) as url:
        _ask(embedded, url, server)
        _ask(base, url, client)


def _ask(environment: Environment, url: str, folder: Path) -> None:
    """Ask a question with a plan, from the command line."""
    plan = folder / "plan.txt"
    plan.write_text(PLAN)
    asked = environment.run("plato", "ask", "Why?", "--url", url, "--plan", str(plan), "--json")
    assert asked.returncode == 0, asked.stderr
    nodes = json.loads(asked.stdout)["plato"]["graph"]["nodes"]
    assert [(node["title"], node["sees"]) for node in nodes] == [("Salt", []), ("Depth", [1])]


def _fetch(url: str) -> str:
    return f"import httpx; print(httpx.get({url!r}).text)"

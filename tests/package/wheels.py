"""The wheel, and environments in which it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from plato.ports import free_port
from tests.end_to_end.waiting import wait_until

ROOT = Path(__file__).parents[2]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "plato", "deployments")
START_S = 120.0


def build_wheel(folder: Path) -> Path:
    """Build the wheel of this checkout, without its build folder of earlier times."""
    sources = folder / "sources"
    sources.mkdir()
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, sources / name, ignore=ignored)
        else:
            shutil.copy(source, sources)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(sources))
    (wheel,) = folder.glob("*.whl")
    return wheel


def pip(*arguments: str, python: Path | str = sys.executable) -> None:
    """Run pip for an environment."""
    command = [sys.executable, "-m", "pip", "--python", str(python), "--quiet"]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


class Environment:
    """A virtual environment, and commands that see nothing of this checkout."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bin = folder / "environment" / "bin"
        environment = folder / "environment"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
        self._elsewhere = folder / "elsewhere"
        self._elsewhere.mkdir()

    def install(self, *requirements: str) -> None:
        """Install packages with pip."""
        pip("install", *requirements, python=self._bin / "python")

    def share_dependencies(self) -> None:
        """Let it see the packages of the running environment.

        A path in a .pth file does not have the .pth files there read, so an editable installation
        is not seen.
        """
        (purelib,) = self._bin.parent.glob("lib/python*/site-packages")
        (purelib / "shared.pth").write_text(sysconfig.get_paths()["purelib"])

    def run(self, *command: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command of the environment in a folder of its own."""
        return subprocess.run(
            [str(self._bin / command[0]), *command[1:]],
            cwd=self._elsewhere,
            env=self._variables(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    @contextmanager
    def serving(self, model: str) -> Iterator[str]:
        """`plato serve --embedded` with this model; gives its URL."""
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        log = self._folder / "server.log"
        settings = {"PLATO_MODEL": model, "PLATO_KV_BUDGET_MB": "16", "PLATO_NODE_MAX_TOKENS": "6"}
        with log.open("wb") as output:
            server = subprocess.Popen(
                [str(self._bin / "plato"), "serve", "--embedded", "--port", str(port)],
                cwd=self._elsewhere,
                env=self._variables() | settings,
                stdout=output,
                stderr=output,
            )
        try:
            wait_until(lambda: _is_ready(url, server), START_S, "the server is ready", every_s=0.2)
            yield url
        except BaseException:
            print(log.read_text()[-4000:])
            raise
        finally:
            server.terminate()
            server.wait(60)

    @staticmethod
    def _variables() -> dict[str, str]:
        hidden = ("PYTHON", "PLATO_", "VIRTUAL_ENV")
        return {name: value for name, value in os.environ.items() if not name.startswith(hidden)}


def _is_ready(url: str, server: subprocess.Popen[bytes]) -> bool:
    assert server.poll() is None, "the server has ended"
    try:
        return httpx.get(f"{url}/readyz").is_success
    except httpx.HTTPError:
        return False

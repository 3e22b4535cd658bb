"""Virtual environments of engines, with pinned versions.

An engine's packages contradict those of Plato and of other engines. The files in `requirements`
are complete, so that pip resolves nothing but what torch needs.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".engines"
REQUIREMENTS = Path(__file__).parent / "requirements"
INSTALL_DEADLINE_S = 1800.0


def make_environment(name: str, folder: Path = FOLDER) -> Path:
    """The folder of programs of an environment, which is made if it is not as required.

    Raises `RuntimeError` if something cannot be installed.
    """
    required = (REQUIREMENTS / f"{name}.txt").read_text()
    environment = folder / name
    installed = environment / "installed.txt"
    if not installed.exists() or installed.read_text() != required:
        sys.stderr.write(f"installing {name} into {environment}\n")
        shutil.rmtree(environment, ignore_errors=True)
        environment.parent.mkdir(exist_ok=True)
        _run([sys.executable, "-m", "venv", environment])
        file = REQUIREMENTS / f"{name}.txt"
        python = environment / "bin" / "python"
        pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        if "\ntorch==" in required:
            # What it needs depends on its build, which depends on the index.
            _run([*pip, "-c", file, "torch"])
        _run([*pip, "--no-deps", "-r", file])
        installed.write_text(required)
    return environment / "bin"


def versions(name: str, packages: Sequence[str]) -> dict[str, str]:
    """The versions of some packages of an environment."""
    pinned = dict(
        line.split("==")
        for line in (REQUIREMENTS / f"{name}.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    )
    return {package: pinned[package] for package in packages}


def _run(command: Sequence[str | Path]) -> None:
    try:
        subprocess.run(command, check=True, timeout=INSTALL_DEADLINE_S)
    except (subprocess.SubprocessError, OSError) as error:
        raise RuntimeError(f"an environment of an engine cannot be made: {error}") from error

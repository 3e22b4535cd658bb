"""Settings as a RayService takes them: `python -m deployments.serve_config FOLDER...`.

Reads FOLDER/settings.yaml, and writes FOLDER/serve.yaml: a patch whose `serveConfigV2` is what
`serve build` gives for these settings. Only the builder takes arguments, and `serve build` only
applications without them, so it is given the settings as environment variables, and what it says
is then deployed with the same settings as arguments. What belongs to the place and not to the
service (the model and its cache, the context store with its password) stays out of it: the
environment of the pods sets that.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from deployments.local import APP_NAME
from plato.settings import Settings

SETTINGS = "settings.yaml"
PATCH = "serve.yaml"
POD_SETTINGS = {"model", "cache_dir", "redis_url"}
PREFIX = "PLATO_"

NOTE = f"""\
# Generated from {SETTINGS} by `python -m deployments.serve_config`; do not edit.
"""


class _Block(str):
    """A text that is written as a YAML block, as it stands."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(
    _Block, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|")
)


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings that a folder's services have. Raises `ValueError` if they are none."""
    given: dict[str, Any] = yaml.safe_load((folder / SETTINGS).read_text()) or {}
    if elsewhere := POD_SETTINGS & given.keys():
        raise ValueError(
            f"{sorted(elsewhere)} must be set in the environment of the pods, not here"
        )
    Settings(**given)
    return given


def serve_config(given: dict[str, Any]) -> str:
    """What `serve build` says for these settings, with them as the builder's arguments."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
    # Whichever store it is: the application is the one that has none of its own.
    environment[f"{PREFIX}REDIS_URL"] = "redis://context-store:6379/0"
    for name, value in given.items():
        text = value if isinstance(value, str) else json.dumps(value)
        environment[f"{PREFIX}{name.upper()}"] = text
    with tempfile.TemporaryDirectory() as folder:
        # A file, because what `serve build` logs goes to standard output, too.
        built = Path(folder) / "serve.yaml"
        command = ["-m", "ray.serve.scripts", "build", "deployments.app:app", "-o", str(built)]
        subprocess.run(
            [sys.executable, *command], env=environment, check=True, stdout=subprocess.DEVNULL
        )
        config: dict[str, Any] = yaml.safe_load(built.read_text())
    (application,) = config["applications"]
    application["name"] = APP_NAME
    application["import_path"] = "deployments.app:build"
    application["args"] = given
    return yaml.safe_dump(config, sort_keys=False)


def patch(given: dict[str, Any]) -> str:
    """The patch of a RayService that sets its `serveConfigV2`."""
    service = {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": "plato"},
        "spec": {"serveConfigV2": _Block(serve_config(given))},
    }
    return NOTE + yaml.dump(service, Dumper=_Dumper, sort_keys=False)


def main() -> int:
    """Write the patches of the folders that are named."""
    for name in sys.argv[1:]:
        folder = Path(name)
        (folder / PATCH).write_text(patch(read_settings(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

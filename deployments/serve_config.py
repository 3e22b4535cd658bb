"""Generates Serve configurations of RayServices: `python -m deployments.serve_config FOLDER...`.

Reads FOLDER/settings.yaml and writes FOLDER/serve.yaml, a patch whose `serveConfigV2` is the output
of `serve build` for these settings. `serve build` accepts only applications without arguments, so
it gets the settings as environment variables; the generated configuration passes them to the
builder as arguments. The model, its cache, the URL of the context store with its password and all
keys are excluded: they are set in the environment of the pods.
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
POD_SETTINGS = {
    "model",
    "model_revision",
    "cache_dir",
    "redis_url",
    "upstream_api_key",
    "api_keys",
    "api_keys_file",
}
PREFIX = "PLATO_"

NOTE = f"""\
# Generated from {SETTINGS} by `python -m deployments.serve_config`; do not edit.
"""


class _Block(str):
    """A string that is written as a YAML block."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(
    _Block, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|")
)


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings in a folder. Raises `ValueError` if they are invalid."""
    given: dict[str, Any] = yaml.safe_load((folder / SETTINGS).read_text()) or {}
    if elsewhere := POD_SETTINGS & given.keys():
        raise ValueError(
            f"{sorted(elsewhere)} must be set in the environment of the pods, not here"
        )
    Settings(**given)
    return given


def serve_config(given: dict[str, Any]) -> str:
    """The output of `serve build` for these settings, with them as the builder's arguments."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
    # Any URL: it selects the application without an embedded store.
    environment[f"{PREFIX}REDIS_URL"] = "redis://context-store:6379/0"
    for name, value in given.items():
        environment[f"{PREFIX}{name.upper()}"] = _variable(value)
    with tempfile.TemporaryDirectory() as folder:
        # A file, because `serve build` also logs to standard output.
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


def _variable(value: object) -> str:
    """A setting as an environment variable."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value)


def patch(given: dict[str, Any]) -> str:
    """A patch that sets the `serveConfigV2` of a RayService."""
    service = {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": "plato"},
        "spec": {"serveConfigV2": _Block(serve_config(given))},
    }
    return NOTE + yaml.dump(service, Dumper=_Dumper, sort_keys=False)


def main() -> int:
    """Write the patches of the given folders."""
    for name in sys.argv[1:]:
        folder = Path(name)
        (folder / PATCH).write_text(patch(read_settings(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

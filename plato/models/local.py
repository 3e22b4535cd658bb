"""The models on this machine: in the hub's cache, and the conversion of the default one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from plato.engine.fingerprint import read_header
from plato.engine.tokenizer_config import context_length
from plato.models import hub
from plato.models.folder import find_problem
from plato.models.package import DefaultModel
from plato.models.sampling import read_generation_config
from plato.settings import DEFAULT_MODEL


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A complete model in a cache."""

    name: str
    revision: str
    """Its commit on the hub; empty if it does not come from there."""
    folder: Path
    root: Path
    """The folder to delete with it; its other revisions are in it, too."""
    bytes: int


def local_models(cache_dir: str | None = None) -> list[LocalModel]:
    """All models that can be loaded without a download, by name.

    `cache_dir` is where conversions are kept, as in the settings.
    """
    found = [
        LocalModel(repo.repo_id, revision.commit_hash, folder, Path(repo.repo_path), size)
        for repo in _hub_repositories()
        for revision in repo.revisions
        for folder, size in [(Path(revision.snapshot_path), int(revision.size_on_disk))]
        if find_problem(folder) is None
    ]
    default = DefaultModel(cache_dir)
    if default.is_complete():
        size = sum(file.stat().st_size for file in default.folder.iterdir())
        found.append(LocalModel(DEFAULT_MODEL, "", default.folder, default.folder, size))
    return sorted(found, key=lambda model: (model.name, model.revision))


def find_local(
    name: str, cache_dir: str | None = None, revision: str | None = None, *, weights: bool = True
) -> Path | None:
    """The folder of a model if it is on this machine, or all but its weights.

    Raises `ModelError` for an invalid name.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.absolute() if find_problem(folder, weights=weights) is None else None
    cached = hub.find_cached(name, revision, weights=weights)
    if cached is not None:
        return cached
    default = DefaultModel(cache_dir)
    return default.folder if name == DEFAULT_MODEL and default.is_complete() else None


def describe(name: str, folder: Path) -> dict[str, Any]:
    """What the files of a model say: its kind, size, context and sampling."""
    config = json.loads((folder / "config.json").read_bytes())
    weights = sorted(folder.glob("*.safetensors"))
    return {
        "name": name,
        "folder": str(folder),
        "architecture": ", ".join(config.get("architectures") or [config["model_type"]]),
        "parameters": parameters(folder),
        "dtype": config.get("dtype") or config.get("torch_dtype"),
        "bytes": sum(file.stat().st_size for file in weights),
        "context_length": context_length(str(folder)),
        "sampling": read_generation_config(folder).sampling,
    }


def parameters(folder: Path) -> int:
    """Number of weights of the model in a folder."""
    headers = [read_header(file)[1] for file in sorted(folder.glob("*.safetensors"))]
    return sum(prod(tensor["shape"]) for tensors in headers for tensor in tensors.values())


def _hub_repositories() -> list[Any]:
    """The models in the hub's cache."""
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        return [
            repo
            for repo in scan_cache_dir(constants.HF_HUB_CACHE).repos
            if repo.repo_type == "model"
        ]
    except CacheNotFound:
        return []

"""The adapter with which a model plans and writes parts."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from plato.engine import fingerprint
from plato.engine.fingerprint import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from plato.errors import ModelError
from plato.models.folder import is_whole
from plato.models.progress import Progress
from plato.models.resolve import resolve_model
from plato.settings import DEFAULT_MODEL, UPSTREAM_ENGINE, VLLM_ENGINE, Settings

BUNDLED = Path(str(files("plato.models") / "adapters" / DEFAULT_MODEL.rpartition("/")[2]))
"""The adapter of the default model."""
NONE = "none"
ADAPTING_ENGINES = ("torch", VLLM_ENGINE)
CONFIG, WEIGHTS = ADAPTER_CONFIG, ADAPTER_WEIGHTS


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The folders of a model and its adapter."""

    folder: Path
    adapter: Path | None
    weights: bool = True
    """Whether the weights in the folder are used: not with upstreams, which have their own."""

    @classmethod
    def resolve(cls, settings: Settings, progress: Progress | None = None) -> ModelFiles:
        """Those of the configured model, downloaded if necessary. Raises `ModelError`."""
        # First, because it takes no time, and a download minutes.
        adapter = find_adapter(settings)
        weights = settings.engine != UPSTREAM_ENGINE
        folder = resolve_model(
            settings.model, settings.cache_dir, settings.model_revision, progress, weights=weights
        )
        return cls(folder, adapter, weights)

    @property
    def base(self) -> ModelFiles:
        """The model without the adapter."""
        return replace(self, adapter=None)

    def fingerprint(self, dtype: str) -> str:
        """See `plato.engine.fingerprint`."""
        return fingerprint(self.folder, dtype, self.adapter, weights=self.weights)


def find_adapter(settings: Settings) -> Path | None:
    """The folder of the configured adapter.

    Raises `ModelError` if it is not an adapter, or the engine cannot use one.
    """
    if settings.adapter == NONE:
        return None
    if settings.engine not in ADAPTING_ENGINES:
        if settings.adapter is None:
            return None
        raise ModelError(
            f"adapter is {settings.adapter!r}, but only the engines "
            f"{' and '.join(ADAPTING_ENGINES)} use adapters, and engine is {settings.engine!r}; "
            "merge it into the model's weights, or leave it out"
        )
    if settings.adapter is None:
        bundled = settings.model == DEFAULT_MODEL and (BUNDLED / CONFIG).is_file()
        return BUNDLED if bundled else None
    folder = Path(settings.adapter).expanduser().absolute()
    check_adapter(folder)
    return folder


def check_adapter(folder: Path) -> None:
    """Raise `ModelError` unless `folder` contains an adapter in the format of PEFT."""
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise ModelError(
            f"the adapter folder {folder} has no {' and no '.join(missing)}; use a folder with "
            f"{CONFIG} and {WEIGHTS}, as PEFT writes them"
        )
    try:
        kind = json.loads((folder / CONFIG).read_bytes())["peft_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder / CONFIG} is not the configuration of an adapter") from error
    if not isinstance(kind, str):
        raise ModelError(f"{folder / CONFIG} has an invalid peft_type")
    if not is_whole(folder / WEIGHTS):
        raise ModelError(
            f"{folder / WEIGHTS} is truncated or not safetensors; copy or download it again"
        )

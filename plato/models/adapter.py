"""The adapter that is merged into a model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from plato.engine import fingerprint
from plato.errors import ModelError
from plato.models.resolve import resolve_model
from plato.settings import Settings

BUNDLED = Path(str(files("plato.models") / "adapters"))
"""Adapters that come with Plato, in folders by the model's name."""
NONE = "none"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_NOT_MERGEABLE = {
    "ADAPTION_PROMPT", "CPT", "MULTITASK_PROMPT_TUNING", "PREFIX_TUNING", "PROMPT_TUNING",
    "P_TUNING", "TRAINABLE_TOKENS", "XLORA",
}  # fmt: skip
"""Types that add tokens or layers, or choose their weights by the input."""
CONTENTS = f"{CONFIG} and {WEIGHTS} (PEFT)"


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Where a model is."""

    folder: Path
    adapter: Path | None

    @classmethod
    def resolve(cls, settings: Settings) -> ModelFiles:
        """Those of the configured model, downloaded if necessary. Raises `ModelError`."""
        # First: it takes no time, and the download minutes.
        adapter = find_adapter(settings)
        folder = resolve_model(settings.model, settings.cache_dir, settings.model_revision)
        return cls(folder, adapter)

    def fingerprint(self, dtype: str) -> str:
        """See `plato.engine.fingerprint`."""
        return fingerprint(self.folder, dtype, self.adapter)


def find_adapter(settings: Settings) -> Path | None:
    """The folder of the configured adapter. Raises `ModelError` if it is none."""
    if settings.adapter == NONE:
        return None
    if settings.adapter is None:
        bundled = bundled_adapter(settings.model)
        return bundled if bundled.is_dir() else None
    folder = Path(settings.adapter).expanduser().absolute()
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise ModelError(
            f"adapter is {settings.adapter!r}, which has no {' and no '.join(missing)}; use a "
            f"folder with {CONTENTS}, or {NONE}"
        )
    try:
        kind = json.loads((folder / CONFIG).read_bytes())["peft_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder / CONFIG} is not the configuration of an adapter") from error
    if kind in _NOT_MERGEABLE:
        raise ModelError(
            f"the adapter in {folder} is of type {kind}, which cannot be merged into weights; use "
            "LoRA or another type that can"
        )
    return folder


def bundled_adapter(model: str) -> Path:
    """Where the adapter for `model` is, if Plato has one."""
    return BUNDLED / model.replace("/", "--")

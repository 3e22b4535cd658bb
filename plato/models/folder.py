"""Checks of model folders."""

from __future__ import annotations

import json
from pathlib import Path

from plato.engine.fingerprint import read_header
from plato.errors import ModelError

TOKENIZER = "config.json, tokenizer.json and tokenizer_config.json"
CONTENTS = "config.json, tokenizer.json and safetensors weights"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")


def check_model_folder(folder: Path, *, weights: bool = True) -> None:
    """Raise `ModelError` if something in `folder` is missing or invalid.

    Without `weights`, only its configuration and tokenizer have to be there.
    """
    problem = find_problem(folder, weights=weights)
    if problem is not None:
        raise ModelError(f"the model folder {folder} {problem}")


def find_problem(folder: Path, *, weights: bool = True) -> str | None:
    """The first problem that prevents `folder` from being loaded, and its solution.

    Reads only file headers, so it takes milliseconds for any size of model.
    """
    found = any(folder.glob("*.safetensors"))
    if weights and not found and any(folder.glob("*.gguf")):
        return f"contains a GGUF file, which is not supported; use a folder with {CONTENTS}"
    try:
        json.loads((folder / "config.json").read_bytes())["model_type"]
    except FileNotFoundError:
        return "has no config.json; copy it from the source of the weights"
    except (ValueError, KeyError, TypeError):
        return "has an invalid config.json (it must be JSON with a model_type); download it again"
    if not any((folder / file).is_file() for file in _TOKENIZERS):
        return "has no tokenizer; add tokenizer.json and tokenizer_config.json"
    if not weights:
        return None
    if not found:
        return "has no *.safetensors; download them, or create them with save_pretrained"
    try:
        wanted = _weight_files(folder)
    except (ValueError, KeyError, TypeError, AttributeError):
        return "has an invalid model.safetensors.index.json; download it again"
    for file in wanted:
        if not file.is_file():
            return f"has no {file.name}; download it"
        if not is_whole(file):
            return f"has an invalid {file.name} (truncated, or not safetensors); download it again"
    return None


def _weight_files(folder: Path) -> list[Path]:
    """The weight files that transformers will read."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file() or not index.is_file():
        return [folder / "model.safetensors"]
    names = set(json.loads(index.read_bytes())["weight_map"].values())
    return [folder / name for name in sorted(names)]


def is_whole(file: Path) -> bool:
    """Whether a safetensors file has the length stated in its header."""
    try:
        header, tensors = read_header(file)
        data = max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return False
    return bool(file.stat().st_size == 8 + len(header) + data)

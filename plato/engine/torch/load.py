"""Loads a model, and keeps its packed weights for the next start."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch

from plato.caches import cache_root
from plato.engine.errors import EngineError
from plato.engine.fingerprint import model_files
from plato.engine.tokenizer_config import TokenizerConfig
from plato.engine.torch.config import TorchEngineConfig
from plato.engine.torch.kernels import NativeKernels, new_kernels
from plato.engine.torch.kernels.build import SOURCES, cpu_kind
from plato.engine.torch.model import LanguageModel, choose_device, choose_precision
from plato.engine.torch.packed import PackedModel, PackedWeights, read_packed, write_packed
from plato.errors import ModelError

logger = logging.getLogger(__name__)

MODEL_LINK, ADAPTER_LINK = "model", "adapter"
"""Beside packed weights, links to what they were made of: broken if that has been removed."""


def load_model(config: TorchEngineConfig) -> LanguageModel:
    """Load the model of a configuration.

    Takes seconds, or a tenth of a second if its packed weights are kept from an earlier start.
    Raises `EngineError` if it cannot be loaded and `ModelNotSupportedError` if it cannot be
    computed correctly.
    """
    device = choose_device(config.device)
    precision = choose_precision(config.dtype, device)
    folder = config.model_folder
    try:
        tokenizer = config.tokenizer or TokenizerConfig.load(folder)
    except ModelError as error:
        raise EngineError(f"the model in {folder} cannot be loaded: {error}") from error
    kernels = new_kernels() if precision == "int8" else None
    if isinstance(kernels, NativeKernels):
        file = packed_file(Path(folder), config.cache_dir, config.adapter)
        kept = _kept_model(file, tokenizer, kernels)
        if kept is not None:
            return kept
    # Late: it imports transformers.
    from plato.engine.torch.transformers_model import TransformersModel

    model = TransformersModel(folder, tokenizer, device, precision, config.adapter)
    if isinstance(kernels, NativeKernels):
        weights = model.pack(kernels)
        if weights is not None:
            packed = PackedModel(weights, tokenizer, kernels)
            _keep(weights, file, Path(folder), config.adapter)
            return packed
    if device.type == "cpu" and model.dtype is torch.float32:
        model.replace_modules()
    return model


def packed_file(folder: Path, cache_dir: str | None, adapter: Path | None = None) -> Path:
    """Where the packed weights of the model in `folder` with an adapter are kept.

    There is a folder for each model's path, adapter's path and kind of CPU. The name of the file
    covers all that the weights depend on: the files, the code that packs and computes, torch's
    version.
    """
    place, state = hashlib.blake2b(digest_size=8), hashlib.blake2b(digest_size=8)
    place.update(f"{folder.absolute()}\n{cpu_kind()}\n{adapter or ''}".encode())
    state.update(torch.__version__.encode())
    # Not the fingerprint: it does not read all weights, and stale weights must not be used.
    if adapter is not None:
        state.update(version("peft").encode())
    for path in model_files(folder, adapter):
        about = path.stat()
        state.update(f"{path.name} {about.st_size} {about.st_mtime_ns}\n".encode())
    for source in (*sorted(Path(__file__).parent.rglob("*.py")), *SOURCES):
        state.update(source.read_bytes())
    return cache_root(cache_dir) / "packed" / place.hexdigest() / f"{state.hexdigest()}.pt"


def _kept_model(
    file: Path, tokenizer: TokenizerConfig, kernels: NativeKernels
) -> PackedModel | None:
    if not file.exists():
        return None
    try:
        return PackedModel(read_packed(file), tokenizer, kernels)
    except Exception as error:  # A damaged file can fail in any way, even in the self-test.
        logger.warning("the packed weights in %s are damaged (%s); packing again", file, error)
        return None


def _keep(weights: PackedWeights, file: Path, model: Path, adapter: Path | None) -> None:
    """Write packed weights; remove older ones of this model, and those of models that are gone."""
    folder = file.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Replicas may pack at the same time: each writes its own file and renames it atomically.
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            written = Path(scratch) / file.name
            write_packed(weights, written)
            _flush(written)
            for name, target in ((MODEL_LINK, model), (ADAPTER_LINK, adapter)):
                if target is not None:
                    link = Path(scratch) / name
                    link.symlink_to(target.absolute(), target_is_directory=True)
                    link.replace(folder / name)
            written.replace(file)
        for other in folder.glob("*.pt"):
            if other != file:
                other.unlink(missing_ok=True)
        for place in folder.parent.iterdir():
            links = (place / MODEL_LINK, place / ADAPTER_LINK)
            if any(link.is_symlink() and not link.exists() for link in links):
                shutil.rmtree(place, ignore_errors=True)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError if the disk is full
        logger.warning("the packed weights cannot be kept in %s: %s", folder, error)


def _flush(file: Path) -> None:
    """Write a file to the disk: after a power failure its name must not stand for less."""
    with file.open("rb") as written:
        os.fsync(written.fileno())

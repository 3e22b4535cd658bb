"""The fingerprint of a model: what must be equal for KV and output tokens to be exchanged.

Needs neither torch nor transformers, and takes milliseconds: it is computed by every process.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FINGERPRINT_BYTES = 8
WEIGHTS = ".safetensors"
_SUFFIXES = {WEIGHTS, ".json", ".jinja", ".model", ".txt"}
"""Weights, configuration, tokenizer, chat template and adapter; not what a folder has besides."""
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ADAPTER_CALIBRATION = "plato.json"
ADAPTER_FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS, ADAPTER_CALIBRATION)
"""What prompts, tokens and KV depend on; not the report of how it was tuned."""
SAMPLES = 1024
"""Tensors that are sampled, over all files."""
SAMPLE_BYTES = 64


def fingerprint(
    folder: str | Path, dtype: str, adapter: Path | None = None, *, weights: bool = True
) -> str:
    """Fingerprint of the model in `folder` with the adapter in another, computed in `dtype`.

    Covers all of its small files, the headers of its weights, and 64 bytes from the middle of each
    of up to `SAMPLES` tensors: models that were trained further have equal headers. The same files
    in another folder or on another machine have the same fingerprint. Without `weights`, those are
    left out, whether they are in the folder or not.

    Raises `ValueError` if a file of weights is broken, and `OSError`.
    """
    digest = hashlib.blake2b(dtype.encode(), digest_size=FINGERPRINT_BYTES)
    files = model_files(Path(folder), adapter)
    if not weights:
        files = [file for file in files if WEIGHTS not in file.name]  # Nor their index.
    count = sum(file.suffix == WEIGHTS for file in files)
    for file in files:
        parts = _sampled(file, SAMPLES // count) if file.suffix == WEIGHTS else [file.read_bytes()]
        for part in (file.name.encode(), *parts):
            # The length prefix separates the parts.
            digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def model_files(folder: Path, adapter: Path | None = None) -> list[Path]:
    """The files of a model, by name, and those of an adapter in another folder."""
    own = sorted(
        file for file in folder.glob("[!.]*") if file.suffix in _SUFFIXES and file.is_file()
    )
    if adapter is None:
        return own
    return own + [file for name in ADAPTER_FILES if (file := adapter / name).is_file()]


def read_header(file: Path) -> tuple[bytes, dict[str, Any]]:
    """The header of a safetensors file, as it stands there and without its metadata.

    The format: the header's length (8 bytes, little endian), the header (JSON, with the start and
    end of every tensor in the data), the data. Raises `ValueError` if it is broken.
    """
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > file.stat().st_size:
            raise ValueError(f"{file.name} is shorter than its header")
        header = stream.read(length)
    tensors = json.loads(header)
    if not isinstance(tensors, dict):
        raise ValueError(f"the header of {file.name} is not an object")
    tensors.pop("__metadata__", None)
    return header, tensors


def _sampled(file: Path, count: int) -> Iterator[bytes]:
    """The header of a file of weights, and bytes of at most `count` of its tensors."""
    header, tensors = read_header(file)
    yield header
    try:
        spans = sorted(tuple(tensor["data_offsets"]) for tensor in tensors.values())
    except (TypeError, KeyError) as error:
        raise ValueError(f"the header of {file.name} is broken") from error
    stride = -(-len(spans) // max(1, count)) or 1
    with file.open("rb", buffering=0) as stream:
        for start, end in spans[::stride]:
            stream.seek(8 + len(header) + (start + end) // 2)
            yield stream.read(min(SAMPLE_BYTES, (end - start + 1) // 2))

"""A fingerprint is equal for equal models, wherever they are, and for no others."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from plato.engine.fingerprint import fingerprint

pytestmark = pytest.mark.hostile

VALUES = 4096


def write_weights(file: Path, value: float = 1.0, name: str = "layer", count: int = VALUES) -> None:
    """A safetensors file of two tensors; only the second one has `value`."""
    data = {"embedding": [0.5] * count, name: [value] * count}
    header, packed = {}, b""
    for tensor, values in data.items():
        offsets = [len(packed), len(packed) + 4 * count]
        header[tensor] = {"dtype": "F32", "shape": [count], "data_offsets": offsets}
        packed += struct.pack(f"{count}f", *values)
    written = json.dumps(header).encode()
    file.write_bytes(len(written).to_bytes(8, "little") + written + packed)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama", "rope_theta": 10000}')
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    (folder / "README.md").write_text("A model.")
    write_weights(folder / "model.safetensors")
    return folder


def test_the_same_model_in_another_place_has_the_same(model: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(model, tmp_path / "copy"))
    for file in copy.iterdir():
        os.utime(file, (1, 1))
    (copy / "README.md").write_text("The same model, elsewhere.")
    assert fingerprint(copy, "int8") == fingerprint(model, "int8")


@pytest.mark.parametrize(
    "change",
    [
        lambda model: (model / "config.json").write_text('{"model_type": "llama"}'),
        lambda model: (model / "tokenizer.json").write_text('{"version": "1.1"}'),
        lambda model: (model / "chat_template.jinja").write_text("{{ messages }}"),
        lambda model: (model / "adapter_config.json").write_text("{}"),
        lambda model: write_weights(model / "adapter_model.safetensors"),
        lambda model: write_weights(model / "model.safetensors", name="renamed"),
        # Trained further: the header stays the same.
        lambda model: write_weights(model / "model.safetensors", value=1.0001),
    ],
    ids=["config", "tokenizer", "template", "adapter", "its weights", "header", "weights"],
)
def test_another_model_has_another(change: Callable[[Path], object], model: Path) -> None:
    before = fingerprint(model, "int8")
    change(model)
    assert fingerprint(model, "int8") != before


def test_another_precision_has_another(model: Path) -> None:
    assert fingerprint(model, "int8") != fingerprint(model, "float32")


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\2\0\0\0\0\0\0\0[]", b"\x09" + bytes(7)])
def test_broken_weights_are_a_value_error(content: bytes, model: Path) -> None:
    (model / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r".+"):
        fingerprint(model, "int8")


@pytest.mark.skipif(sys.platform != "linux", reason="counts what was read by /proc")
def test_it_reads_little_of_large_weights_and_needs_no_torch(model: Path) -> None:
    tensors, length = 3000, 1 << 20
    header = {
        f"layer.{number}": {"data_offsets": [number * length, (number + 1) * length]}
        for number in range(tensors)
    }
    written = json.dumps(header).encode()
    with (model / "model.safetensors").open("wb") as file:
        file.write(len(written).to_bytes(8, "little") + written)
        file.truncate(8 + len(written) + tensors * length)
    code = (
        "import sys\n"
        "from plato.engine import fingerprint\n"
        "def read(): return int(open('/proc/self/io').readline().split()[1])\n"
        "before = read()\n"
        "fingerprint(sys.argv[1], 'int8')\n"
        "print(read() - before)\n"
        "assert not {'torch', 'transformers'} & sys.modules.keys()\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, str(model)], capture_output=True, check=True, timeout=60
    )
    assert len(written) < int(told.stdout) < len(written) + (1 << 18)

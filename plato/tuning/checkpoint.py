"""What an interrupted run needs to resume."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from plato.errors import InvalidRequestError, ModelError


class Checkpoint:
    """A file with the state of one run."""

    def __init__(self, file: Path, run_id: Mapping[str, Any]) -> None:
        """`run_id` is all that the run's result depends on."""
        self._file = file
        self._run_id = dict(run_id)

    def read(self) -> dict[str, Any] | None:
        """What was written last; None if nothing was.

        Raises `ModelError` if the file is damaged, `InvalidRequestError` if it is another run's.
        """
        if not self._file.is_file():
            return None
        try:
            kept: dict[str, Any] = torch.load(self._file, map_location="cpu", weights_only=True)
        except Exception as error:  # A damaged file can fail in any way.
            raise ModelError(f"{self._file} is damaged; remove it to start anew") from error
        if kept.pop("run") != self._run_id:
            raise InvalidRequestError(
                f"{self._file.parent} is from an interrupted run with other options, examples or "
                "another model; use another folder, or remove it to start anew",
                param="out",
            )
        return kept

    def write(self, **kept: Any) -> None:
        """Replace what was written before."""
        buffer = io.BytesIO()
        torch.save({"run": self._run_id, **kept}, buffer)
        write_whole(self._file, buffer.getvalue())

    def remove(self) -> None:
        """A run that starts again starts anew."""
        self._file.unlink(missing_ok=True)


def write_whole(file: Path, content: bytes) -> None:
    """Write a file that a reader finds either whole or as it was before."""
    partial = file.with_name(f"{file.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, file)

"""What a terminal shows."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console


def shown(renderable: Any, width: int = 80, encoding: str = "utf-8") -> str:
    """The text on a terminal without colours; raises if its encoding lacks a character."""
    with io.TextIOWrapper(io.BytesIO(), encoding=encoding) as file:
        Console(file=file, width=width, color_system=None).print(renderable)
        file.flush()
        assert isinstance(file.buffer, io.BytesIO)
        return file.buffer.getvalue().decode(encoding)

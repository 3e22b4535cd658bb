"""Where files are kept that can be made again."""

from __future__ import annotations

from pathlib import Path


def cache_root(cache_dir: str | None = None) -> Path:
    """The folder of all caches: `cache_dir`, or ~/.cache/plato."""
    root = Path(cache_dir).expanduser() if cache_dir else Path.home() / ".cache" / "plato"
    return root.absolute()

"""Where files are kept that can be made again."""

from __future__ import annotations

import atexit
import logging
import shutil
import tempfile
from functools import cache
from pathlib import Path

logger = logging.getLogger(__name__)


def cache_root(cache_dir: str | None = None) -> Path:
    """The folder of all caches: `cache_dir`, or ~/.cache/plato.

    Without a home folder it is a temporary one, which is removed with this process.
    """
    return Path(cache_dir).expanduser().absolute() if cache_dir else _default_root()


@cache
def _default_root() -> Path:
    try:
        return Path.home() / ".cache" / "plato"
    except RuntimeError:
        folder = tempfile.mkdtemp(prefix="plato-cache-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        logger.warning("there is no home folder, so nothing is kept; set HOME or cache_dir")
        return Path(folder)

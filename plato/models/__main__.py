"""Fetch the model that the settings name: `python -m plato.models`.

For what has to be there before a server starts: an image, or a volume that many servers share.
Prints the model's folder.
"""

from __future__ import annotations

import sys

from plato.errors import ModelError
from plato.models import resolve_model
from plato.settings import Settings


def main() -> int:
    """Fetch the model; returns the exit status."""
    settings = Settings()
    try:
        folder = resolve_model(settings.model, settings.cache_dir)
    except ModelError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    sys.stdout.write(f"{folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Download the configured model: `python -m plato.models`.

Prepares an image, or a volume that several servers share, before a server starts. Prints the folder
of the model.
"""

from __future__ import annotations

import sys

from plato.errors import ModelError
from plato.models import resolve_model
from plato.settings import Settings


def main() -> int:
    """Download the model; returns the exit status."""
    settings = Settings()
    try:
        folder = resolve_model(settings.model, settings.cache_dir, settings.model_revision)
    except ModelError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    sys.stdout.write(f"{folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

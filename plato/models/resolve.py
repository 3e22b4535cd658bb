"""The order in which the sources of a model are tried."""

from __future__ import annotations

import logging
from pathlib import Path

from plato.errors import ModelError
from plato.models import hub
from plato.models.folder import CONTENTS, check_model_folder
from plato.models.package import DefaultModel
from plato.models.progress import Progress, shown
from plato.settings import DEFAULT_MODEL

logger = logging.getLogger(__name__)


def resolve_model(
    name: str, cache_dir: str | None = None, progress: Progress | None = None
) -> Path:
    """Find or fetch a model. Blocks, the first time for as long as a download takes.

    Tried in this order, the first that is there is taken:

    1. `name` is a local folder: it is used as it is, after a check that nothing is missing.
    2. The hub's own cache (`HF_HOME`) holds the model completely. The hub is not asked whether
       there is a newer one: a restart must not change the model.
    3. The default model only: an earlier conversion in `cache_dir`.
    4. The hub, unless `HF_HUB_OFFLINE` is set.
    5. The default model only: the same weights from a package, converted into `cache_dir`.

    Args:
        name: A local folder, or a model's name on the Hugging Face hub.
        cache_dir: Where conversions are kept; default: ~/.cache/plato.
        progress: Told about downloads and conversion; by default there is a bar on a terminal's
            standard error, and log lines elsewhere.

    Returns:
        An absolute folder with configuration, tokenizer and safetensors.

    Raises:
        ModelError: Missing, broken or out of reach; the message says what to do.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        check_model_folder(folder)
        return folder.absolute()
    if folder.exists() or name.startswith(("/", "./", "../", "~")):
        raise ModelError(
            f"the model {name!r} is not a folder; use a folder with {CONTENTS}, or a model on the "
            "Hugging Face hub"
        )
    cached = hub.find_cached(name)
    if cached is not None:
        return cached
    default = DefaultModel(cache_dir) if name == DEFAULT_MODEL else None
    if default is not None and default.is_complete():
        return default.folder
    with shown(progress) as report:
        try:
            return hub.download(name, report)
        except hub.HubError as error:
            if default is None:
                raise ModelError(f"{error}; or use a local folder with {CONTENTS}") from error
            logger.info("%s; installing the default model from its package", error)
        default.make(report)
    return default.folder

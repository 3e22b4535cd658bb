"""Resolution of model names: the sources of a model, in order."""

from __future__ import annotations

import logging
from pathlib import Path

from plato.errors import ModelError
from plato.models import hub
from plato.models.folder import CONTENTS, TOKENIZER, check_model_folder
from plato.models.package import DefaultModel
from plato.models.progress import Progress, shown
from plato.settings import DEFAULT_MODEL

logger = logging.getLogger(__name__)


def resolve_model(
    name: str,
    cache_dir: str | None = None,
    revision: str | None = None,
    progress: Progress | None = None,
    *,
    weights: bool = True,
) -> Path:
    """Find or download a model. Blocks during a download.

    The first available source is used:

    1. `name` is a local folder: used directly, after a check that it is complete.
    2. The hub's cache (`HF_HOME`) contains the complete model. The hub is not asked for a newer
       version: a restart must not change the model.
    3. Default model without `revision` only: an earlier conversion in `cache_dir`.
    4. The hub, unless `HF_HUB_OFFLINE` is set.
    5. Default model without `revision` only: the same weights from a package, converted into
       `cache_dir`.

    The commit of a model from the hub is logged.

    Args:
        name: A local folder, or the name of a model on the Hugging Face hub.
        cache_dir: Folder for conversions; default: ~/.cache/plato.
        revision: Commit, tag or branch of a model on the hub; default: the newest when it is
            downloaded.
        progress: Called with the progress of downloads and conversion; by default a progress bar
            if standard error is a terminal, else log lines.
        weights: Whether they are needed; if not, they are neither downloaded nor converted.

    Returns:
        The absolute path of a folder with configuration, tokenizer and, if needed, safetensors.

    Raises:
        ModelError: The model is missing, invalid or unreachable; the message says what to do.
    """
    contents = CONTENTS if weights else TOKENIZER
    folder = Path(name).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ModelError(
                f"model_revision is {revision!r}, and the model {name!r} is a folder, which has no "
                "revisions; leave model_revision out"
            )
        check_model_folder(folder, weights=weights)
        return folder.absolute()
    if folder.exists() or name.startswith(("/", "./", "../", "~")):
        raise ModelError(
            f"the model {name!r} is not a folder; use a folder with {contents}, or a model on the "
            "Hugging Face hub"
        )
    cached = hub.find_cached(name, revision, weights=weights)
    if cached is not None:
        return _logged(name, cached)
    default = DefaultModel(cache_dir) if name == DEFAULT_MODEL and revision is None else None
    if default is not None and default.is_complete():
        return default.folder
    with shown(progress) as report:
        try:
            return _logged(name, hub.download(name, report, revision, weights=weights))
        except hub.HubError as error:
            if default is None or not weights:
                raise ModelError(f"{error}; or use a local folder with {contents}") from error
            logger.info("%s; installing the default model from its package", error)
        default.make(report)
    return default.folder


def _logged(name: str, folder: Path) -> Path:
    """The folder of a model from the hub, whose commit is logged."""
    logger.info("model %s is at revision %s of the hub", name, folder.name)
    return folder

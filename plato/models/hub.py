"""Models from the Hugging Face hub."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from plato.errors import ModelError
from plato.models.folder import check_model_folder, find_problem
from plato.models.progress import Progress

TIMEOUT_S = 5.0
"""Timeout of requests to the hub. Downloads have the client's own timeout, HF_HUB_DOWNLOAD_TIMEOUT
(10 s by default)."""

# The files of a causal language model. Subfolders of a repository have other formats, and
# `consolidated` files have the same weights under other names.
_SMALL = ["*.json", "*.jinja", "*.model", "*.txt"]
_WEIGHTS = ["*.safetensors"]
_UNWANTED = ["*/*", "consolidated*"]


class HubError(Exception):
    """The model cannot be downloaded; the message says why, and what to change."""


def find_cached(name: str, revision: str | None = None, *, weights: bool = True) -> Path | None:
    """The model in the hub's cache on this machine, if it is complete, or all but its weights.

    Its folder is named after the commit. By default the commit that was newest when it was
    downloaded.

    Raises `ModelError` if `name` is not a valid model name.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        folder = snapshot_download(
            name,
            revision=revision,
            local_files_only=True,
            allow_patterns=_wanted(weights),
            ignore_patterns=_UNWANTED,
        )
    except HFValidationError as error:
        raise ModelError(
            f"{name!r} is neither a folder nor a model on the Hugging Face hub (owner/model)"
        ) from error
    except OSError:
        return None
    return Path(folder) if find_problem(Path(folder), weights=weights) is None else None


def download(
    name: str, report: Progress, revision: str | None = None, *, weights: bool = True
) -> Path:
    """Download a model into the hub's cache, at one commit; by default the newest.

    Without `weights`, only its configuration and tokenizer.

    Raises `HubError` if the download fails, `ModelError` if the model cannot be used.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    what = f"downloading {name}"
    report(what, 0.0)
    try:
        # A separate request first, because the first request of a download has no timeout.
        HfApi().model_info(name, revision=revision, timeout=TIMEOUT_S)
        folder = snapshot_download(
            name,
            revision=revision,
            etag_timeout=TIMEOUT_S,
            allow_patterns=_wanted(weights),
            ignore_patterns=_UNWANTED,
            tqdm_class=_bar_class(what, report),
        )
    except GatedRepoError as error:
        raise HubError(
            f"{name!r} is a gated model on the Hugging Face hub; accept its terms and set HF_TOKEN"
        ) from error
    except RepositoryNotFoundError as error:
        raise HubError(
            f"the Hugging Face hub has no model {name!r}, or it is private; correct the name or "
            "set "
            "HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise HubError(f"{name!r} has no revision {revision!r}; correct model_revision") from error
    except Exception as error:
        # The hub's client propagates the errors of its HTTP library, which has changed before.
        reason = "".join(str(error).splitlines()[:1])
        raise HubError(
            f"{name!r} is not cached on this machine, and the Hugging Face hub cannot be reached "
            f"({type(error).__name__}: {reason}); allow access to it"
        ) from error
    check_model_folder(Path(folder), weights=weights)
    return Path(folder)


def _wanted(weights: bool) -> list[str]:
    return [*_SMALL, *(_WEIGHTS if weights else ())]


def _bar_class(what: str, report: Progress) -> type[Any]:
    """A tqdm class that draws nothing and reports the share of bytes."""
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "file": io.StringIO()})

        def update(self, n: float | None = 1) -> bool | None:
            drawn: bool | None = super().update(n)
            if self.unit == "B" and self.total:
                report(what, min(1.0, self.n / self.total))
            return drawn

    return Bar

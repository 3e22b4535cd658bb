"""How a model samples unless a request says otherwise."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from plato.engine import SamplingParams
from plato.errors import ModelError
from plato.settings import DEFAULT_MODEL, SamplingFields, Settings
from plato.validation import first_problem

FILE = "generation_config.json"
NEUTRAL = SamplingParams(temperature=1.0)
"""vLLM's `ChatCompletionRequest._DEFAULT_SAMPLING_PARAMS`."""
RECOMMENDED = {DEFAULT_MODEL: SamplingFields(temperature=0.0, repetition_penalty=1.15)}
"""By model name: what keeps a model from looping whose makers' file says nothing of sampling."""


def default_sampling(settings: Settings, folder: Path | str) -> SamplingParams:
    """Sampling parameters of requests that set none, for the model in `folder`.

    Each is what the first of these says: `settings`, `RECOMMENDED`, the model's
    `generation_config.json`, `NEUTRAL`. The file is read as vLLM reads it with its default
    `--generation-config auto` (`ModelConfig.get_diff_sampling_param`): `do_sample` is ignored.

    Raises `ModelError` if the file is invalid.
    """
    recommended = RECOMMENDED.get(settings.model, SamplingFields())
    makers = read_generation_config(Path(folder))
    return replace(NEUTRAL, **makers.sampling | recommended.sampling | settings.sampling)


def read_generation_config(folder: Path) -> SamplingFields:
    """What a model's makers say about sampling; nothing without a file. Raises `ModelError`."""
    try:
        content = json.loads((folder / FILE).read_bytes())
        return SamplingFields.model_validate(content)
    except FileNotFoundError:
        return SamplingFields()
    except ValidationError as error:
        problem = f"{first_problem(error)}; correct it"
    except ValueError as error:
        problem = f"{error}; download it again"
    raise ModelError(f"{FILE} in the model folder {folder} is invalid ({problem})")

"""The model that is served, and its names: one alone, and one for each mode.

`NAME:plato`, `NAME:skeleton` and `NAME:sequential` let people choose a mode in clients that send
nothing but the name of a model.
"""

from __future__ import annotations

import time
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from plato.api.operation import operation
from plato.api.wire import AnswerModel
from plato.errors import ModelNotFoundError
from plato.runs import Mode
from plato.settings import Settings

SEPARATOR = ":"
NAMED_MODES = (Mode.PLATO, Mode.SKELETON, Mode.SEQUENTIAL)
"""`auto` is the mode of the plain name."""


def split_name(name: str) -> tuple[str, Mode | None]:
    """The plain name of a model, and the mode that it asks for, if it does."""
    plain, _, suffix = name.rpartition(SEPARATOR)
    return (plain, Mode(suffix)) if plain and suffix in NAMED_MODES else (name, None)


def model_names(settings: Settings) -> tuple[str, ...]:
    """All names of the served model, the plain one first."""
    name = settings.model_name
    return name, *(f"{name}{SEPARATOR}{mode}" for mode in NAMED_MODES)


def is_served(name: object, settings: Settings) -> bool:
    """Whether `name` is one of the served model; no name is the only one's."""
    return not name or name in model_names(settings)


def require_model(name: str | None, settings: Settings) -> None:
    """Raise `ModelNotFoundError` if `name` is of another model."""
    if not is_served(name, settings):
        raise ModelNotFoundError(
            f"the model '{name}' does not exist here; use '{settings.model_name}'", param="model"
        )


class Model(AnswerModel):
    """A name of the model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["plato"] = "plato"


class ModelList(AnswerModel):
    """All names of the model."""

    object: Literal["list"] = "list"
    data: tuple[Model, ...]


class ModelRoutes:
    """`/v1/models`: the served model by each of its names."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        created = int(time.time())
        self._models = {name: Model(id=name, created=created) for name in model_names(settings)}

    @operation(ModelList)
    async def list(self, request: Request) -> Response:
        """The names of the model; those with a mode choose it."""
        return ModelList(data=tuple(self._models.values())).as_response()

    @operation(Model, errors=(ModelNotFoundError,))
    async def get(self, request: Request) -> Response:
        """One name of the model."""
        name = request.path_params["name"]
        require_model(name, self._settings)
        return self._models[name].as_response()

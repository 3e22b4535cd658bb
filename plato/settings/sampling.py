"""How answers are sampled, unless a request says otherwise."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field

from plato.settings.values import MAX_PARAMETER, Section


class SamplingFields(BaseModel):
    """How to sample, as settings, a request or a model's `generation_config.json` say it.

    `None` leaves a parameter to whoever is asked next; see `plato.models.sampling`.
    """

    temperature: float | None = Field(default=None, ge=0, le=2, description="0: greedy decoding.")
    top_p: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Sample from the most likely tokens that together have this probability.",
    )
    top_k: Annotated[int | None, AfterValidator(lambda k: k and max(k, 0))] = Field(
        default=None,
        ge=-1,
        le=MAX_PARAMETER,
        description="Sample from this number of most likely tokens; 0 or -1: from all.",
    )
    min_p: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Minimum probability of a token, as a fraction of the most likely token's.",
    )
    repetition_penalty: float | None = Field(
        default=None,
        ge=1 / MAX_PARAMETER,
        le=2,
        description="Multiplicative penalty for tokens that already occur, 1 is neutral; above 1 "
        "it keeps small models from looping.",
    )

    @property
    def sampling(self) -> dict[str, Any]:
        """The parameters that are not `None`, by the names of `plato.engine.SamplingParams`."""
        values = {name: getattr(self, name) for name in SamplingFields.model_fields}
        return {name: value for name, value in values.items() if value is not None}


class SamplingSettings(SamplingFields, Section):
    """The defaults of requests; plans have their own."""

    title = "Sampling"

"""All settings together."""

from __future__ import annotations

from collections import Counter

from pydantic import model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from plato.settings.answers import (
    AdmissionSettings,
    DeadlineSettings,
    LoadSettings,
    PlanningSettings,
    StreamingSettings,
)
from plato.settings.clients import ClientSettings, IngressLimits, SchedulerLimits
from plato.settings.deployment import (
    DeploymentSettings,
    PlacementSettings,
    RecoverySettings,
    StoreSettings,
)
from plato.settings.engine import EngineSettings, ModelSettings
from plato.settings.observation import LogSettings, TracingSettings
from plato.settings.sampling import SamplingSettings
from plato.settings.values import NULL, UPSTREAM_ENGINE, VLLM_ENGINE, Section


class Settings(
    # From the last to the first: pydantic takes the fields of the last base first.
    LogSettings,
    TracingSettings,
    RecoverySettings,
    PlacementSettings,
    IngressLimits,
    SchedulerLimits,
    ClientSettings,
    LoadSettings,
    AdmissionSettings,
    StreamingSettings,
    DeadlineSettings,
    PlanningSettings,
    StoreSettings,
    DeploymentSettings,
    EngineSettings,
    ModelSettings,
    SamplingSettings,
    BaseSettings,
):
    """Settings for operators. Times are in seconds; other units are in the names."""

    model_config = SettingsConfigDict(
        env_prefix="PLATO_", extra="forbid", frozen=True, env_parse_none_str=NULL
    )

    @model_validator(mode="after")
    def _bounds(self) -> Settings:
        if self.max_decoders is not None and self.max_decoders < self.decoders:
            raise ValueError(
                f"max_decoders is {self.max_decoders}, less than decoders ({self.decoders})"
            )
        if self.tensor_parallel_size > 1 and self.engine != VLLM_ENGINE:
            raise ValueError(
                f"only the engine {VLLM_ENGINE} shares a model among GPUs, and engine is "
                f"{self.engine!r}; leave tensor_parallel_size out"
            )
        if self.engine == UPSTREAM_ENGINE and not self.upstreams:
            raise ValueError(
                f"the engine {UPSTREAM_ENGINE} needs the URL of a server; add --upstream URL, or "
                "set upstreams"
            )
        if self.upstreams and self.engine != UPSTREAM_ENGINE:
            raise ValueError(
                f"upstreams are for the engine {UPSTREAM_ENGINE}, and engine is {self.engine!r}; "
                f"add --engine {UPSTREAM_ENGINE}, or leave them out"
            )
        for url, times in Counter(self.upstreams).items():
            if times > 1:
                raise ValueError(
                    f"upstreams has {url} {times} times; name every server once, as a decoder is "
                    "made of each"
                )
        if self.upstreams and (self.decoders != 1 or self.max_decoders is not None):
            raise ValueError(
                "each of the upstreams is a decoder, so decoders and max_decoders must not be set"
            )
        return self

    @property
    def decoder_count(self) -> int:
        """Number of decoder replicas at start."""
        return len(self.upstreams) or self.decoders


def section_of(name: str) -> str:
    """The heading that a setting is under."""
    sections = (base for base in Settings.__bases__ if issubclass(base, Section))
    return next(base.title for base in sections if name in base.model_fields)


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return f"{Settings.model_config['env_prefix']}{name}".upper()

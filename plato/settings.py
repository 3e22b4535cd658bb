"""All settings, in one place.

Every field can be given as environment variable (`PLATO_` and the name in capitals), as a Serve
argument (`serve run deployments.app:build name=value`), or in the constructor; the constructor
wins, then the environment, then the default.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

DEFAULT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
MAX_NODES = 32
"""Parts of any plan, at the most."""
MAX_TITLE_CHARS = 200
"""Longest title of any part."""


class Settings(BaseSettings):
    """What an operator can set. Times are seconds, sizes as the name says."""

    model_config = SettingsConfigDict(env_prefix="PLATO_", extra="forbid", frozen=True)

    # Model
    model: str = Field(
        default=DEFAULT_MODEL,
        min_length=1,
        description="Name on the Hugging Face hub, or a local folder.",
    )
    served_model_name: str | None = Field(
        default=None,
        description="What `GET /v1/models` calls the model; default: the model's name.",
    )
    cache_dir: str | None = Field(
        default=None, description="Where converted models are kept; default: ~/.cache/plato."
    )
    dtype: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"

    # Engine
    engine: str = Field(
        default="torch",
        description="Engine: `torch`, or the import path `package.module:factory` of another.",
    )
    engine_options: dict[str, Any] = Field(
        default={}, description="Options of an engine that is not built in."
    )
    kv_budget_mb: int = Field(default=1024, ge=1, description="KV cache of one decoder, in MiB.")
    max_sequences: int = Field(default=16, ge=1, description="Sequences that decode side by side.")
    prefill_chunk: int = Field(
        default=256, ge=16, description="Prompt tokens computed in one step, at the most."
    )
    max_waiting: int = Field(default=256, ge=1, description="Sequences that wait in one decoder.")

    # Deployments
    decoders: int = Field(default=1, ge=1, description="Decoder replicas.")
    max_decoders: int | None = Field(
        default=None, ge=1, description="Let decoders follow the load, from `decoders` up to this."
    )
    decoder_tokens: int = Field(
        default=2048,
        ge=1,
        description="Tokens to compute and decode that one decoder should have before its load, "
        "when decoders follow it.",
    )
    upscale_delay_s: float = Field(default=10.0, ge=0)
    downscale_delay_s: float = Field(default=300.0, ge=0)
    decoder_cpus: float = Field(
        default=1.0, ge=0, description="CPUs that Ray reserves for a decoder."
    )
    decoder_gpus: float = Field(
        default=0.0, ge=0, description="GPUs that Ray reserves for a decoder."
    )
    decoder_threads: int | None = Field(
        default=None,
        ge=1,
        description="Threads of a decoder's engine; default: cores over decoders.",
    )
    planners: int = Field(default=1, ge=1, description="Planner replicas.")
    schedulers: int = Field(default=1, ge=1, description="Scheduler replicas.")
    ingresses: int = Field(default=1, ge=1, description="Ingress replicas.")
    service_cpus: float = Field(
        default=0.1,
        ge=0,
        description="CPUs that Ray reserves for each ingress, planner and scheduler.",
    )
    decoder_resource: str | None = Field(
        default=None,
        min_length=1,
        description="A custom resource of Ray that every decoder takes one of, so that decoders "
        "go to the nodes that offer it, and to each no more than it offers.",
    )
    service_resource: str | None = Field(
        default=None,
        min_length=1,
        description="The same for each ingress, planner and scheduler.",
    )

    # Context store
    redis_url: str | None = Field(
        default=None, description="A shared Redis or Valkey; default: an embedded Valkey."
    )
    redis_timeout_s: float = Field(default=0.5, gt=0)
    redis_ttl_s: int = Field(default=3600, ge=1, description="How long runs are kept in the store.")

    # Planning
    max_nodes: int = Field(
        default=8, ge=2, le=MAX_NODES, description="Parts of an answer, at the most."
    )
    max_title_chars: int = Field(default=60, ge=8, le=MAX_TITLE_CHARS)
    split_threshold: float = Field(
        default=0.00099,
        ge=0,
        le=1,
        description="`auto` splits when the model's probability of not splitting is below this.",
    )
    node_max_tokens: int = Field(
        default=256, ge=1, description="Tokens of one part, unless asked else."
    )
    sequential_max_tokens: int = Field(
        default=1024, ge=1, description="Tokens of a sequential answer, unless asked else."
    )

    repetition_penalty: float = Field(
        default=1.0,
        gt=0,
        le=2,
        description="Of the answers; above 1 keeps small models from going round in circles.",
    )

    # Deadlines
    plan_deadline_s: float = Field(default=30.0, gt=0)
    node_deadline_s: float = Field(default=120.0, gt=0)
    run_deadline_s: float = Field(default=300.0, gt=0)
    lease_ttl_s: float = Field(
        default=1.2,
        gt=0.2,
        description="A decoder drops sequences whose consumer is silent for this.",
    )

    # Streaming
    stream_interval_s: float = Field(
        default=0.1,
        ge=0,
        description="Text comes in pieces of this duration; every piece costs processor time.",
    )

    # Admission
    max_runs: int = Field(default=64, ge=1, description="Runs in flight in one scheduler.")
    max_waiting_runs: int = Field(
        default=256, ge=0, description="Runs that wait for their turn in one scheduler."
    )
    patience_s: float = Field(
        default=10.0, gt=0, description="How long a run waits for its turn, at the most."
    )

    # Placement
    placement: str = Field(
        default="kv_aware",
        description="How the decoder of a part is chosen: `kv_aware`, or `package.module:name` of "
        "a callable that returns another `plato.scheduling.placement.Policy`.",
    )
    move_cost: float | None = Field(
        default=0.1,
        ge=0,
        description="What getting the KV of a token from another decoder costs, in tokens "
        "computed; null: prefixes are computed again instead.",
    )

    # Recovery
    silence_s: float = Field(
        default=1.8,
        gt=1.0,
        description="A process that is silent for this counts as lost, and its work moves.",
    )
    node_attempts: int = Field(
        default=4,
        ge=1,
        description="Attempts in a row without a new token, before a part fails; those at a silent "
        "decoder count half.",
    )
    ownership_ttl_s: float = Field(
        default=6.0,
        gt=1.0,
        description="A run whose scheduler is silent for this goes to another.",
    )
    failover_s: float = Field(
        default=60.0, gt=0, description="How long a run waits for another scheduler."
    )
    drain_s: float = Field(
        default=30.0,
        ge=0,
        description="How long a replica that has to leave may finish what it has begun.",
    )

    # Measurements
    equal_work: bool = Field(
        default=False,
        description="Accept `plato.decode_plan` and `plato.exact_lengths`, which make answers of "
        "different modes equal work.",
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @model_validator(mode="after")
    def _bounds(self) -> Settings:
        if self.max_decoders is not None and self.max_decoders < self.decoders:
            raise ValueError(
                f"max_decoders is {self.max_decoders}, less than decoders ({self.decoders})"
            )
        return self

    @field_validator("model")
    @classmethod
    def _strip(cls, value: str) -> str:
        return value.strip()

    @property
    def model_name(self) -> str:
        """What clients call the model."""
        return self.served_model_name or self.model

"""Processes, where they run, what they keep, and what happens when they die."""

from __future__ import annotations

from pydantic import Field

from plato.settings.values import Section


class DeploymentSettings(Section):
    """How many processes there are, and where Ray runs them."""

    title = "Deployments"

    decoders: int = Field(default=1, ge=1, description="Number of decoder replicas.")
    max_decoders: int | None = Field(
        default=None,
        ge=1,
        description="Autoscale the decoders by load, from `decoders` up to this number.",
    )
    decoder_tokens: int = Field(
        default=2048,
        ge=1,
        description="Autoscaling target: tokens to compute and decode per decoder.",
    )
    upscale_delay_s: float = Field(
        default=10.0, ge=0, description="Time over the target before decoders are added."
    )
    downscale_delay_s: float = Field(
        default=300.0, ge=0, description="Time under the target before decoders are removed."
    )
    decoder_cpus: float = Field(
        default=1.0, ge=0, description="CPUs that Ray reserves for each decoder."
    )
    decoder_gpus: float = Field(
        default=0.0,
        ge=0,
        description="GPUs that Ray reserves for each decoder; `tensor_parallel_size` GPUs if that "
        "is more than 1.",
    )
    decoder_threads: int | None = Field(
        default=None,
        ge=1,
        description="Threads of each decoder's engine; default: number of cores / `decoders`.",
    )
    planners: int = Field(default=1, ge=1, description="Number of planner replicas.")
    schedulers: int = Field(default=1, ge=1, description="Number of scheduler replicas.")
    ingresses: int = Field(default=1, ge=1, description="Number of ingress replicas.")
    service_cpus: float = Field(
        default=0.1,
        ge=0,
        description="CPUs that Ray reserves for each ingress, planner and scheduler.",
    )
    decoder_resource: str | None = Field(
        default=None,
        min_length=1,
        description="Custom Ray resource of which each decoder takes one unit. Decoders are "
        "scheduled only on Ray nodes that offer it.",
    )
    service_resource: str | None = Field(
        default=None,
        min_length=1,
        description="Custom Ray resource of which each ingress, planner and scheduler takes one "
        "unit.",
    )


class StoreSettings(Section):
    """The context store."""

    title = "Context store"

    redis_url: str | None = Field(
        default=None,
        description="URL of a shared Redis or Valkey, not of a Redis Cluster; default: an embedded "
        "Valkey.",
    )
    namespace: str | None = Field(
        default=None,
        min_length=1,
        description="First part of all keys in the store: applications with the same namespace and "
        "model adopt each other's runs; default: the name of the Serve application, or `plato`.",
    )
    redis_timeout_s: float = Field(
        default=0.5, gt=0, description="Timeout of a call to the store; without it runs go on."
    )
    redis_ttl_s: int = Field(default=3600, ge=1, description="Retention of runs in the store.")
    tenant_store_mb: int = Field(
        default=64,
        ge=1,
        description="Size of the stored runs of one API key, in MiB. Its oldest ended runs make "
        "room for new ones; if those in progress fill it, detached runs are refused with 429. The "
        "embedded store has 256 MiB.",
    )


class PlacementSettings(Section):
    """Which decoder a part gets."""

    title = "Placement"

    placement: str = Field(
        default="kv_aware",
        description="Placement policy: `kv_aware`, or the import path `package.module:name` of a "
        "callable that returns a `plato.scheduling.placement.Policy`.",
    )
    move_cost: float | None = Field(
        default=0.1,
        ge=0,
        description="Cost of transferring the KV of one token from another decoder, in computed "
        "tokens; null: never transfer, always recompute.",
    )


class RecoverySettings(Section):
    """Lost processes, and stopping."""

    title = "Recovery"

    silence_s: float = Field(
        default=1.8,
        gt=1.0,
        description="A process that is silent for this long is considered lost, and its work is "
        "retried elsewhere.",
    )
    node_attempts: int = Field(
        default=4,
        ge=1,
        description="Consecutive attempts without a new token before a node fails; an attempt on a "
        "silent decoder counts as half.",
    )
    ownership_ttl_s: float = Field(
        default=6.0,
        gt=1.0,
        description="Lease on a run; another scheduler takes the run over when it expires.",
    )
    failover_s: float = Field(
        default=60.0, gt=0, description="Maximum time that a run waits for another scheduler."
    )
    drain_s: float = Field(
        default=30.0,
        ge=0,
        description="Time that answers have to end when a server stops, or a replica is shut down.",
    )

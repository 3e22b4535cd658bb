"""What replicas reserve of a Ray cluster."""

from __future__ import annotations

from typing import Any

from plato.settings import Settings


def actor_options(cpus: float, resource: str | None, **others: float) -> dict[str, Any]:
    """Options of an actor that takes one unit of a custom resource, if there is one."""
    return {"num_cpus": cpus, **others, **({"resources": {resource: 1.0}} if resource else {})}


def decoder_resources(settings: Settings) -> dict[str, Any]:
    """Options of the decoder deployment: what each replica reserves.

    A model that is shared among GPUs has a placement group. It is a single bundle, so that all of
    them are in one machine: vLLM's processes there are children of the replica.
    """
    gpus = settings.decoder_gpus
    if settings.tensor_parallel_size > 1:
        gpus = float(settings.tensor_parallel_size)
    options = actor_options(settings.decoder_cpus, settings.decoder_resource, num_gpus=gpus)
    if settings.tensor_parallel_size == 1:
        return {"ray_actor_options": options}
    bundle = {"CPU": settings.decoder_cpus, "GPU": gpus, **options.get("resources", {})}
    return {
        "ray_actor_options": options,
        "placement_group_bundles": [bundle],
        "placement_group_strategy": "STRICT_PACK",
    }

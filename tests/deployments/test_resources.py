"""What decoders reserve of a cluster."""

from __future__ import annotations

from deployments.resources import decoder_resources
from plato.settings import Settings


def test_a_decoder_is_an_actor_with_its_share_of_gpus() -> None:
    settings = Settings(decoder_cpus=2, decoder_gpus=0.5, decoder_resource="decoder")
    assert decoder_resources(settings) == {
        "ray_actor_options": {"num_cpus": 2, "num_gpus": 0.5, "resources": {"decoder": 1}}
    }


def test_a_model_shared_among_gpus_has_a_placement_group_in_one_machine() -> None:
    settings = Settings(engine="vllm", tensor_parallel_size=4, decoder_resource="decoder")
    resources = decoder_resources(settings)
    assert resources["ray_actor_options"]["num_gpus"] == 4
    assert resources["placement_group_bundles"] == [{"CPU": 1, "GPU": 4, "decoder": 1}]
    assert resources["placement_group_strategy"] == "STRICT_PACK"

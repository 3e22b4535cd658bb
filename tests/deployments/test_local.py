"""What a Ray of our own is told to have."""

from __future__ import annotations

import pytest

from deployments.local import reserved_resources
from plato.settings import Settings


@pytest.mark.parametrize(
    ("given", "resources"),
    [
        ({}, {}),
        ({"decoder_resource": "decoder", "decoders": 2}, {"decoder": 2}),
        ({"decoder_resource": "decoder", "max_decoders": 5}, {"decoder": 5}),
        # An ingress, a scheduler, a planner; and the embedded store, where there is no other.
        ({"service_resource": "service"}, {"service": 4}),
        (
            {"service_resource": "service", "redis_url": "redis://there", "planners": 2},
            {"service": 4},
        ),
        ({"decoder_resource": "one", "service_resource": "one"}, {"one": 5}),
    ],
)
def test_it_has_a_place_for_everything_that_takes_a_custom_resource(
    given: dict[str, object], resources: dict[str, float]
) -> None:
    assert reserved_resources(Settings.model_validate(given)) == resources

"""What a Ray of our own is told to have, and where it listens."""

from __future__ import annotations

import os
import subprocess
import sys

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


NAME = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
ADDRESS = "192.0.2.7"
PROGRAM = f"""
import deployments.local
from ray._private import services
# Machines without a network have only a loopback address.
services.node_ip_address_from_perspective = lambda address: "{ADDRESS}"
print(services.get_node_ip_address())
"""


@pytest.mark.slow
@pytest.mark.parametrize(("given", "address"), [({}, "127.0.0.1"), ({NAME: "1"}, ADDRESS)])
def test_it_listens_on_loopback_unless_it_is_opened(given: dict[str, str], address: str) -> None:
    """Ray exports metrics at all addresses unless the machine's is loopback."""
    environment = {key: value for key, value in os.environ.items() if key != NAME}
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment | given,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert told.stdout.split() == [address]

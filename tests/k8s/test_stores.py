"""The commands of the Valkey pods, run with a real Valkey."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import redis

from plato.context.embedded import _binary
from plato.ports import free_port
from tests.end_to_end.waiting import wait_until
from tests.k8s.rendering import render
from tests.k8s.stores import PASSWORD, running


@pytest.mark.slow
@pytest.mark.parametrize(
    ("store", "policy"),
    [
        ("context-store", "volatile-ttl"),
        ("gcs-store", "noeviction"),
    ],
)
def test_a_store_wants_its_password_and_keeps_what_it_has(
    store: str, policy: str, tmp_path: Path
) -> None:
    port = free_port()
    with running(store, tmp_path, port) as (process, command):
        assert PASSWORD not in command
        assert "valkey-server" in command.split("\0")[0], "it gets the signals itself"
        with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        with redis.Redis(port=port, password=PASSWORD) as client:
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": policy}
            client.set("run", "kept", ex=1000)
            wait_until(
                lambda: client.info("persistence")["aof_pending_bio_fsync"] == 0, 5, "synced"
            )
        process.kill()
        process.wait()
    with running(store, tmp_path, port), redis.Redis(port=port, password=PASSWORD) as client:
        assert client.get("run") == b"kept"


def test_the_image_is_of_the_version_that_is_tested_here() -> None:
    told = subprocess.run([_binary(), "--version"], capture_output=True, text=True, check=True)
    tested = re.search(r"v=([\d.]+)", told.stdout)
    assert tested
    for store in render("gpu").of("StatefulSet"):
        (container,) = store["spec"]["template"]["spec"]["containers"]
        assert container["image"] == f"valkey/valkey:{tested[1]}"


@pytest.mark.parametrize("store", ["context-store", "gcs-store"])
def test_a_store_has_more_memory_than_it_fills(store: str) -> None:
    manifests = render("gpu")
    (container,) = manifests.named("StatefulSet", store)["spec"]["template"]["spec"]["containers"]
    (configuration,) = [
        one for one in manifests.of("ConfigMap") if f"{store}.conf" in one.get("data", {})
    ]
    lines = configuration["data"][f"{store}.conf"].splitlines()
    (line,) = [line for line in lines if line.startswith("maxmemory ")]
    most_mb = int(line.removeprefix("maxmemory ").removesuffix("mb"))
    limit = container["resources"]["limits"]["memory"]
    limit_mb = int(limit[:-2]) * {"Mi": 1, "Gi": 1024}[limit[-2:]]
    # Rewriting the log copies what is written meanwhile.
    assert limit_mb >= 2 * most_mb

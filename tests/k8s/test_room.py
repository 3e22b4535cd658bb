"""There is room for every replica, by the autoscaler's own reading of the groups."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _generate_available_node_types_from_ray_cr_spec as node_types,
)
from ray.autoscaler._private.kuberay.utils import parse_quantity

from tests.k8s.rendering import K8S, OVERLAYS, Manifests, render

Resources = dict[str, float]


@dataclass
class Node:
    """A Ray node that a group makes."""

    group: str
    free: Resources

    def take(self, wanted: Resources) -> bool:
        if any(self.free.get(name, 0.0) < amount - 1e-9 for name, amount in wanted.items()):
            return False
        for name, amount in wanted.items():
            self.free[name] -= amount
        return True


def nodes(manifests: Manifests, bound: str) -> list[Node]:
    """All nodes at the least or at the most, the head included."""
    made = []
    for group, kind in node_types(manifests.cluster).items():
        count = 1 if group == "headgroup" else kind[bound]
        made += [Node(group, dict(kind["resources"])) for _ in range(count)]
    return made


def replicas(manifests: Manifests, bound: str) -> Iterator[tuple[str, Resources]]:
    """Deployment and resources of every replica, at the least or at the most."""
    for deployment in manifests.application["deployments"]:
        options = deployment["ray_actor_options"]
        wanted = {"CPU": options["num_cpus"], **options.get("resources", {})}
        if options.get("num_gpus"):
            wanted["GPU"] = options["num_gpus"]
        scaling: dict[str, Any] = deployment.get("autoscaling_config", {})
        count = scaling[bound] if scaling else deployment["num_replicas"]
        yield from ((deployment["name"], wanted) for _ in range(count))


@pytest.mark.parametrize(
    ("workers", "bound"), [("min_workers", "min_replicas"), ("max_workers", "max_replicas")]
)
def test_every_replica_has_a_place_in_its_own_group(
    manifests: Manifests, workers: str, bound: str
) -> None:
    there = nodes(manifests, workers)
    decoders = 0
    for name, wanted in replicas(manifests, bound):
        group = "decoders" if name == "Decoder" else "services"
        decoders += name == "Decoder"
        able = {node.group for node in nodes(manifests, workers) if node.take(dict(wanted))}
        assert able == {group}, f"{name} goes to {able}"
        assert any(node.take(wanted) for node in there), f"no room for {name}"
    assert decoders == sum(node.group == "decoders" for node in there), "a pod for each decoder"


def test_pods_ask_kubernetes_for_the_gpus_that_they_offer_to_ray(manifests: Manifests) -> None:
    for name, group in manifests.ray_groups():
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        offered = group["rayStartParams"].get("num-gpus", "0")
        assert limits.get("nvidia.com/gpu", "0") == offered, name


def requested(manifests: Manifests, bound: str) -> tuple[int, int]:
    """Whole CPUs and GiB that all pods ask Kubernetes for, the autoscaler's container included."""
    asked = [manifests.cluster["autoscalerOptions"]["resources"]["requests"]]
    for pod in manifests.pods():
        group = manifests.groups.get(pod.component)
        count = group[bound] if group else pod.replicas
        (container,) = pod.spec["containers"]
        asked += [container["resources"]["requests"]] * count
    cpus = sum(float(parse_quantity(one["cpu"])) for one in asked)
    memory = sum(float(parse_quantity(one["memory"])) for one in asked)
    return math.ceil(cpus), math.ceil(memory / 2**30)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_readme_says_what_is_requested(overlay: str) -> None:
    manifests = render(overlay)
    table = (K8S / "README.md").read_text().partition("## Sizes")[2]
    (row,) = re.findall(rf"\| `{overlay}` \| ([^|]+) \|", table)
    least, most = (requested(manifests, bound) for bound in ("minReplicas", "maxReplicas"))
    (cpus,) = re.findall(r"(?:(\d+) to )?(\d+) CPUs", row)
    (memory,) = re.findall(r"(?:(\d+) to )?(\d+) GiB", row)
    assert (int(cpus[0] or cpus[1]), int(memory[0] or memory[1])) == least
    assert (int(cpus[1]), int(memory[1])) == most

"""What KubeRay's operator refuses, or would do in its own way, beyond what the schema says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from plato.settings import Settings
from tests.k8s.rendering import ROOT, Manifests

Rule = Callable[[Manifests], Iterator[str]]

LONGEST_NAME = 47
"""The operator makes names of clusters, services and pods of it."""
PROBES = ("livenessProbe", "readinessProbe", "startupProbe")


def name_fits(manifests: Manifests) -> Iterator[str]:
    name = manifests.service["metadata"]["name"]
    if len(name) > LONGEST_NAME:
        yield f"the name has {len(name)} characters, more than {LONGEST_NAME}"
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        yield f"{name!r} is no label by RFC 1035"


def autoscaler_restarts_nothing(manifests: Manifests) -> Iterator[str]:
    """Version 2 replaces pods; one that the kubelet restarts would be a node it has given up."""
    for name, group in manifests.ray_groups():
        policy = group["template"]["spec"].get("restartPolicy", "Never")
        if policy != "Never":
            yield f"{name}: restartPolicy is {policy}"


def autoscaler_version_is_said_once(manifests: Manifests) -> Iterator[str]:
    if manifests.cluster["autoscalerOptions"].get("version") != "v2":
        yield "the autoscaler is not version 2"
    if not manifests.cluster.get("enableInTreeAutoscaling"):
        yield "the autoscaler is off"
    for name, group in manifests.ray_groups():
        for container in group["template"]["spec"]["containers"]:
            if "RAY_enable_autoscaler_v2" in manifests.environment(container):
                yield f"{name}: the environment chooses the autoscaler, too"


def fault_tolerance_is_set_in_one_place(manifests: Manifests) -> Iterator[str]:
    cluster = manifests.cluster
    if not cluster.get("gcsFaultToleranceOptions"):
        yield "a head that dies takes the cluster with it"
    for name, group in manifests.ray_groups():
        for container in group["template"]["spec"]["containers"]:
            there = {"RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "REDIS_USERNAME"}
            for variable in sorted(there & manifests.environment(container).keys()):
                yield f"{name}: {variable} is in the environment"
        for parameter in ("redis-password", "redis-username"):
            if parameter in group["rayStartParams"]:
                yield f"{name}: {parameter} is in rayStartParams"
    for annotation in ("ray.io/ft-enabled", "ray.io/external-storage-namespace"):
        if annotation in manifests.service["metadata"].get("annotations", {}):
            yield f"the annotation {annotation}"


def replicas_are_bounded(manifests: Manifests) -> Iterator[str]:
    """Without bounds the operator takes some of its own: none at the least, 2^31 at the most."""
    for name, group in manifests.groups.items():
        bounds = [group.get(bound) for bound in ("minReplicas", "replicas", "maxReplicas")]
        if None in bounds:
            yield f"{name}: not all of minReplicas, replicas and maxReplicas are written"
        elif bounds != sorted(bounds):
            yield f"{name}: minReplicas, replicas and maxReplicas are {bounds}"


def probes_are_the_operators(manifests: Manifests) -> Iterator[str]:
    """Its own know of Serve's proxy and of the head's recovery."""
    for name, group in manifests.ray_groups():
        for container in group["template"]["spec"]["containers"]:
            yield from (f"{name}: {probe}" for probe in PROBES if probe in container)


def old_clusters_outlive_their_runs(manifests: Manifests) -> Iterator[str]:
    settings = Settings(**manifests.application["args"])
    longest = settings.patience_s + settings.run_deadline_s
    delay = manifests.service["spec"].get("rayClusterDeletionDelaySeconds", 60)
    if delay <= longest:
        yield f"old clusters go after {delay} s, and a run may take {longest:.0f} s"


def resources_are_said_once(manifests: Manifests) -> Iterator[str]:
    for name, group in manifests.ray_groups():
        said = {"num-cpus", "num-gpus", "memory", "resources"} & group["rayStartParams"].keys()
        if said and group.get("resources"):
            yield f"{name}: {sorted(said)} in rayStartParams, and resources"


def labels_are_not_parameters(manifests: Manifests) -> Iterator[str]:
    for name, group in manifests.ray_groups():
        if "labels" in group["rayStartParams"]:
            yield f"{name}: labels are in rayStartParams"


def ray_is_the_version_of_the_image(manifests: Manifests) -> Iterator[str]:
    """Tokens need 2.52; and the operator and the autoscaler behave by this version."""
    pinned = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    if manifests.cluster.get("rayVersion") != pinned[1]:
        yield f"rayVersion is {manifests.cluster.get('rayVersion')}, and the image's {pinned[1]}"


def names_of_services_are_the_operators(manifests: Manifests) -> Iterator[str]:
    """It refuses one for the head's; upgrades need to move its own."""
    head = manifests.cluster["headGroupSpec"].get("headService", {})
    if head.get("metadata", {}).get("name"):
        yield "headService has a name"


def upgrades_are_of_a_known_kind(manifests: Manifests) -> Iterator[str]:
    kind = manifests.service["spec"].get("upgradeStrategy", {}).get("type")
    if kind != "NewCluster":
        yield f"upgradeStrategy is {kind}; the delay of deletion is for NewCluster"


def groups_can_be_told_apart(manifests: Manifests) -> Iterator[str]:
    names = [group["groupName"] for group in manifests.cluster["workerGroupSpecs"]]
    if len(set(names)) < len(names):
        yield f"the groups are named {names}"


def parts_outlast_the_death_of_a_node(manifests: Manifests) -> Iterator[str]:
    """Until Ray knows of it, decoders that were sending something there answer nobody."""
    settings = Settings(**manifests.application["args"])
    (head,) = manifests.cluster["headGroupSpec"]["template"]["spec"]["containers"]
    environment = manifests.environment(head)
    period, timeout, failures = (
        float(environment.get(f"RAY_health_check_{name}") or default)
        for name, default in (
            *(("period_ms", 3_000), ("timeout_ms", 10_000)),
            ("failure_threshold", 5),
        )
    )
    noticed_s = failures * (period + timeout) / 1000
    patience_s = settings.node_attempts * settings.silence_s
    if patience_s <= noticed_s:
        yield f"Ray notices after {noticed_s:.1f} s, and parts fail after {patience_s:.1f} s"


def the_head_has_no_work(manifests: Manifests) -> Iterator[str]:
    if manifests.cluster["headGroupSpec"]["rayStartParams"].get("num-cpus") != "0":
        yield "the head offers CPUs"

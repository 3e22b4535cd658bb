"""What manifests say of each other: references, selectors, ports, secrets, policies."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from plato.settings import Settings
from tests.end_to_end.nodes import NODE_HEALTH
from tests.k8s.reachability import Network, Peer, selects
from tests.k8s.rendering import K8S, Manifests, kubectl, render

NAMESPACE = "plato"
RAY = {"head", "services", "decoders"}
STORES = {"context-store", "gcs-store"}
UPSTREAM_NAMESPACE, UPSTREAM_PORT = "inference", 8000
SERVE, DASHBOARD, VALKEY, GCS, METRICS = 8000, 8265, 6379, 6379, 8080


def secrets(node: Any) -> Iterator[tuple[str, str]]:
    """Name and key of every Secret that something refers to."""
    if isinstance(node, dict):
        if "secretKeyRef" in node:
            yield node["secretKeyRef"]["name"], node["secretKeyRef"]["key"]
        for value in node.values():
            yield from secrets(value)
    elif isinstance(node, list):
        for value in node:
            yield from secrets(value)


def test_no_secret_is_in_the_manifests(manifests: Manifests) -> None:
    assert manifests.of("Secret") == []
    for pod in manifests.pods():
        for container in pod.containers:
            for name, value in manifests.environment(container).items():
                if re.search("PASSWORD|TOKEN|SECRET|_AUTH|API_KEY", name):
                    assert value is None, f"{pod.owner}: {name} is written out"
    assert not re.search(r"requirepass (?!\$)", str(manifests.documents))


def test_the_commands_of_the_readme_make_every_secret(manifests: Manifests) -> None:
    """They are run as they stand, but for a cluster."""
    readme = (K8S / "README.md").read_text()
    commands = re.findall(r"^kubectl( -n plato create secret generic .+)$", readme, re.MULTILINE)
    made: dict[tuple[str, str], str] = {}
    for command in commands:
        printed = subprocess.run(
            ["sh", "-c", f"{kubectl()}{command} --dry-run=client -o json"],
            env={"PATH": os.environ["PATH"], "HF_TOKEN": "a-token", "UPSTREAM_KEY": "a-key"},
            capture_output=True,
            check=True,
        )
        secret = json.loads(printed.stdout)
        assert secret["metadata"]["namespace"] == NAMESPACE
        for key, value in secret["data"].items():
            made[secret["metadata"]["name"], key] = base64.b64decode(value).decode()
    assert set(secrets(manifests.documents)) <= made.keys()
    # One becomes part of a URL, and both a line of a configuration.
    for store in STORES:
        assert re.fullmatch("[0-9a-f]{64}", made[store, "password"])


def test_what_pods_refer_to_is_there(manifests: Manifests) -> None:
    for pod in manifests.pods():
        volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", [])}
        for volume in volumes.values():
            if "configMap" in volume:
                manifests.named("ConfigMap", volume["configMap"]["name"])
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                manifests.named("PersistentVolumeClaim", claim)
        for container in pod.containers:
            # Raises where a ConfigMap is missing.
            manifests.environment(container)
            mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
            assert mounts <= {*volumes, "data"}, pod.owner


def test_variables_are_set_before_they_are_used(manifests: Manifests) -> None:
    used = 0
    for pod in manifests.pods():
        for container in pod.containers:
            before: set[str] = set()
            for variable in container.get("env", []):
                for name in re.findall(r"\$\((\w+)\)", variable.get("value", "")):
                    used += 1
                    assert name in before, f"{pod.owner}: $({name}) stays as it is written"
                before.add(variable["name"])
    assert used


def test_all_pods_of_ray_know_model_and_store(manifests: Manifests) -> None:
    """The application is built on whichever node Ray chooses."""
    known = []
    for _, group in manifests.ray_groups():
        (container,) = group["template"]["spec"]["containers"]
        environment = manifests.environment(container)
        known.append({name: environment.get(name) for name in ("PLATO_MODEL", "PLATO_REDIS_URL")})
    assert all(one == known[0] for one in known)
    assert re.fullmatch(
        r"redis://:\$\(CONTEXT_STORE_PASSWORD\)@context-store:6379/0",
        known[0]["PLATO_REDIS_URL"] or "",
    )


def test_nodes_die_as_in_the_test_that_kills_one(manifests: Manifests) -> None:
    (head,) = manifests.cluster["headGroupSpec"]["template"]["spec"]["containers"]
    environment = manifests.environment(head)
    health = {name: environment[name] for name in environment if "health_check" in name}
    assert health == NODE_HEALTH


def test_stores_are_reached_by_the_names_of_their_services(manifests: Manifests) -> None:
    assert manifests.cluster["gcsFaultToleranceOptions"]["redisAddress"] == "gcs-store:6379"
    for name in STORES:
        service = manifests.named("Service", name)["spec"]
        ((pod),) = [pod for pod in manifests.pods() if selects_all(service["selector"], pod.labels)]
        assert pod.component == name
        (port,) = service["ports"]
        ports = {one["name"]: one["containerPort"] for one in pod.containers[0]["ports"]}
        assert (port["port"], ports[port["targetPort"]]) == (VALKEY, VALKEY)


def selects_all(selector: dict[str, str], labels: Any) -> bool:
    return selects({"matchLabels": selector}, labels)


def test_the_port_of_serve_is_that_of_the_pods(manifests: Manifests) -> None:
    assert manifests.serve_config["http_options"] == {"host": "0.0.0.0", "port": SERVE}
    for group in manifests.groups.values():
        (container,) = group["template"]["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports == {"serve": SERVE, "metrics": METRICS}


def test_budgets_allow_a_drain_and_count_for_pods_of_ray(manifests: Manifests) -> None:
    """Of pods without a controller that scales, only `minAvailable` as a number is looked at."""
    pods = manifests.pods()
    for budget in manifests.of("PodDisruptionBudget"):
        spec = budget["spec"]
        assert spec.keys() == {"minAvailable", "selector"}
        (pod,) = [pod for pod in pods if selects(spec["selector"], pod.labels)]
        assert type(spec["minAvailable"]) is int
        assert spec["minAvailable"] <= pod.replicas
        assert pod.component in RAY


def test_the_budgets_of_the_gpu_overlay_leave_room_to_drain() -> None:
    manifests = render("gpu")
    budgets = manifests.of("PodDisruptionBudget")
    assert len(budgets) == 2
    for budget in budgets:
        (pod,) = [p for p in manifests.pods() if selects(budget["spec"]["selector"], p.labels)]
        assert budget["spec"]["minAvailable"] < pod.replicas


def test_every_pod_of_ray_is_scraped() -> None:
    manifests = render("gpu")
    (monitor,) = manifests.of("PodMonitor")
    scraped = [p for p in manifests.pods() if selects(monitor["spec"]["selector"], p.labels)]
    assert {pod.component for pod in scraped} == RAY
    ports = {port["name"] for pod in scraped for port in pod.spec["containers"][0]["ports"]}
    assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} <= ports
    assert all("metrics" in str(pod.spec["containers"][0]["ports"]) for pod in scraped)


def test_images_have_a_version(manifests: Manifests) -> None:
    images = {container["image"] for pod in manifests.pods() for container in pod.containers}
    assert len(images) == 2, "ours, and Valkey's"
    for image in images:
        assert re.search(r":\d+\.\d+\.\d+", image), image


def test_containers_have_no_rights_that_they_do_not_need(manifests: Manifests) -> None:
    for pod in manifests.pods():
        assert pod.spec["securityContext"]["runAsNonRoot"] is True
        assert pod.spec["securityContext"]["runAsUser"] > 0
        assert pod.spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        # The autoscaler, beside the head, talks to the API server; nobody else does.
        assert pod.spec.get("automountServiceAccountToken", True) == (pod.component == "head")
        for container in pod.containers:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]


def test_only_the_containers_that_fetch_the_model_can_write_to_its_volume(
    manifests: Manifests,
) -> None:
    for group in manifests.groups.values():
        spec = group["template"]["spec"]
        (fetching,), (serving,) = spec["initContainers"], spec["containers"]
        assert fetching["command"] == ["python", "-m", "plato.models"]
        assert fetching["volumeMounts"] == [{"name": "models", "mountPath": "/models"}]
        assert serving["volumeMounts"][0]["readOnly"] is True
        environment = manifests.environment(serving)
        for name in ("PLATO_CACHE_DIR", "HF_HOME"):
            assert (environment[name] or "").startswith("/models/")


@pytest.mark.parametrize("port", [GCS, 10_002, 19_999])
@pytest.mark.parametrize("source", sorted(RAY))
@pytest.mark.parametrize("target", sorted(RAY))
def test_the_nodes_of_ray_reach_each_other(source: str, target: str, port: int) -> None:
    network, pods = _network()
    assert network.allows(pods[source], pods[target], port)


@pytest.mark.parametrize("store", sorted(STORES))
@pytest.mark.parametrize("source", sorted(RAY | STORES))
def test_stores_are_reached_only_by_those_who_use_them(source: str, store: str) -> None:
    users = {"context-store": {"services", "decoders"}, "gcs-store": {"head"}}
    network, pods = _network()
    assert network.allows(pods[source], pods[store], VALKEY) == (source in users[store])


@pytest.mark.parametrize(
    ("namespace", "target", "port", "allowed"),
    [
        ("kuberay-system", "head", DASHBOARD, True),
        ("kuberay-system", "services", SERVE, True),
        ("kuberay-system", "context-store", VALKEY, False),
        ("ingress-nginx", "services", SERVE, True),
        ("ingress-nginx", "head", DASHBOARD, False),
        ("monitoring", "decoders", METRICS, True),
        ("monitoring", "services", SERVE, False),
        ("default", "head", DASHBOARD, False),
        ("default", "services", SERVE, False),
        ("default", "gcs-store", VALKEY, False),
        (NAMESPACE, "services", SERVE, True),
        (NAMESPACE, "head", DASHBOARD, False),
        (NAMESPACE, "context-store", VALKEY, False),
    ],
)
def test_others_reach_what_is_theirs(namespace: str, target: str, port: int, allowed: bool) -> None:
    network, pods = _network()
    stranger = Peer({"app": "anything"}, namespace)
    assert network.allows(stranger, pods[target], port) == allowed


def test_stores_reach_nobody_and_workers_only_what_they_need() -> None:
    network, pods = _network()
    outside = Peer({}, "elsewhere")
    for store in STORES:
        assert not network.allows(pods[store], outside, 443)
    assert network.allows(pods["decoders"], outside, 443), "the model hub"
    assert not network.allows(pods["decoders"], outside, 80)


def test_plato_reaches_the_servers_that_decode_and_its_stores_do_not() -> None:
    network, pods = _network("upstream")
    server = Peer({"app": "vllm"}, UPSTREAM_NAMESPACE)
    reaching = {name for name, pod in pods.items() if network.allows(pod, server, UPSTREAM_PORT)}
    assert reaching == {"services", "decoders"}
    assert not network.allows(pods["services"], server, 22)
    assert not network.allows(pods["services"], Peer({}, "elsewhere"), UPSTREAM_PORT)


def test_the_servers_that_decode_are_where_the_policy_lets_plato_go() -> None:
    settings = Settings(**render("upstream").application["args"])
    assert {(url.host.split(".")[1], url.port) for url in map(httpx.URL, settings.upstreams)} == {
        (UPSTREAM_NAMESPACE, UPSTREAM_PORT)
    }


def test_all_pods_of_ray_have_the_key_of_the_servers_and_none_has_a_gpu() -> None:
    manifests = render("upstream")
    for name, group in manifests.ray_groups():
        (container,) = group["template"]["spec"]["containers"]
        (key,) = [one for one in container["env"] if one["name"] == "PLATO_UPSTREAM_API_KEY"]
        assert key["valueFrom"]["secretKeyRef"]["optional"] is True, name
    assert "nvidia" not in str(manifests.documents)
    assert "num-gpus" not in str(manifests.documents)


def _network(overlay: str = "gpu") -> tuple[Network, dict[str, Peer]]:
    manifests = render(overlay)
    pods = {pod.component: Peer(pod.labels, NAMESPACE) for pod in manifests.pods()}
    assert pods.keys() == RAY | STORES
    return Network(NAMESPACE, manifests.of("NetworkPolicy")), pods


def test_everything_is_in_one_namespace(manifests: Manifests) -> None:
    for document in manifests.documents:
        if document["kind"] == "Namespace":
            assert document["metadata"]["name"] == NAMESPACE
        else:
            assert document["metadata"]["namespace"] == NAMESPACE, document["metadata"]["name"]

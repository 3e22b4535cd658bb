"""Every rendered manifest against its schema; unknown fields are refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from jsonschema import Draft202012Validator

from tests.k8s.crd import complaints, validator
from tests.k8s.rendering import OVERLAYS, ROOT, Manifests, render, render_with_component

KUBERNETES = "1.37"
RAY_SERVICES = ROOT.parent / "shared" / "schemas" / "ray.io_rayservices.yaml"
CUSTOM = {"RayService", "PodMonitor"}

STRING = {"type": "string"}
RELABELING = {
    "type": "object",
    "additionalProperties": False,
    "required": ["sourceLabels", "targetLabel"],
    "properties": {"sourceLabels": {"type": "array", "items": STRING}, "targetLabel": STRING},
}
ENDPOINT = {
    "type": "object",
    "additionalProperties": False,
    "required": ["port"],
    "properties": {
        "port": STRING,
        "interval": {"type": "string", "pattern": r"^\d+(ms|s|m|h)$"},
        "relabelings": {"type": "array", "items": RELABELING},
    },
}
POD_MONITOR = {
    # No schema of the Prometheus operator is at hand: these are the fields that are used here.
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "monitoring.coreos.com/v1"},
        "kind": {"const": "PodMonitor"},
        "metadata": {"type": "object", "required": ["name", "namespace"]},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["selector", "podMetricsEndpoints"],
            "properties": {
                "selector": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "matchLabels": {"type": "object"},
                        "matchExpressions": {"type": "array"},
                    },
                },
                "podMetricsEndpoints": {"type": "array", "minItems": 1, "items": ENDPOINT},
            },
        },
    },
}


@pytest.fixture(scope="module")
def ray_services() -> Draft202012Validator:
    if not RAY_SERVICES.exists():
        pytest.skip(f"the operator's CustomResourceDefinition is not at {RAY_SERVICES}")
    return validator(RAY_SERVICES, "v1")


def check_core(documents: list[dict[str, Any]]) -> None:
    """Validate documents of Kubernetes' own kinds. Raises at the first that is wrong."""
    for document in documents:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_kubernetes_own_kinds_are_valid(manifests: Manifests) -> None:
    own = [document for document in manifests.documents if document["kind"] not in CUSTOM]
    assert {document["kind"] for document in own} >= {
        *("Namespace", "ConfigMap", "Service", "StatefulSet", "PersistentVolumeClaim"),
        "NetworkPolicy",
    }
    check_core(own)


def test_the_pods_of_the_ray_service_are_valid_pods(manifests: Manifests) -> None:
    check_core(
        [
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "any"}, "spec": pod.spec}
            for pod in manifests.pods()
        ]
    )


def test_the_ray_service_is_valid(manifests: Manifests, ray_services: Draft202012Validator) -> None:
    assert complaints(ray_services, manifests.service) == []


def test_the_pod_monitor_is_valid() -> None:
    (monitor,) = render("gpu").of("PodMonitor")
    assert complaints(Draft202012Validator(POD_MONITOR), monitor) == []


@pytest.mark.parametrize("component", ["ingress", "load-balancer", "tracing"])
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_components_add_is_valid(
    overlay: str, component: str, tmp_path: Path, ray_services: Draft202012Validator
) -> None:
    manifests = render_with_component(overlay, component, tmp_path)
    check_core([document for document in manifests.documents if document["kind"] not in CUSTOM])
    assert complaints(ray_services, manifests.service) == []


def _unknown(service: Any) -> None:
    service["spec"]["rayClusterConfig"]["headGroupSpec"]["replicas"] = 1


def _deep(service: Any) -> None:
    group = service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    group["template"]["spec"]["containers"][0]["imagePolicy"] = "Always"


def _mistyped(service: Any) -> None:
    service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["rayStartParams"]["num-cpus"] = 2


def _missing(service: Any) -> None:
    del service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]


def _not_one_of(service: Any) -> None:
    service["spec"]["rayClusterConfig"]["autoscalerOptions"]["version"] = "v3"


@pytest.mark.parametrize("spoil", [_unknown, _deep, _mistyped, _missing, _not_one_of])
def test_what_is_wrong_with_a_ray_service_is_found(
    spoil: Callable[[Any], None], ray_services: Draft202012Validator
) -> None:
    service = render("gpu").service
    spoilt = copy.deepcopy(service)
    spoil(spoilt)
    assert len(complaints(ray_services, spoilt)) == 1


def test_an_unknown_field_of_kubernetes_own_kinds_is_found() -> None:
    (document, *_) = render("gpu").of("StatefulSet")
    document["spec"]["template"]["spec"]["containers"][0]["imagePolicy"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError, match="imagePolicy"):
        check_core([document])

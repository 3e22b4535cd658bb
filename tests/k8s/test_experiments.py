"""The experiment beside the service: a job with the cluster of an overlay, in its own namespace."""

from __future__ import annotations

import copy
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from benchmarks.cluster import parse
from plato.settings import read_settings
from tests.k8s.crd import complaints, strict
from tests.k8s.dockerfile import read
from tests.k8s.rendering import K8S, Document, kustomize, render
from tests.k8s.test_schemas import RAY_SERVICES, check_core

OVERLAY = "gpu-autoscale"
NAMESPACE = "plato-experiments"
STRING, INTEGER = {"type": "string"}, {"type": "integer"}


@cache
def _documents() -> list[Document]:
    return kustomize(K8S / "experiments")


def job() -> Document:
    (found,) = [one for one in _documents() if one["kind"] == "RayJob"]
    return copy.deepcopy(found)


def ray_jobs() -> Draft202012Validator:
    """The fields of a RayJob that are used here; its cluster is that of a RayService."""
    if not RAY_SERVICES.exists():
        pytest.skip(f"the operator's CustomResourceDefinition is not at {RAY_SERVICES}")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    versions = yaml.load(RAY_SERVICES.read_text(), Loader=loader)["spec"]["versions"]
    (service,) = [one["schema"]["openAPIV3Schema"] for one in versions if one["name"] == "v1"]
    spec: dict[str, Any] = {
        "submissionMode": {"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        "entrypoint": STRING,
        "entrypointResources": STRING,
        "backoffLimit": INTEGER,
        "activeDeadlineSeconds": INTEGER,
        "shutdownAfterJobFinishes": {"type": "boolean"},
        "ttlSecondsAfterFinished": INTEGER,
        "rayClusterSpec": service["properties"]["spec"]["properties"]["rayClusterConfig"],
    }
    return Draft202012Validator(
        strict(
            {
                "type": "object",
                "properties": {
                    "apiVersion": {"const": "ray.io/v1"},
                    "kind": {"const": "RayJob"},
                    "metadata": {
                        "type": "object",
                        "properties": {"name": STRING, "namespace": {"const": NAMESPACE}},
                    },
                    "spec": {"type": "object", "properties": spec},
                },
            }
        )
    )


def test_the_job_is_valid_and_unknown_fields_are_found() -> None:
    validator, wrong = ray_jobs(), job()
    assert complaints(validator, wrong) == []
    wrong["spec"]["rayClusterSpec"]["headGroupSpec"]["replicas"] = 1
    wrong["spec"]["retries"] = 3
    assert len(complaints(validator, wrong)) == 2


def test_everything_else_is_valid_and_in_a_namespace_of_its_own() -> None:
    others = [one for one in _documents() if one["kind"] != "RayJob"]
    assert {one["kind"] for one in others} == {
        *("Namespace", "ConfigMap", "Service", "StatefulSet", "PersistentVolumeClaim"),
        "NetworkPolicy",
    }
    check_core(others)
    for one in _documents():
        name = "name" if one["kind"] == "Namespace" else "namespace"
        assert one["metadata"][name] == NAMESPACE


def test_its_cluster_is_that_of_the_service_with_the_benchmarks_in_reach() -> None:
    found = job()["spec"]["rayClusterSpec"]
    (environment,) = [
        one["data"]
        for one in _documents()
        if one["kind"] == "ConfigMap" and "PYTHONPATH" in one["data"]
    ]
    (copied,) = [step for step in read()[0].of("COPY") if step.words[0] == "benchmarks"]
    assert str(Path(copied.words[-1]).parent) == environment["PYTHONPATH"]
    names = {
        source["configMapRef"]["name"]
        for group in (found["headGroupSpec"], *found["workerGroupSpecs"])
        for container in group["template"]["spec"]["containers"]
        for source in container.pop("envFrom")
    }
    assert names <= {one["metadata"]["name"] for one in _documents() if one["kind"] == "ConfigMap"}
    service = render(OVERLAY).cluster
    for group in (service["headGroupSpec"], *service["workerGroupSpecs"]):
        for container in group["template"]["spec"]["containers"]:
            del container["envFrom"]
    for cluster in (found, service):
        for group in cluster["workerGroupSpecs"]:
            for container in group["template"]["spec"]["initContainers"]:
                del container["envFrom"]
    assert found == service


def test_its_command_is_one_and_its_decoders_fit_into_the_cluster() -> None:
    python, flag, module, *given = shlex.split(job()["spec"]["entrypoint"])
    assert (python, flag, module) == ("python", "-m", "benchmarks.cluster")
    options = parse(given)
    assert options.address == "auto"
    read_settings(dict(setting.split("=", 1) for setting in options.settings))
    groups = job()["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    (decoders,) = [group for group in groups if group["groupName"] == "decoders"]
    assert max(options.decoders) <= decoders["maxReplicas"]

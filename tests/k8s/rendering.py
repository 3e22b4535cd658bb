"""What `kubectl apply -k` would send: manifests rendered by kubectl's own kustomize."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
OVERLAYS = sorted(folder.name for folder in (K8S / "overlays").iterdir())

Document = dict[str, Any]


def kubectl() -> str:
    """The kubectl beside this Python, which the test extra installs, else that of the path."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which("kubectl", path=path)
    assert found, "kubectl is missing; `make` installs it into .venv"
    return found


def kustomize(folder: Path) -> list[Document]:
    """The documents of a kustomization."""
    rendered = subprocess.run(
        [kubectl(), "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert rendered.returncode == 0, rendered.stderr
    assert rendered.stderr == "", "kustomize warns of what it will drop"
    return [document for document in yaml.safe_load_all(rendered.stdout) if document]


@dataclass(frozen=True)
class PodTemplate:
    """Pods that the manifests make, whoever makes them."""

    owner: str
    labels: Mapping[str, str]
    spec: Document
    replicas: int

    @property
    def component(self) -> str:
        return self.labels["app.kubernetes.io/component"]

    @property
    def containers(self) -> list[Document]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


@dataclass(frozen=True)
class Manifests:
    """A rendered overlay."""

    documents: list[Document]

    def of(self, kind: str) -> list[Document]:
        return [document for document in self.documents if document["kind"] == kind]

    def named(self, kind: str, name: str) -> Document:
        (found,) = [one for one in self.of(kind) if one["metadata"]["name"] == name]
        return found

    @property
    def service(self) -> Document:
        (found,) = self.of("RayService")
        return found

    @property
    def cluster(self) -> Document:
        spec: Document = self.service["spec"]["rayClusterConfig"]
        return spec

    @property
    def groups(self) -> dict[str, Document]:
        return {group["groupName"]: group for group in self.cluster["workerGroupSpecs"]}

    @property
    def serve_config(self) -> Document:
        config: Document = yaml.safe_load(self.service["spec"]["serveConfigV2"])
        return config

    @property
    def application(self) -> Document:
        (application,) = self.serve_config["applications"]
        return dict(application)

    def ray_groups(self) -> Iterator[tuple[str, Document]]:
        """The head's group and the workers', each with a name for messages."""
        yield "head", self.cluster["headGroupSpec"]
        yield from self.groups.items()

    def pods(self) -> list[PodTemplate]:
        made = [
            PodTemplate(
                f"RayService group {name}",
                group["template"]["metadata"]["labels"],
                group["template"]["spec"],
                group.get("minReplicas", 1),
            )
            for name, group in self.ray_groups()
        ]
        for document in self.of("StatefulSet"):
            template = document["spec"]["template"]
            name = f"StatefulSet {document['metadata']['name']}"
            labels = template["metadata"]["labels"]
            made.append(PodTemplate(name, labels, template["spec"], document["spec"]["replicas"]))
        return made

    def environment(self, container: Document) -> dict[str, str | None]:
        """Names of what a container has in its environment; values where they are literal."""
        found: dict[str, str | None] = {}
        for source in container.get("envFrom", []):
            found.update(self.named("ConfigMap", source["configMapRef"]["name"])["data"])
        for variable in container.get("env", []):
            found[variable["name"]] = variable.get("value")
        return found


@cache
def _rendered(overlay: str) -> list[Document]:
    return kustomize(K8S / "overlays" / overlay)


def render(overlay: str) -> Manifests:
    """A fresh copy of an overlay's manifests, to look at or to break."""
    return Manifests(copy.deepcopy(_rendered(overlay)))


def render_with_component(overlay: str, component: str, scratch: Path) -> Manifests:
    """An overlay with a component that it does not have by itself."""
    folder = os.path.relpath(K8S, scratch)
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [f"{folder}/overlays/{overlay}"],
        "components": [f"{folder}/components/{component}"],
    }
    (scratch / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return Manifests(kustomize(scratch))

"""The Dockerfile, without Docker: what it copies is there, and what it runs are our scripts."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from plato.version import __version__
from tests.k8s.dockerfile import DOCKERFILE, read
from tests.k8s.rendering import K8S, ROOT, Manifests

SCRIPTS = sorted((K8S / "image").glob("*.sh"))


def test_every_step_is_one_of_the_scripts_and_every_script_a_step() -> None:
    run = [step.words[0] for stage in read() for step in stage.of("RUN")]
    names = [re.fullmatch(r"(?:/src/)?k8s/image/(\w+\.sh)", step) for step in run]
    assert all(names), run
    assert {name[1] for name in names if name} == {script.name for script in SCRIPTS}
    assert all(os.access(script, os.X_OK) for script in SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_the_scripts_are_shell_and_stop_at_the_first_error(script: Path) -> None:
    subprocess.run(["sh", "-n", script], check=True)
    assert "\nset -eu\n" in script.read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["packages.sh", "test"], "build or runtime"),
        (["install.sh", "/x", "rocm"], "cpu, cuda or vllm"),
    ],
)
def test_what_there_is_not_is_refused(arguments: list[str], told: str) -> None:
    script, *rest = arguments
    refused = subprocess.run([K8S / "image" / script, *rest], capture_output=True, text=True)
    assert refused.returncode == 2
    assert told in refused.stderr


def test_it_copies_what_is_there_and_what_is_not_ignored() -> None:
    ignored = (K8S / "image" / "Dockerfile.dockerignore").read_text().splitlines()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    copied = set()
    for stage in read():
        for step in stage.of("COPY"):
            if not step.words[0].startswith("--from="):
                copied |= set(step.words[:-1])
    assert copied == kept
    assert all((ROOT / name).exists() for name in copied)


def test_all_packages_of_the_project_are_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found = project["tool"]["setuptools"]["packages"]["find"]["include"]
    copied = {step.words[0] for step in read()[0].of("COPY")}
    assert {name.removesuffix("*") for name in found} <= copied


def test_the_last_stage_has_only_what_it_runs_and_its_user_is_that_of_the_pods(
    manifests: Manifests,
) -> None:
    *_, last = read()
    assert last.name == ""
    (user,) = last.of("USER")
    for _, group in manifests.ray_groups():
        context = group["template"]["spec"]["securityContext"]
        assert user.arguments == f"{context['runAsUser']}:{context['runAsGroup']}"
    assert not [step for step in last.of("RUN") if "install.sh" in step.arguments]
    assert [step.words[0] for step in last.of("COPY")] == ["k8s/image", "--from=build"]


def test_the_tags_of_the_manifests_are_the_projects_version(manifests: Manifests) -> None:
    gpu = any("num-gpus" in group["rayStartParams"] for group in manifests.groups.values())
    vllm = manifests.application["args"].get("engine") == "vllm"
    variant = "vllm" if vllm else "cuda" if gpu else "cpu"
    for _, group in manifests.ray_groups():
        for container in group["template"]["spec"]["containers"]:
            assert container["image"].endswith(f"plato:{__version__}-{variant}")
    assert f"plato:{__version__}-cpu" in DOCKERFILE.read_text()

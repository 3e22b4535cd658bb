"""The Dockerfile without Docker: its instructions, in order, in a bare Debian.

    python -m tests.k8s.rehearsal FOLDER [--variant cuda] [--lend PATH ...] [--ask QUESTION]

As root, with `debootstrap`. Every stage begins with a Debian of its own below FOLDER, and the last
one is left as FOLDER/image. A machine that reaches package indexes in its own way lends the stages
what they need for it: name resolution, pip's variables and certificates always, other files and
folders if they are named. They can be read while the steps run, and are not in what is left.

With a question the image is then used as a pod uses it (tests/k8s/pod.py), as its user and with the
models in a volume that only the fetching of the model can write to, and answers.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.k8s.dockerfile import Instruction, Stage, read
from tests.k8s.pod import Pod, stores
from tests.k8s.rendering import ROOT

LENT = ["/etc/resolv.conf"]
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
LENT_VARIABLES = ("PIP_", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "NO_PROXY")
DEVICES = ["/proc", "/dev", "/dev/shm"]
LENT_CERTIFICATES = "/tmp/certificates.pem"
"""A copy, beside the stage's own: installing `ca-certificates` rewrites those."""


def bare_debian(folder: Path, release: str) -> None:
    """A Debian with nothing but what every Debian has."""
    subprocess.run(["debootstrap", "--variant=minbase", release, str(folder)], check=True)


@contextmanager
def mounted(root: Path, paths: list[str]) -> Iterator[None]:
    """Devices, and this machine's files and folders, at the same place below `root`."""
    made: list[Path] = []
    certificates = root / LENT_CERTIFICATES[1:]
    shutil.copy(CERTIFICATES, certificates)
    try:
        for path in map(Path, [*DEVICES, *LENT, *paths]):
            target = root / path.relative_to("/")
            if path.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.touch()
            subprocess.run(["mount", "--bind", str(path), str(target)], check=True)
            made.append(target)
            if str(path) not in DEVICES:
                # Steps run as root, and must not write to this machine's own files.
                subprocess.run(["mount", "-o", "remount,bind,ro", str(target)], check=True)
        yield
    finally:
        for target in reversed(made):
            subprocess.run(["umount", str(target)], check=True)
        certificates.unlink()


class Machine:
    """One stage as it is being made."""

    def __init__(self, root: Path, variables: dict[str, str]) -> None:
        self.root = root
        self.folder = "/"
        self.user = "0:0"
        self.variables = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        self.arguments = variables

    @property
    def inside(self) -> list[str]:
        """What runs a command in here, as the stage's user."""
        # By its path: the stage's PATH would be searched for it.
        chroot = shutil.which("chroot") or "/usr/sbin/chroot"
        return [chroot, f"--userspec={self.user}", str(self.root)]

    @property
    def environment(self) -> dict[str, str]:
        """The stage's variables, and those that are lent to it."""
        lent = {key: value for key, value in os.environ.items() if key.startswith(LENT_VARIABLES)}
        home = {"HOME": "/root" if self.user == "0:0" else "/home/plato"}
        return {**lent, "PIP_CERT": LENT_CERTIFICATES, **home, **self.arguments, **self.variables}

    def run(self, command: str) -> None:
        """Run a command as the stage's user, in its folder, with its variables."""
        script = f"cd {self.folder} && exec {command}"
        subprocess.run([*self.inside, "/bin/sh", "-c", script], env=self.environment, check=True)

    def follow(self, instruction: Instruction, stages: dict[str, Path]) -> None:
        """One instruction."""
        print(f"{instruction.name} {instruction.arguments}", flush=True)
        words = instruction.words
        if instruction.name == "RUN":
            self.run(instruction.arguments)
        elif instruction.name == "ENV":
            name, _, value = instruction.arguments.partition("=")
            self.variables[name] = value
        elif instruction.name == "ARG":
            name, _, value = instruction.arguments.partition("=")
            self.arguments.setdefault(name, value)
        elif instruction.name == "WORKDIR":
            self.folder = words[0]
            (self.root / self.folder[1:]).mkdir(parents=True, exist_ok=True)
        elif instruction.name == "USER":
            self.user = words[0]
        elif instruction.name == "COPY":
            source = ROOT
            if words[0].startswith("--from="):
                source = stages[words.pop(0).removeprefix("--from=")]
            *names, target = words
            for name in names:
                self._copy(source / name.lstrip("/"), self.root / target[1:], target)

    def _copy(self, source: Path, target: Path, as_written: str) -> None:
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, target, dirs_exist_ok=True, symlinks=True, ignore=ignore)
        else:
            target = target / source.name if as_written.endswith("/") else target
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)


def make(
    stage: Stage, root: Path, arguments: dict[str, str], lent: list[str], made: dict[str, Path]
) -> Machine:
    """Make one stage."""
    release = stage.base.removeprefix("debian:").removesuffix("-slim")
    print(f"FROM {stage.base}: debootstrap {release}", flush=True)
    bare_debian(root, release)
    machine = Machine(root, dict(arguments))
    with mounted(root, lent):
        for instruction in stage.instructions:
            machine.follow(instruction, made)
    return machine


def ask(machine: Machine, question: str, lent: list[str]) -> None:
    """Start what a pod starts, and ask it a question."""
    models = machine.root / "models"
    models.mkdir()
    user, group = map(int, machine.user.split(":"))
    os.chown(models, user, group)
    with (
        tempfile.TemporaryDirectory() as folder,
        mounted(machine.root, lent),
        stores(Path(folder)) as there,
    ):
        pod = Pod(there, inside=machine.inside, variables=machine.environment)
        print(f"plato.models: {pod.run('python', '-m', 'plato.models')}", flush=True)
        subprocess.run(["chmod", "-R", "a-w", str(models)], check=True)
        with pod.ray():
            config = machine.root / "home/plato/serve.yaml"
            pod.deploy(config, known_as="/home/plato/serve.yaml")
            print(httpx.get(f"{pod.url}/readyz", timeout=10).text, flush=True)
            command = ["env", f"PLATO_URL={pod.url}", "plato", "ask", question, "--mode", "plato"]
            print(pod.run(*command))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--variant", default="cpu")
    parser.add_argument("--lend", nargs="*", default=[], metavar="PATH")
    parser.add_argument("--ask", metavar="QUESTION")
    given = parser.parse_args()
    made: dict[str, Path] = {}
    for stage in read():
        root = given.folder.absolute() / (stage.name or "image")
        machine = make(stage, root, {"VARIANT": given.variant}, given.lend, made)
        made[stage.name] = root
    if given.ask:
        ask(machine, given.ask, given.lend)


if __name__ == "__main__":
    main()

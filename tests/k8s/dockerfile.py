"""Reading a Dockerfile: the few instructions that ours has, one a line."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from tests.k8s.rendering import K8S

DOCKERFILE = K8S / "image" / "Dockerfile"


@dataclass(frozen=True)
class Instruction:
    name: str
    arguments: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.arguments)


@dataclass
class Stage:
    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def of(self, name: str) -> list[Instruction]:
        return [one for one in self.instructions if one.name == name]


def read(path: Path = DOCKERFILE) -> list[Stage]:
    """The stages of a Dockerfile. Raises `ValueError` at what is not understood here."""
    stages: list[Stage] = []
    for line in path.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        if line.endswith("\\"):
            raise ValueError(f"an instruction of several lines: {line}")
        name, _, arguments = line.partition(" ")
        if name == "FROM":
            base, *named = arguments.split(" AS ")
            stages.append(Stage(base, named[0] if named else ""))
        elif name in {"ARG", "ENV", "COPY", "RUN", "USER", "WORKDIR", "CMD"}:
            stages[-1].instructions.append(Instruction(name, arguments))
        else:
            raise ValueError(f"an instruction that is not known here: {line}")
    return stages

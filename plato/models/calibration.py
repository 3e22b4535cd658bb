"""Thresholds of a model's decisions, and the kind of prompts that they were calibrated with."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError

from plato.engine.fingerprint import ADAPTER_CALIBRATION
from plato.errors import ModelError
from plato.settings import Settings
from plato.validation import first_problem

FILE = ADAPTER_CALIBRATION
"""In the folder of an adapter that was tuned for planning."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The defaults are for models that were not tuned for planning.

    They were chosen with SmolLM2-135M-Instruct: the split threshold on the odd-numbered Vicuna
    questions, the rest on 80 how-to tasks of AsyncHow and 48 questions with plans by hand.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    split_threshold: Annotated[float, Field(ge=0, le=1)] = 0.00099
    """See `SplitDecision`."""
    dependency_threshold: FiniteFloat = -1.0
    """See `DependencyDecision`, as for the next two."""
    dependency_margin: FiniteFloat = 1.5
    previous_bonus: FiniteFloat = 1.0
    examples: bool = True
    """Whether the prompts of decisions have examples. A tuned model needs none."""

    @classmethod
    def read(cls, adapter: Path | None) -> Calibration:
        """That of the adapter in a folder; the defaults if it has none. Raises `ModelError`."""
        file = adapter and adapter / FILE
        if file is None or not file.is_file():
            return cls()
        content = file.read_bytes()
        try:
            found = TypeAdapter(cls).validate_json(content)
            missing = {each.name for each in fields(cls)} - json.loads(content).keys()
            problem = f"{min(missing)} is missing" if missing else None
        except ValidationError as error:
            problem = first_problem(error)
        if problem is not None:
            raise ModelError(
                f"{file} is not a calibration ({problem}); tune the adapter again, or remove the "
                "file to use the adapter with the prompts and thresholds of untuned models"
            )
        return found

    @classmethod
    def of(cls, settings: Settings, adapter: Path | None) -> Calibration:
        """That of the adapter, with the thresholds of `settings` that are set."""
        read = cls.read(adapter)
        split, dependency = settings.split_threshold, settings.dependency_threshold
        return replace(
            read,
            split_threshold=read.split_threshold if split is None else split,
            dependency_threshold=read.dependency_threshold if dependency is None else dependency,
        )

    def write(self, adapter: Path) -> None:
        """Write it to the folder of an adapter."""
        (adapter / FILE).write_text(json.dumps(asdict(self), indent=2) + "\n")

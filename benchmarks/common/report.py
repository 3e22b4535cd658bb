"""Output of the benchmarks: one JSON object, and a printed table."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parents[1] / "results"
"""Where the figures that the README and the report name are kept."""

WIDE = 160


@dataclass
class Report:
    """The outcome of one benchmark."""

    benchmark: str
    model: str
    settings: dict[str, Any]
    metrics: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=lambda: describe_machine())

    def write(self, path: Path | None, *tables: Mapping[str, Any]) -> None:
        """Print the metrics, and write everything as JSON if `path` is given.

        `tables`: metrics to print beside each other instead, by the heads of their columns.
        """
        # A file or a pipe has no width.
        console = Console(width=None if sys.stdout.isatty() else WIDE)
        for by_column in tables or ({"value": self.metrics},):
            columns = {name: dict(_flat(each)) for name, each in by_column.items()}
            table = Table(title=f"{self.benchmark}: {self.model}")
            table.add_column("metric", no_wrap=True)
            for head in columns:
                table.add_column(head, justify="right")
            for name in dict.fromkeys(name for column in columns.values() for name in column):
                table.add_row(name, *(_cell(column.get(name, "")) for column in columns.values()))
            console.print(table)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def describe_machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    names = {
        line.partition(":")[2].strip()
        for line in _lines("/proc/cpuinfo")
        if line.startswith("model name")
    }
    return {
        "cpu": ", ".join(sorted(names)) or platform.processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def arguments(name: str, description: str) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("--quick", action="store_true", help="a smaller run")
    parser.add_argument("--json", type=Path, help="write the report here")
    return parser


def read_jsonl(path: Path) -> Sequence[dict[str, Any]]:
    """One object a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def _flat(metrics: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Names and values, those of nested objects behind their names."""
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}: ")
        else:
            yield f"{before}{name}", value


def _cell(value: Any) -> str:
    if isinstance(value, tuple):
        return " to ".join(map(_cell, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []

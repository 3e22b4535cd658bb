"""Step times of the default model, as `python -m benchmarks.engine` measured them last."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from benchmarks.common.report import RESULTS
from plato.testing.paced import Pace


def stored_pace(path: Path = RESULTS / "engine.json") -> Pace:
    """The engine's speed in a report of `benchmarks.engine`, at its default precision."""
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    ours = [row for row in rows if row.get("engine") == "auto"]
    steps = {row["width"]: row["step_ms"] for row in ours if row["part"] == "speed"}
    (prefill,) = [row["tokens_per_s"] for row in ours if row["part"] == "prefill"]
    return replace(Pace(), step_ms=tuple(sorted(steps.items())), prefill_tokens_per_s=prefill)

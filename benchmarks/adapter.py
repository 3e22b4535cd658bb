"""Makes the adapter of the default model that comes with Plato.

    python -m benchmarks.adapter [--data FILE] [--out FOLDER] [--seed N] [NAME=VALUE ...]

The examples are those of `plato.tuning` and the plans of `--data` (AsyncHow) that
`benchmarks.planning` does not hold out. Takes some minutes on a GPU and hours on a CPU; if it is
interrupted, the same command goes on. Only torch, transformers, peft, pydantic, networkx, msgpack
and rich are required.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.common.workload import SHARED_DATA
from benchmarks.planning.labelled import CALIBRATION, LabelledPlan, read_plans
from plato.models import resolve_model
from plato.models.adapter import bundled_adapter
from plato.models.progress import shown
from plato.settings import DEFAULT_MODEL
from plato.tuning.examples import Example, read_examples
from plato.tuning.options import TuneOptions
from plato.tuning.tuner import tune

OPTIONS = TuneOptions(epochs=5, batch=32, learning_rate=2e-3, rank=8)


def main() -> None:
    """Tune the default model."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.adapter",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, default=SHARED_DATA / "asynchow.jsonl")
    parser.add_argument("--out", type=Path, default=bundled_adapter(DEFAULT_MODEL))
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    examples = [*read_examples(), *dependencies_of(read_plans(options.data))]
    with shown(None) as progress:
        folder = resolve_model(options.model, progress=progress)
        report = tune(folder, examples, options.out, replace(OPTIONS, seed=options.seed), progress)
    json.dump(report["losses"], sys.stdout, indent=2)


def dependencies_of(plans: Iterable[LabelledPlan]) -> Iterator[Example]:
    """Those that may be learned: their titles are no answers that a planner should write."""
    for plan in plans:
        if plan.side == CALIBRATION:
            yield Example(plan.question.text, None, plan.nodes)


if __name__ == "__main__":
    main()

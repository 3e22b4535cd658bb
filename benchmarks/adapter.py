"""Makes the adapter that comes with Plato for the default model.

    python -m benchmarks.adapter [--data FILE] [--out FOLDER] [--model FOLDER] [--seed N]

It learns from the examples of `plato.tuning`, and dependencies also from the plans of `--data`
(AsyncHow) that `benchmarks.planning` does not hold out. Takes some minutes on an H200 and one and a
half hours on two cores; the same command resumes an interrupted run, also on another device. That
needs only torch, transformers, peft, pydantic, networkx, msgpack and rich; the threshold of `auto`,
which is calibrated on labelled questions at the end, all of Plato.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.common.workload import SHARED_DATA
from benchmarks.planning.labelled import CALIBRATION, LabelledPlan, read_plans
from plato.errors import PlatoError
from plato.models import resolve_model
from plato.models.adapter import BUNDLED, CONFIG
from plato.models.progress import shown
from plato.settings import DEFAULT_MODEL
from plato.tuning.examples import Example, read_examples
from plato.tuning.options import TuneOptions
from plato.tuning.tuner import tune

OPTIONS = TuneOptions(
    epochs=2,
    batch=16,
    learning_rate=1.5e-3,
    kept=0.8,
    held_out=0.06,
    evaluations=3,
)
PASSES = 2
"""Over the plans of AsyncHow: dependencies are learned slowest."""
SPLIT = 2
"""Of so many examples one teaches the decision to split: it is learned fastest."""


def main() -> None:
    """Tune the default model."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.adapter",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, default=SHARED_DATA / "asynchow.jsonl")
    parser.add_argument("--out", type=Path, default=BUNDLED)
    parser.add_argument("--model", default=DEFAULT_MODEL, help="another folder of the same model")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        if not (options.out / CONFIG).exists():
            train(options)
    except PlatoError as error:
        parser.exit(1, f"{parser.prog}: {error.message}\n")
    # Late: training needs less.
    from benchmarks.planning import __main__ as planning

    tuned = [f"model={options.model}", f"adapter={options.out}"]
    planning.main(["--only", planning.DECISIONS, "--calibrate", *tuned])


def train(options: argparse.Namespace) -> None:
    """Write the adapter. Raises `PlatoError`."""
    plans = read_plans(options.data)
    examples = [*own_examples(read_examples()), *PASSES * list(dependency_examples(plans))]
    with shown(None) as progress:
        tune(
            resolve_model(options.model, progress=progress),
            examples,
            options.out,
            replace(OPTIONS, seed=options.seed),
            progress,
            name=DEFAULT_MODEL,
        )


def own_examples(examples: Iterable[Example]) -> Iterator[Example]:
    """All examples, one of `SPLIT` with its kind.

    Those with neither kind nor plan are questions whose answers are to stay as they are.
    """
    for number, example in enumerate(examples):
        yield example if number % SPLIT == 0 else replace(example, kind=None)


def dependency_examples(plans: Iterable[LabelledPlan]) -> Iterator[Example]:
    """Examples that teach only dependencies: the titles are not such as a planner writes."""
    for plan in plans:
        if plan.side == CALIBRATION:
            yield Example(plan.question.text, None, plan.nodes)


if __name__ == "__main__":
    main()

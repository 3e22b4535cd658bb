"""`plato tune`."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from plato.cli.clients import log_if_wanted
from plato.cli.errors import UsageError
from plato.errors import InvalidRequestError
from plato.settings import read_settings
from plato.tuning.options import TuneOptions

TUNING = TuneOptions()


def tune(
    out: Annotated[
        Path,
        typer.Argument(
            file_okay=False, help="Folder for the adapter; an interrupted run resumes there."
        ),
    ],
    data: Annotated[
        list[Path] | None,
        typer.Option(help="Examples as JSON lines; `bundled`, the default: those of Plato."),
    ] = None,
    epochs: Annotated[
        int, typer.Option(min=1, help="Maximum passes over the examples.")
    ] = TUNING.epochs,
    batch: Annotated[int, typer.Option(min=1, help="Samples per step.")] = TUNING.batch,
    learning_rate: Annotated[
        float, typer.Option(min=0, max=1, help="Peak learning rate.")
    ] = TUNING.learning_rate,
    rank: Annotated[int, typer.Option(min=1, help="LoRA rank.")] = TUNING.rank,
    kl_weight: Annotated[
        float,
        typer.Option(
            min=0,
            help="Weight of a penalty on changes of ordinary answers, for an adapter that you "
            "merge into the weights of another server.",
        ),
    ] = TUNING.kl_weight,
    initial: Annotated[
        Path | None, typer.Option(help="Adapter of the same model to start from.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed of the order and of new weights.")
    ] = TUNING.seed,
) -> None:
    """Tune the configured model (PLATO_MODEL) for planning; writes a PEFT adapter."""
    from plato.models import resolve_model
    from plato.models.progress import shown
    from plato.tuning.examples import BUNDLED, read_examples
    from plato.tuning.tuner import tune as run

    settings = read_settings()
    log_if_wanted(settings)
    files = data or [Path("bundled")]
    sources = [BUNDLED if str(file) == "bundled" else file for file in files]
    try:
        examples = [example for source in sources for example in read_examples(source)]
    except InvalidRequestError as error:
        raise UsageError(error.message) from error
    options = replace(
        TUNING,
        epochs=epochs,
        batch=batch,
        learning_rate=learning_rate,
        rank=rank,
        kl_weight=kl_weight,
        seed=seed,
        device=settings.device,
    )
    with shown(None) as progress:
        folder = resolve_model(
            settings.model, settings.cache_dir, settings.model_revision, progress
        )
        report = run(folder, examples, out, options, progress, initial=initial, name=settings.model)
    print(json.dumps({name: report[name] for name in ("calibration", "dependencies", "losses")}))
    print(f"use it with PLATO_ADAPTER={out.absolute()}", file=sys.stderr)

from pathlib import Path

import pytest
import torch

from benchmarks.engine.harness import Workbench
from benchmarks.engine.quality import (
    TIE,
    count_right,
    loss_by_decoding,
    loss_by_prefill,
    measure_exactness,
)


def test_a_token_that_is_not_the_best_choice_is_wrong() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0], [0.0, 3.0, 2.0], [5.0, 3.0, 2.0]])
    assert count_right(logits, [2, 1, 0]) == 3
    assert count_right(logits, [2, 2, 0]) == 2


def test_a_token_that_ties_with_the_best_choice_is_right() -> None:
    logits = torch.tensor([[1.0, 1.0 - TIE / 2], [1.0, 1.0 - TIE * 2]])
    assert count_right(logits, [1, 1]) == 1


@pytest.fixture(scope="module")
def bench(tiny_model_folder: str) -> Workbench:
    return Workbench(Path(tiny_model_folder), quick=True)


@pytest.mark.slow
def test_every_way_of_decoding_is_checked_against_the_reference(bench: Workbench) -> None:
    metrics, rows = measure_exactness(bench)
    assert metrics == {"exact_fraction": 1.0}
    assert {row["case"] for row in rows} == {
        "alone",
        "batched",
        "forked",
        "chunked",
        "tight_memory",
        "continued",
    }


@pytest.mark.slow
def test_losses_are_those_of_the_reference(bench: Workbench) -> None:
    tokens = bench.documents(1, 64)[0]
    model, reference = bench.model("float32"), bench.reference("float32")

    def expected(ids: list[int]) -> float:
        with torch.inference_mode():
            tensor = torch.tensor([ids])
            return float(reference(tensor, labels=tensor).loss)

    pieces = [list(tokens[start : start + 8]) for start in range(0, 64, 8)]
    assert loss_by_prefill(model, tokens) == pytest.approx(expected(list(tokens)), abs=1e-4)
    assert loss_by_decoding(model, tokens) == pytest.approx(
        sum(map(expected, pieces)) / len(pieces), abs=1e-4
    )

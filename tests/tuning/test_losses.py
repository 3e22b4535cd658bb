"""Losses are those of each sample alone, whatever it is batched with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM

from plato.tuning import losses as losses_module
from plato.tuning.losses import Batch
from plato.tuning.samples import Choice, Sample, Skill

CPU = torch.device("cpu")
TEXT = Sample(Skill.PART, tuple(range(10, 30)), spans=(range(5, 9), range(15, 20)))
CHOICE = Sample(
    Skill.DEPENDENCIES,
    tuple(range(50, 62)),
    choices=(Choice(4, (7, 8), (1.0, 0.0)), Choice(11, (7, 8, 9), (0.0, 0.5, 0.5))),
)


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Float32, whatever this processor computes fastest."""
    monkeypatch.setattr(losses_module, "_has_fast_bfloat16", lambda _: False)


@pytest.fixture(scope="module")
def model(tiny_model_folder: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model_folder).eval()


@torch.inference_mode()
def all_logits(model: Any, sample: Sample) -> torch.Tensor:
    logits: torch.Tensor = model(torch.tensor([sample.tokens])).logits[0]
    return logits


def losses(model: Any, *samples: Sample) -> list[float]:
    batch = Batch.of(samples, CPU)
    with torch.inference_mode():
        found: list[float] = batch.losses(batch.logits(model)).tolist()
    return found


def test_spans_count_each_with_its_mean(model: Any) -> None:
    logits = all_logits(model, TEXT)
    expected = sum(
        float(
            functional.cross_entropy(
                logits[span.start - 1 : span.stop - 1],
                torch.tensor(TEXT.tokens[span.start : span.stop]),
            )
        )
        for span in TEXT.spans
    )
    assert losses(model, TEXT) == pytest.approx([expected], rel=1e-4)


def test_choices_count_each_among_its_candidates(model: Any) -> None:
    logits = all_logits(model, CHOICE)
    first = -functional.log_softmax(logits[4, [7, 8]], -1)[0]
    second = -functional.log_softmax(logits[11, [7, 8, 9]], -1)[1:].mean()
    assert losses(model, CHOICE) == pytest.approx([float(first + second)], rel=1e-4)


def test_a_batch_does_not_change_them(model: Any) -> None:
    alone = [*losses(model, TEXT), *losses(model, CHOICE)]
    assert losses(model, TEXT, CHOICE) == pytest.approx(alone, rel=1e-4)
    assert losses(model, CHOICE, TEXT, CHOICE) == pytest.approx(
        [alone[1], alone[0], alone[1]], rel=1e-4
    )


def test_scores_are_log_probabilities_among_all_tokens(model: Any) -> None:
    batch = Batch.of([TEXT, CHOICE], CPU)
    with torch.inference_mode():
        scores = batch.scores(batch.logits(model))
    expected = functional.log_softmax(all_logits(model, CHOICE), -1)
    torch.testing.assert_close(scores[0, :2], expected[4, [7, 8]], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(scores[1], expected[11, [7, 8, 9]], atol=1e-3, rtol=1e-4)


def test_a_model_does_not_diverge_from_itself(model: Any) -> None:
    batch = Batch.of([TEXT], CPU)
    with torch.inference_mode():
        logits = batch.logits(model)
        assert float(batch.divergence(logits, logits)) == pytest.approx(0, abs=1e-6)
        assert float(batch.divergence(2 * logits, logits)) > 0.1

"""Hyperparameters of tuning."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """The defaults suit models of 0.1 to 1 billion parameters and some thousand samples."""

    epochs: int = 3
    """Upper bound: tuning stops early when the held-out loss rises."""
    batch: int = 8
    """Samples in one step."""
    learning_rate: float = 1e-3
    """Peak, after a linear warm-up; it then decays linearly to 0."""
    rank: int = 16
    """LoRA rank, on all linear layers; alpha is twice the rank."""
    kl_weight: float = 0.0
    """Weight of the Kullback-Leibler divergence from the untuned model, in nats per token, on
    answers that it wrote to the questions of the examples, and on parts whose texts are not
    learned. Only for an adapter that will be merged into weights which answer everything: Plato
    has answers that are not planned written without it."""
    reference_answers: int = 256
    """Number of those answers."""
    references_per_step: int = 2
    """Of those answers, so many are compared in every step."""
    reference_tokens: int = 192
    """Maximum length of each, in tokens. With less, few of them end, and answers become shorter."""
    kept: float = 0.75
    """Fraction of the learned change that is kept at the end: it costs little of what was learned,
    and saves most of what changed elsewhere (Wortsman et al., 2022, arXiv 2109.01903)."""
    held_out: float = 0.1
    """Fraction of the examples used for early stopping, calibration and the report."""
    evaluations: int = 2
    """Per epoch."""
    patience: int = 2
    """Consecutive evaluations without an improvement after which tuning stops."""
    seed: int = 0
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: a GPU if there is one."""

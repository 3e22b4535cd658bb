"""How a model is tuned."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """The defaults suit models of 0.1 to 1 billion parameters and some thousand samples."""

    epochs: int = 3
    """Passes over the samples, at most: tuning stops early when held-out loss rises."""
    batch: int = 8
    """Samples of one step."""
    learning_rate: float = 1e-3
    """At its highest, after a short rise; it then falls linearly to nothing."""
    rank: int = 16
    """Of the matrices of LoRA, on all linear layers."""
    dropout: float = 0.05
    keep: float = 1.0
    """Weight of the penalty that keeps ordinary answers as they are: the Kullback-Leibler
    divergence from the untuned model, in nats a token."""
    chats: int = 256
    """Ordinary answers that the untuned model writes for that."""
    chat_tokens: int = 96
    """Tokens of each."""
    held_out: float = 0.1
    """Share of the examples that are held out, to stop early, to calibrate and to report."""
    evaluations: int = 2
    """In every epoch."""
    patience: int = 2
    """So many evaluations in a row without an improvement end the tuning."""
    seed: int = 0
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: a GPU if there is one."""

"""An engine that sleeps for the measured step times of a model and computes nothing.

For studies of many replicas on few cores: the engine's KV tree, queues and steps are real, its text
is meaningless.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from dataclasses import dataclass
from functools import partial

import torch
from pydantic import TypeAdapter

from plato.assembly import engine_config
from plato.engine import Engine
from plato.engine.tokenizer_config import TokenizerConfig
from plato.engine.torch import TorchEngine, TorchEngineConfig
from plato.engine.torch.attention import Rows
from plato.engine.torch.pool import KVPool
from plato.settings import Settings

VOCABULARY = 512
"""Number of logits."""
FIRST_WORD = 100
"""Lower token ids are markup in many vocabularies."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Measured speed of a model.

    Defaults: the default model in int8 on two server CPU cores (`python -m benchmarks.engine`).
    """

    step_ms: tuple[tuple[int, float], ...] = (
        (1, 14.4),
        (2, 17.2),
        (4, 25.0),
        (8, 33.2),
        (16, 52.4),
    )
    """(sequences, milliseconds of a step that decodes one token of each), ascending."""
    prefill_tokens_per_s: float = 700.0
    kv_bytes_per_token: int = 23_040
    context_length: int = 8192


def step_seconds(pace: Pace, decoding: int, prefilled: int) -> float:
    """Seconds of a step with `decoding` one-token sequences and `prefilled` other tokens.

    Interpolated between the measured widths, extrapolated beyond them.
    """
    return _by_width(pace.step_ms, decoding) / 1e3 + prefilled / pace.prefill_tokens_per_s


def _by_width(points: tuple[tuple[int, float], ...], width: int) -> float:
    if width == 0:
        return 0.0
    at = min(max(1, bisect_left(points, (width, 0.0))), len(points) - 1)
    (low, fast), (high, slow) = points[at - 1], points[at]
    return fast + (slow - fast) * (width - low) / (high - low)


def paced_engine(settings: Settings, folder: str, name: str) -> Engine:
    """An engine factory for `Settings.engine`.

    `settings.engine_options["pace"]` holds the fields of a `Pace` that differ from its defaults.
    """
    pace = TypeAdapter(Pace).validate_python(settings.engine_options.get("pace", {}))
    return TorchEngine(engine_config(settings, folder, name), load=partial(PacedModel, pace=pace))


class PacedModel:
    """A model that sleeps through its steps; each token depends on the previous one alone."""

    def __init__(self, config: TorchEngineConfig, pace: Pace) -> None:
        self._pace = pace
        self.tokenizer = TokenizerConfig.load(config.model_folder)
        self.context_length = pace.context_length
        self.vocabulary = VOCABULARY
        self.end_tokens: frozenset[int] = frozenset()
        self.precision = "paced"
        self.has_own_threads = False

    @property
    def kv_bytes_per_token(self) -> int:
        """KV bytes of one token of the measured model."""
        return self._pace.kv_bytes_per_token

    def new_pool(self, capacity: int) -> KVPool:
        """A pool with minimal KV, of which only the slot numbers matter."""
        return KVPool(
            layers=1,
            heads=1,
            head_dim=1,
            capacity=capacity,
            dtype=torch.float32,
            device=torch.device("cpu"),
        )

    def forward(
        self, pool: KVPool, tokens: list[int], rows: list[Rows], wanted: list[int]
    ) -> torch.Tensor:
        """Sleep for the duration of the step; returns float32 [wanted, vocabulary]."""
        started = time.perf_counter()
        logits = torch.zeros((len(wanted), VOCABULARY))
        words = VOCABULARY - FIRST_WORD
        for row, index in enumerate(wanted):
            logits[row, FIRST_WORD + (31 * tokens[index] + 7) % words] = 1.0
        decoding = sum(item.count == 1 for item in rows)
        due = step_seconds(self._pace, decoding, len(tokens) - decoding)
        time.sleep(max(0.0, due - (time.perf_counter() - started)))
        return logits

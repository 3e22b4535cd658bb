"""The engines compared: the built-in engine, and transformers in two ways."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from benchmarks.common.workload import fresh_tenant
from benchmarks.engine.harness import Output, Step, Tokens, request, timed_step
from plato.engine.torch.core import EngineCore

PAGE = 256
"""Tokens in a block of transformers' paged cache; its default."""
NO_END = -1
"""No token has this id: nothing ends before its budget."""
DEADLINE_S = 300.0
"""For one batch in the process of `PagedContestant`."""


@dataclass(frozen=True, slots=True)
class Timing:
    """One batch decoded to its end."""

    tokens_per_s: float
    """Output tokens of all sequences over the time of prefill and decoding."""
    decode_tokens_per_s: float
    """Output tokens of all sequences while every sequence was decoding, over that time."""
    step_ms: float | None = None
    """Median of a step in which every sequence decoded."""


Contestant = Callable[[Sequence[Tokens], int], Timing]
"""Decodes so many tokens behind every prompt."""


class EngineContestant:
    """Our engine."""

    def __init__(self, core: EngineCore) -> None:
        self._core = core

    def __call__(self, prompts: Sequence[Tokens], count: int) -> Timing:
        """Decode `count` tokens behind every prompt."""
        core, tenant = self._core, fresh_tenant()
        outputs = [Output() for _ in prompts]
        steps: list[Step] = []
        start = time.perf_counter()
        for prompt, output in zip(prompts, outputs, strict=True):
            core.add(request(prompt, max_tokens=count, tenant=tenant), output)
        while core.has_work:
            steps.append(timed_step(core, outputs))
        seconds = time.perf_counter() - start
        core.check_integrity()
        _check_work([output.tokens for output in outputs], len(prompts), count)
        full = [step.seconds for step in steps if step.full]
        return Timing(
            len(prompts) * count / seconds,
            len(prompts) * len(full) / sum(full),
            median(full) * 1e3,
        )


class GenerateContestant:
    """`generate` of transformers: one padded batch, greedy, with its KV cache."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @torch.inference_mode()
    def __call__(self, prompts: Sequence[Tokens], count: int) -> Timing:
        """Decode `count` tokens behind every prompt; all prompts have the same length."""
        clock = _TokenClock()
        ids = torch.tensor([list(prompt) for prompt in prompts])
        start = time.perf_counter()
        result = self._model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=_greedy(count),
            stopping_criteria=StoppingCriteriaList([clock]),
        )
        seconds = time.perf_counter() - start
        _check_work(result[:, ids.shape[1] :].tolist(), len(prompts), count)
        return Timing(
            len(prompts) * count / seconds,
            len(prompts) * (count - 1) / (clock.times[-1] - clock.times[0]),
        )


class PagedContestant:
    """Continuous batching of transformers (`generate_batch`), in a process of its own.

    It computes in a thread that it starts. In a process whose main thread has computed in
    parallel too, OpenMP sees more threads than cores and makes them wait asleep, which slows this
    contestant down for no fault of its own.

    Its own clock is taken, from the moment its requests exist to its last token: setting up the
    manager and ending its thread do not count.
    """

    def __init__(self, folder: Path) -> None:
        self._process = ProcessPoolExecutor(
            1, get_context("spawn"), initializer=_load_paged, initargs=(folder,)
        )

    def __call__(self, prompts: Sequence[Tokens], count: int) -> Timing:
        """Decode `count` tokens behind every prompt."""
        return self._process.submit(_run_paged, prompts, count).result(DEADLINE_S)

    def close(self) -> None:
        """End the process."""
        self._process.shutdown()


def _load_paged(folder: Path) -> None:
    """Load the model of this process, without starting threads that compute."""
    global _paged_model
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    _paged_model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa"
    ).eval()
    torch.set_num_threads(threads)


def _run_paged(prompts: Sequence[Tokens], count: int) -> Timing:
    pages = -(-(max(map(len, prompts)) + count) // PAGE)
    results = _paged_model.generate_batch(
        [list(prompt) for prompt in prompts],
        generation_config=_greedy(count),
        continuous_batching_config=ContinuousBatchingConfig(
            page_size=PAGE,
            num_blocks=len(prompts) * (pages + 1),
            max_batch_tokens=512,
            allow_block_sharing=False,
            auto_switch_to_flash=False,
        ),
        record_timestamps=True,
    ).values()
    _check_work([result.generated_tokens for result in results], len(prompts), count)
    times = [result.timestamps for result in results]
    start = min(result.created_time for result in results)
    # From the first token of the sequence that was prefilled last, all are decoding.
    all_decode, end = max(row[0] for row in times), max(row[-1] for row in times)
    decoded = sum(stamp > all_decode for row in times for stamp in row)
    return Timing(len(prompts) * count / (end - start), decoded / (end - all_decode))


_paged_model: Any = None
"""The model of a `PagedContestant`'s process."""


class _TokenClock(StoppingCriteria):
    """Notes when each token of a batch was there; stops nothing."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        self.times.append(time.perf_counter())
        return torch.zeros(len(input_ids), dtype=torch.bool)


def _greedy(count: int) -> GenerationConfig:
    return GenerationConfig(
        max_new_tokens=count, do_sample=False, use_cache=True, eos_token_id=NO_END, pad_token_id=0
    )


def _check_work(outputs: Sequence[Sequence[int]], width: int, count: int) -> None:
    if len(outputs) != width or any(len(output) != count for output in outputs):
        raise RuntimeError("a contestant did not decode what it was asked for")

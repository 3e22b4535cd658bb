"""Shared by the engine benchmarks: prompts, requests, and cores stepped manually.

The core is stepped here, in the caller's thread, so that a step can be timed without the thread
and the queues around it. Needs torch and transformers only.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import torch

from plato.engine import Chunk, GenerateRequest, Prompt, Segment, StopConditions
from plato.engine.torch.config import TorchEngineConfig
from plato.engine.torch.core import EngineCore
from plato.engine.torch.load import load_model
from plato.engine.torch.model import LanguageModel, use_one_thread

TEXTS = Path(__file__).parents[1] / "texts"
MAX_STEPS = 20_000
"""Steps after which a core that still has work is taken to hang."""

Tokens = tuple[int, ...]
_numbers = itertools.count(1)


@dataclass
class Output:
    """What one sequence has sent; acts as its sink."""

    tokens: list[int] = field(default_factory=list)
    first_at: float | None = None
    """`time.perf_counter()` at the first token."""

    def __call__(self, item: Chunk | Exception) -> None:
        """Take a chunk; an error is raised where the core is stepped."""
        if isinstance(item, Exception):
            raise item
        if item.tokens and self.first_at is None:
            self.first_at = time.perf_counter()
        self.tokens.extend(item.tokens)


@dataclass(frozen=True, slots=True)
class Step:
    """One timed step of a core."""

    seconds: float
    full: bool
    """Whether it was a step of decoding alone: one token of every sequence, none its first."""


class Workbench:
    """The models and texts of one benchmark run, loaded when first needed."""

    def __init__(self, folder: Path, *, quick: bool) -> None:
        self.folder = folder
        self.quick = quick
        self._models: dict[str, LanguageModel] = {}
        """By dtype: `auto`, `float32`."""
        self._references: dict[str, Any] = {}
        """transformers' own model by dtype: `float32`, `bfloat16`."""

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer, as transformers loads it."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.folder)

    def config(self, dtype: str, **fields: Any) -> TorchEngineConfig:
        """An engine's configuration for this model."""
        return TorchEngineConfig(model_folder=str(self.folder), dtype=dtype, **fields)

    def model(self, dtype: str) -> LanguageModel:
        """The engine's model in one precision."""
        if dtype not in self._models:
            self._models[dtype] = load_model(self.config(dtype))
        return self._models[dtype]

    def core(self, dtype: str, **fields: Any) -> EngineCore:
        """A fresh core with nothing cached; `fields` are of its configuration."""
        return EngineCore(self.model(dtype), self.config(dtype, **fields), "benchmark")

    def reference(self, dtype: str) -> Any:
        """The same model as transformers runs it, with its own attention."""
        import torch
        from transformers import AutoModelForCausalLM

        if dtype not in self._references:
            self._references[dtype] = AutoModelForCausalLM.from_pretrained(
                self.folder, dtype=getattr(torch, dtype), attn_implementation="sdpa"
            ).eval()
        return self._references[dtype]

    def encode(self, text: str) -> Tokens:
        """Token ids of plain text."""
        return tuple(self.tokenizer(text, add_special_tokens=False).input_ids)

    def documents(self, count: int, length: int) -> list[Tokens]:
        """`count` different pieces of Python's documentation, `length` tokens each.

        No two begin with the same words, so none shares a prefix with another.
        """
        from pydoc_data import topics

        text = "\n\n".join(topics.topics[name] for name in sorted(topics.topics))
        # Six characters a token is more than English or code takes.
        tokens = self.encode(text[: 6 * count * length])
        if len(tokens) < count * length:
            raise ValueError(f"the documentation is shorter than {count} x {length} tokens")
        return [tokens[i * length : (i + 1) * length] for i in range(count)]

    def questions(self) -> list[Tokens]:
        """Twenty questions of users as chat prompts."""
        lines = (TEXTS / "questions.txt").read_text(encoding="utf-8").splitlines()
        prompts = [
            self.tokenizer.apply_chat_template(
                [{"role": "user", "content": line}], tokenize=False, add_generation_prompt=True
            )
            for line in lines
        ]
        return [self.encode(prompt) for prompt in prompts[: 4 if self.quick else None]]


def request(
    *segments: Sequence[int], max_tokens: int, tenant: str = "", **fields: Any
) -> GenerateRequest:
    """A greedy request that decodes exactly `max_tokens`, unless told otherwise."""
    prompt = Prompt(tuple(Segment(tuple(segment)) for segment in segments), tenant)
    defaults: dict[str, Any] = {
        "run_id": "benchmark",
        "node": next(_numbers),
        "stop": StopConditions(end_tokens=False),
    }
    return GenerateRequest(prompt=prompt, max_tokens=max_tokens, **{**defaults, **fields})


def run_together(core: EngineCore, requests: Sequence[GenerateRequest]) -> list[Output]:
    """Decode requests that arrive at the same time, to their ends."""
    outputs = [Output() for _ in requests]
    for one, output in zip(requests, outputs, strict=True):
        core.add(one, output)
    drain(core)
    return outputs


def drain(core: EngineCore) -> None:
    """Step until there is no work, and check that nothing leaked."""
    for _ in range(MAX_STEPS):
        if not core.has_work:
            core.check_integrity()
            return
        run_step(core)
    raise RuntimeError(f"the engine still has work after {MAX_STEPS} steps")


def run_step(core: EngineCore) -> float:
    """Step once, with the threads that the engine's own thread leaves to torch; its seconds."""
    threads = torch.get_num_threads()
    if core.has_own_threads:
        use_one_thread()
    try:
        return timed(core.step)
    finally:
        torch.set_num_threads(threads)


def timed_step(core: EngineCore, outputs: Sequence[Output]) -> Step:
    """Step once."""
    before = [len(output.tokens) for output in outputs]
    seconds = run_step(core)
    new = [len(output.tokens) - old for output, old in zip(outputs, before, strict=True)]
    return Step(seconds, all(before) and set(new) == {1})


def timed(function: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def median_ms(seconds: Sequence[float]) -> float:
    """The median, in milliseconds."""
    return median(seconds) * 1e3

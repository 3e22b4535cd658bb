"""Requests in short, streams collected, and the oracle of greedy decoding."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from plato.engine import (
    Chunk,
    Engine,
    FinishReason,
    GenerateRequest,
    Grammar,
    Prompt,
    Segment,
    StopConditions,
)
from plato.engine.torch.core import EngineCore

TIE = 1e-3
"""Two logits nearer than this may change places with the shape of the batch."""


@dataclass
class Stream:
    """Everything one sequence sent; acts as its sink."""

    chunks: list[Chunk] = field(default_factory=list)
    error: Exception | None = None

    def __call__(self, item: Chunk | Exception) -> None:
        if isinstance(item, Exception):
            self.error = item
        else:
            self.chunks.append(item)

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(token for chunk in self.chunks for token in chunk.tokens)

    @property
    def text(self) -> str:
        return "".join(chunk.text for chunk in self.chunks)

    @property
    def last(self) -> Chunk:
        return self.chunks[-1]

    @property
    def finish(self) -> FinishReason | None:
        return self.chunks[-1].finish if self.chunks else None

    @property
    def cached(self) -> int:
        return self.last.cached_tokens


def some_tokens(count: int, seed: int = 0) -> tuple[int, ...]:
    """Ordinary token ids, different for every seed."""
    return tuple(random.Random(seed).choices(range(100, 20_000), k=count))


def ask(*segments: Segment | Iterable[int], tenant: str = "", **fields: Any) -> GenerateRequest:
    """A request for eight tokens that ends at its budget, unless told otherwise.

    Plain token ids become a private segment, and text a grammar in Lark.
    """
    parts = tuple(s if isinstance(s, Segment) else Segment(tuple(s)) for s in segments)
    defaults = {
        "run_id": "run",
        "node": 1,
        "max_tokens": 8,
        "stop": StopConditions(end_tokens=False),
    }
    if isinstance(fields.get("grammar"), str):
        fields["grammar"] = Grammar(lark=fields["grammar"], gbnf="")
    return GenerateRequest(prompt=Prompt(parts, tenant), **{**defaults, **fields})


def run_alone(core: EngineCore, request: GenerateRequest) -> Stream:
    """Decode one request to its end."""
    return run_together(core, [request])[0]


def run_together(core: EngineCore, requests: Iterable[GenerateRequest]) -> list[Stream]:
    """Decode requests that arrive at the same time, to their ends."""
    streams = []
    for request in requests:
        streams.append(Stream())
        core.add(request, streams[-1])
    drain(core)
    return streams


def drain(core: EngineCore, steps: int = 2000) -> None:
    """Step until nothing is left to do, and check that nothing leaked."""
    for _ in range(steps):
        if not core.has_work:
            break
        core.step()
    assert not core.has_work, f"work is left after {steps} steps"
    core.check_integrity()


async def collect(engine: Engine, request: GenerateRequest) -> Stream:
    """Decode one request through the engine's protocol."""
    stream = Stream()
    async for chunk in engine.generate(request):
        stream(chunk)
    return stream


@torch.inference_mode()
def assert_greedy(
    reference: Any, prompt: Iterable[int], output: Iterable[int], max_tokens: int | None = None
) -> None:
    """Assert that `output` is what greedy decoding of the reference gives.

    Teacher-forced: every token is compared with the reference's choice after the same tokens, so
    one tie does not make everything behind it wrong. With `max_tokens`, the output must also end
    where the reference would.
    """
    prompt, output = list(prompt), list(output)
    assert output
    logits = reference(torch.tensor([[*prompt, *output]]), use_cache=False).logits[0].float()
    for index, token in enumerate(output):
        row = logits[len(prompt) + index - 1]
        best = int(row.argmax())
        assert token == best or row[best] - row[token] < TIE, (
            f"token {index} is {token}, the reference chooses {best}"
        )
    if max_tokens is not None:
        end = reference.generation_config.eos_token_id
        assert len(output) == max_tokens or output.index(end) == len(output) - 1


@torch.inference_mode()
def generate(reference: Any, prompt: Iterable[int], max_tokens: int) -> tuple[int, ...]:
    """What `transformers.generate` decodes greedily."""
    prompt = list(prompt)
    ids = torch.tensor([prompt])
    result = reference.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_tokens, do_sample=False
    )
    return tuple(result[0, len(prompt) :].tolist())

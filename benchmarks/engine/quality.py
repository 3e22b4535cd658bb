"""Correctness of the engine: exactness in float32, and what int8 costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from benchmarks.engine.harness import (
    TEXTS,
    Output,
    Tokens,
    Workbench,
    drain,
    request,
    run_step,
    run_together,
)
from plato.engine.torch.attention import Rows
from plato.engine.torch.core import EngineCore
from plato.engine.torch.model import LanguageModel

TIE = 1e-3
"""Two logits nearer than this may change places with the shape of a batch."""
CHUNK = 256
DECODED_ROWS = 8


def count_right(logits: torch.Tensor, output: Sequence[int]) -> int:
    """How many tokens of `output` are the greedy choice of `logits` [tokens, vocabulary].

    Row i is the reference's after the prompt and `output[:i]`: one difference does not make what
    follows it wrong. A token whose logit is within `TIE` of the best one's is right too.
    """
    chosen = logits[torch.arange(len(output)), torch.tensor(output)]
    return int((logits.amax(-1) - chosen < TIE).sum())


class Oracle:
    """Counts right tokens by the reference's logits; remembers what it has computed."""

    def __init__(self, reference: Any) -> None:
        self._reference = reference
        self._right: dict[tuple[Tokens, Tokens], int] = {}
        """Bounded by the prompts and cases of one run, most of which give the same text."""

    @torch.inference_mode()
    def right(self, prompt: Tokens, output: Tokens) -> int:
        """Tokens of `output` that greedy decoding of the reference would have chosen."""
        if (prompt, output) not in self._right:
            ids = torch.tensor([[*prompt, *output[:-1]]])
            logits = self._reference(ids, use_cache=False, logits_to_keep=len(output)).logits[0]
            self._right[prompt, output] = count_right(logits.float(), output)
        return self._right[prompt, output]


def measure_exactness(bench: Workbench) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Share of tokens that the float32 engine decodes as the reference would, in six ways."""
    prompts = bench.questions()
    count = 16 if bench.quick else 64
    oracle = Oracle(bench.reference("float32"))

    core = bench.core("float32")
    alone = [tuple(_run(core, [prompt], count)[0]) for prompt in prompts]
    longest = max(len(prompt) for prompt in prompts)
    # Room for about four sequences: the others wait or are preempted, and what is cached of
    # earlier ones is evicted.
    few = 4 * (longest + count) * bench.model("float32").kv_bytes_per_token
    tight = bench.core("float32", kv_budget_bytes=few)
    cases = {
        "alone": list(zip(prompts, alone, strict=True)),
        "batched": _pairs(prompts, _run(bench.core("float32"), prompts, count)),
        "forked": _forked(bench.core("float32"), prompts, count),
        "chunked": _pairs(prompts, _run(bench.core("float32", prefill_chunk=16), prompts, count)),
        "tight_memory": [
            pair
            for again in (prompts, prompts[: len(prompts) // 2])
            for pair in _pairs(again, _run(tight, again, count))
        ],
        "continued": _continued(bench.core("float32"), prompts, alone, count),
    }
    rows: list[dict[str, Any]] = []
    for case, pairs in cases.items():
        right = sum(oracle.right(prompt, output) for prompt, output in pairs)
        total = sum(len(output) for _, output in pairs)
        rows.append({"case": case, "right": right, "total": total})
    fraction = sum(row["right"] for row in rows) / sum(row["total"] for row in rows)
    return {"exact_fraction": fraction}, rows


def _pairs(prompts: list[Tokens], outputs: list[list[int]]) -> list[tuple[Tokens, Tokens]]:
    return [(prompt, tuple(output)) for prompt, output in zip(prompts, outputs, strict=True)]


def _run(core: EngineCore, prompts: Sequence[Tokens], count: int) -> list[list[int]]:
    requests = [request(prompt, max_tokens=count) for prompt in prompts]
    return [output.tokens for output in run_together(core, requests)]


def _forked(core: EngineCore, prompts: list[Tokens], count: int) -> list[tuple[Tokens, Tokens]]:
    """Branches that leave a live sequence in the middle of what it has decoded so far."""
    at, live = count // 6, count // 3
    pairs: list[tuple[Tokens, Tokens]] = []
    for start in range(0, len(prompts), 8):
        group = prompts[start : start + 8]
        parents = [Output() for _ in group]
        for prompt, parent in zip(group, parents, strict=True):
            core.add(request(prompt, max_tokens=count), parent)
        while any(len(parent.tokens) < live for parent in parents):
            run_step(core)
        forks = [tuple(parent.tokens[:at]) for parent in parents]
        branches = [Output() for _ in group]
        for prompt, fork, branch in zip(group, forks, branches, strict=True):
            core.add(request(prompt, fork, max_tokens=count - at), branch)
        drain(core)
        pairs.extend(_pairs(group, [parent.tokens for parent in parents]))
        for prompt, fork, branch in zip(group, forks, branches, strict=True):
            pairs.append(((*prompt, *fork), tuple(branch.tokens)))
    return pairs


def _continued(
    core: EngineCore, prompts: list[Tokens], alone: list[Tokens], count: int
) -> list[tuple[Tokens, Tokens]]:
    """Requests that bring a third of their output from an earlier attempt."""
    emitted = [output[: count // 3] for output in alone]
    requests = [
        request(prompt, max_tokens=count, emitted=first, attempt=1)
        for prompt, first in zip(prompts, emitted, strict=True)
    ]
    outputs = run_together(core, requests)
    return [
        ((*prompt, *first), tuple(output.tokens))
        for prompt, first, output in zip(prompts, emitted, outputs, strict=True)
    ]


def measure_perplexity(bench: Workbench) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Perplexity of the `auto` engine over float32's, on two texts in two ways."""
    rows: list[dict[str, Any]] = []
    for name, tokens in _texts(bench).items():
        for way, measure in (("prefill", loss_by_prefill), ("decoding", loss_by_decoding)):
            auto, exact = (measure(bench.model(dtype), tokens) for dtype in ("auto", "float32"))
            rows.append(
                {
                    "text": name,
                    "way": way,
                    "tokens": len(tokens),
                    "perplexity_float32": math.exp(exact),
                    "perplexity_auto": math.exp(auto),
                    "ratio": math.exp(auto - exact),
                }
            )
    return {"perplexity_ratio": max(row["ratio"] for row in rows)}, rows


def _texts(bench: Workbench) -> dict[str, Tokens]:
    from pydoc_data import topics

    texts = {
        "python_documentation": topics.topics["naming"] + topics.topics["exceptions"],
        "alice": (TEXTS / "alice.txt").read_text(encoding="utf-8"),
    }
    limit = 200 if bench.quick else 2048
    return {name: bench.encode(text)[:limit] for name, text in texts.items()}


@torch.inference_mode()
def loss_by_prefill(model: LanguageModel, tokens: Tokens) -> float:
    """Mean loss (nats a token) of a text that is computed in chunks of a prompt."""
    pool = model.new_pool(len(tokens))
    slots = pool.allocate(len(tokens))
    losses: list[torch.Tensor] = []
    for start in range(0, len(tokens) - 1, CHUNK):
        stop = min(start + CHUNK, len(tokens) - 1)
        rows = [Rows(slots[:stop], stop - start)]
        logits = model.forward(pool, list(tokens[start:stop]), rows, list(range(stop - start)))
        losses.append(_losses(logits, tokens[start + 1 : stop + 1]))
    return float(torch.cat(losses).mean())


@torch.inference_mode()
def loss_by_decoding(model: LanguageModel, tokens: Tokens) -> float:
    """Mean loss (nats a token) of a text cut into eight sequences, decoded side by side.

    Every step computes one token of each, so this is what decoding in a batch computes.
    """
    length = len(tokens) // DECODED_ROWS
    pieces = np.array(tokens[: length * DECODED_ROWS]).reshape(DECODED_ROWS, length)
    pool = model.new_pool(pieces.size)
    slots = [pool.allocate(length) for _ in pieces]
    wanted = list(range(DECODED_ROWS))
    losses: list[torch.Tensor] = []
    for position in range(length - 1):
        rows = [Rows(row[: position + 1], 1) for row in slots]
        logits = model.forward(pool, pieces[:, position].tolist(), rows, wanted)
        losses.append(_losses(logits, pieces[:, position + 1].tolist()))
    return float(torch.cat(losses).mean())


def _losses(logits: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
    return cross_entropy(logits, torch.tensor(targets), reduction="none")

"""How fast is a step of an 8B model on a GPU?

    python -m benchmarks.gpu [--quick] [--json FILE]

A model with the shape of Llama 3 8B and random weights in bfloat16: nothing is downloaded, and only
torch, transformers and rich are required. Use smaller shapes to test the program on a CPU:

    python -m benchmarks.gpu --device cpu --layers 2 --hidden 256 --quick
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
import transformers

from benchmarks.common.report import Report, arguments
from benchmarks.engine.harness import (
    Output,
    Tokens,
    drain,
    median_ms,
    request,
    run_together,
    timed,
    timed_step,
)
from benchmarks.engine.sharing import BRANCHES, OWN, run_fan
from plato.engine import GenerateRequest
from plato.engine.tokenizer_config import TokenizerConfig
from plato.engine.torch.config import TorchEngineConfig
from plato.engine.torch.core import EngineCore
from plato.engine.torch.load import load_model
from plato.engine.torch.model import LanguageModel

VOCABULARY = 128_256
HEAD_DIM = 128
CONTEXT_LENGTH = 8192
CHUNK = 1024
"""Prompt tokens in a step, unless that is what is measured."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    widths: tuple[int, ...]
    context: int
    steps: int
    prompt: int
    repeats: int

    @classmethod
    def of(cls, *, quick: bool) -> Sizes:
        """The sizes of a whole or a quick run."""
        if quick:
            return cls((1, 2, 4), 64, 5, 256, 1)
        return cls((1, 2, 4, 8, 16, 32, 64), 512, 30, 4096, 3)


@dataclass(frozen=True, slots=True)
class Bench:
    """The model, and how much to measure with it."""

    model: LanguageModel
    config: TorchEngineConfig
    sizes: Sizes

    def core(self, capacity: int, **fields: Any) -> EngineCore:
        """A fresh core with room for `capacity` tokens; `fields` are of its configuration."""
        budget = capacity * self.model.kv_bytes_per_token
        config = replace(self.config, kv_budget_bytes=budget, **fields)
        return EngineCore(self.model, config, "benchmark")


def llama_config(layers: int, hidden: int) -> transformers.LlamaConfig:
    """Llama 3 8B (32 layers, 4096 wide: its other sizes), or a smaller one of its proportions."""
    heads = max(1, hidden // HEAD_DIM)
    return transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=hidden * 7 // 2,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 4),
        head_dim=HEAD_DIM,
        max_position_embeddings=CONTEXT_LENGTH,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=1,
    )


def random_model(config: TorchEngineConfig, shape: transformers.LlamaConfig) -> LanguageModel:
    """A language model of the engine with random weights, made where it will be used.

    The engine loads models from folders; here its two loaders give what was just made, which
    saves writing and reading 16 GB.
    """
    torch.manual_seed(0)
    with torch.device(config.device):
        model = transformers.AutoModelForCausalLM.from_config(
            shape, dtype=getattr(torch, config.dtype), attn_implementation="eager"
        )
    with (
        patch.object(transformers.AutoModelForCausalLM, "from_pretrained", lambda *_, **__: model),
        patch.object(TokenizerConfig, "load", lambda _: plain_tokenizer()),
    ):
        return load_model(config)


def plain_tokenizer() -> TokenizerConfig:
    """A tokenizer with a word for every id: texts mean nothing here, but have to be written."""
    from tokenizers import Tokenizer, decoders, models

    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, "w0"))
    tokenizer.decoder = decoders.Fuse()
    return TokenizerConfig(tokenizer, {"bos_token": "w0", "eos_token": "w1"})


def random_prompts(count: int, length: int) -> list[Tokens]:
    """Prompts that share nothing."""
    return [tuple(row) for row in torch.randint(2, VOCABULARY, (count, length)).tolist()]


def measure_steps(bench: Bench) -> list[Row]:
    """Median of a decode step by width, through the whole loop of the engine."""
    sizes = bench.sizes
    # What is prefilled first decodes while the others are prefilled.
    budgets = [sizes.steps + 4 + -(-width * sizes.context // CHUNK) for width in sizes.widths]
    core = bench.core(sizes.widths[-1] * (sizes.context + budgets[-1]))
    rows: list[Row] = []
    for width, budget in zip(sizes.widths, budgets, strict=True):
        outputs = [Output() for _ in range(width)]
        for prompt, output in zip(random_prompts(width, sizes.context), outputs, strict=True):
            core.add(request(prompt, max_tokens=budget), output)
        while any(output.first_at is None for output in outputs):
            core.step()
        steps = [timed_step(core, outputs) for _ in range(sizes.steps)]
        drain(core)
        step_ms = median_ms([step.seconds for step in steps if step.full])
        rows.append(
            {
                "part": "step",
                "width": width,
                "context": sizes.context,
                "step_ms": step_ms,
                "tokens_per_s": width / step_ms * 1e3,
            }
        )
    return rows


def measure_prefill(bench: Bench) -> list[Row]:
    """Prompt tokens per second of one long prompt, by the size of its chunks."""
    rows: list[Row] = []
    for chunk in (256, 1024, 4096):
        core = bench.core(bench.sizes.prompt + 1, prefill_chunk=chunk)
        prompts = random_prompts(bench.sizes.repeats + 1, bench.sizes.prompt)
        seconds = [
            timed(partial(run_together, core, [request(prompt, max_tokens=1)]))
            for prompt in prompts
        ]
        rows.append(
            {
                "part": "prefill",
                "chunk": chunk,
                "prompt_tokens": bench.sizes.prompt,
                "tokens_per_s": bench.sizes.prompt / median(seconds[1:]),  # The first warms up.
            }
        )
    return rows


def measure_graph(bench: Bench) -> list[Row]:
    """Eight branches off one prefix: sharing it or not, and decoded together or in turn."""
    prefix_length = bench.sizes.prompt // 2
    room = prefix_length + OWN + bench.sizes.steps
    core = bench.core(BRANCHES * room)
    own = random_prompts(BRANCHES, OWN)
    (warm, prefix, again) = random_prompts(3, prefix_length)
    run_fan(core, warm, own, shared=True)
    shared = run_fan(core, prefix, own, shared=True)
    separate = run_fan(core, prefix, own, shared=False)

    def branches(start: Tokens) -> list[GenerateRequest]:
        return [request(start, tail, max_tokens=bench.sizes.steps) for tail in own]

    together = timed(lambda: run_together(core, branches(prefix)))
    in_turn = timed(lambda: [run_together(core, [branch]) for branch in branches(again)])
    return [
        {
            "part": "graph",
            "prefix": prefix_length,
            "branches": BRANCHES,
            "own": OWN,
            "prefilled_shared": shared.prefilled,
            "prefilled_separate": separate.prefilled,
            "first_token_ratio": shared.seconds / separate.seconds,
            "decoded": bench.sizes.steps,
            "speedup_together": in_turn / together,
        }
    ]


def main() -> None:
    """Run the benchmark."""
    parser = arguments("gpu", str(__doc__))
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=4096, help="a multiple of 128")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.exit(2, "torch sees no GPU here; --device cpu tries the program out\n")
    if options.hidden % HEAD_DIM:
        parser.error(f"--hidden {options.hidden} is no multiple of {HEAD_DIM}")

    config = TorchEngineConfig(
        model_folder="",
        device=options.device,
        dtype="bfloat16",
        max_sequences=64,
        prefill_chunk=CHUNK,
    )
    model = random_model(config, llama_config(options.layers, options.hidden))
    bench = Bench(model, config, Sizes.of(quick=options.quick))
    rows: list[Row] = []
    for measure in (measure_steps, measure_prefill, measure_graph):
        for row in measure(bench):
            rows.append(row)
            print("  ".join(f"{key} {_shown(value)}" for key, value in row.items()), flush=True)
    report = Report(
        "gpu",
        f"random Llama, {options.layers} layers, {options.hidden} wide, bfloat16",
        {"quick": options.quick, "device": options.device},
        metrics_of(rows),
        rows,
    )
    report.write(options.json)


def metrics_of(rows: Sequence[Row]) -> Row:
    """The figures that are compared between runs."""
    metrics: Row = {f"step_ms_{r['width']}": r["step_ms"] for r in rows if r["part"] == "step"}
    metrics["prefill_tokens_per_s"] = max(
        row["tokens_per_s"] for row in rows if row["part"] == "prefill"
    )
    (graph,) = (row for row in rows if row["part"] == "graph")
    return metrics | {
        "fork_prefilled_tokens": graph["prefilled_shared"],
        "fork_time_ratio": graph["first_token_ratio"],
        "graph_speedup": graph["speedup_together"],
    }


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()

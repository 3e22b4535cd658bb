"""How is the time of a step spent, and what does a grammar add?

Functions of the engine are wrapped with clocks while a core is stepped. A clock's time is its own:
what a wrapped function spends in other wrapped ones is theirs.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any
from unittest.mock import patch

from benchmarks.common.workload import fresh_tenant
from benchmarks.engine.harness import (
    Output,
    Step,
    Workbench,
    median_ms,
    request,
    run_step,
    timed_step,
)
from plato.engine import Grammar
from plato.engine.sampling import matcher, sampler
from plato.engine.text import TextStream
from plato.engine.torch import layers, linear
from plato.engine.torch.core import EngineCore
from plato.engine.torch.kernels import NativeKernels, new_kernels
from plato.engine.torch.model import LanguageModel
from plato.engine.torch.packed import PackedModel
from plato.engine.torch.transformers_model import TransformersModel
from plato.planning.grammar import outline_grammar
from plato.planning.titles import title_of_words

WIDTHS = (1, 8)
CONTEXT = 288

PROSE = Grammar(
    lark=r"""
start: /[^|\[\]\x00-\x09\x0b-\x1f\x7f]*/ END
END: /\x01/
""",
    gbnf="",
)
"""Text without the characters that titles of a plan do without, up to one that nobody writes. It
forces nothing, so a step under it has the shape of a step without a grammar, and finding out what
is allowed takes as long as within a title."""


class Clocks:
    """Self time by group, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner = [0.0]
        """Time within wrapped functions, for every wrapped call on the stack."""

    def wrap(self, group: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function` with its own time counted for `group`."""

        @functools.wraps(function)
        def clocked(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds = time.perf_counter() - start
                self.seconds[group] += seconds - self._inner.pop()
                self._inner[-1] += seconds

        return clocked

    def reset(self) -> None:
        """Forget what was counted."""
        self.seconds.clear()


KERNEL_GROUPS = {
    "attend": "attention",
    "rms_norm": "norms, rotary, activation",
    "rotate_and_store": "norms, rotary, activation",
    "swiglu": "norms, rotary, activation",
    "linear": "linears",
}
"""What the kernels belong to; one that is not listed is a group of its own."""


Wrap = Callable[[Any, str, str], None]
"""Wraps the attribute of an owner for a group."""


@contextmanager
def clocked_step(model: LanguageModel) -> Iterator[Clocks]:
    """Wrap the parts of a step: of the core, of this model, and of the kernels it uses."""
    with _clocked() as (clocks, wrap):
        wrap(EngineCore, "step", "bookkeeping")
        wrap(LanguageModel, "forward", "step set-up")
        wrap(TextStream, "push", "text")
        wrap(sampler, "choose", "sampling")
        wrap(model, "_logits", "head")
        if isinstance(model, PackedModel):
            wrap(model, "_hidden", "embedding, positions")
            wrap(model._decoder, "compute", "layers")
            wrap(model._kernels, "rms_norm", KERNEL_GROUPS["rms_norm"])
        elif isinstance(model, TransformersModel):
            wrap(model, "_hidden", "transformers")
            _wrap_modules(model, wrap)
        yield clocks


def _wrap_modules(model: TransformersModel, wrap: Wrap) -> None:
    """Wrap our modules in a model of transformers, and their kernels."""
    kernels: set[type] = set()
    for module in model._decoder.modules():
        kind = type(module)
        if kind.__module__ == linear.__name__:
            wrap(module, "forward", "linears")
        elif kind.__module__ == layers.__name__:
            wrap(module, "forward", "layers")
        if hasattr(module, "_kernels"):
            kernels.add(type(module._kernels))
    for kind in kernels:
        for name in _public_methods(kind):
            wrap(kind, name, KERNEL_GROUPS.get(name, name))


@contextmanager
def clocked_grammar() -> Iterator[Clocks]:
    """Wrap what the engine asks of a grammar."""
    with _clocked() as (clocks, wrap):
        for kind in vars(matcher).values():
            if inspect.isclass(kind) and kind.__module__ == matcher.__name__:
                for name in _public_methods(kind):
                    wrap(kind, name, "grammar")
        yield clocks


@contextmanager
def _clocked() -> Iterator[tuple[Clocks, Wrap]]:
    clocks = Clocks()
    with ExitStack() as stack:

        def wrap(owner: Any, name: str, group: str) -> None:
            clocked = clocks.wrap(group, getattr(owner, name))
            stack.enter_context(patch.object(owner, name, clocked))

        yield clocks, wrap


def _public_methods(kind: type) -> list[str]:
    methods = inspect.getmembers(kind, inspect.isfunction)
    return [name for name, _ in methods if not name.startswith("_")]


def measure_profile(bench: Workbench) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Milliseconds of a decode step by part, at widths 1 and 8."""
    model, count = bench.model("auto"), 8 if bench.quick else 40
    core = bench.core("auto")
    rows: list[dict[str, Any]] = []
    for width in WIDTHS:
        plain = [step.seconds for step in _decode(bench, core, width, count)]
        with clocked_step(model) as clocks:
            clocked = _decode(bench, core, width, count, clocks)
        total = sum(step.seconds for step in clocked)
        parts = {group: seconds / len(clocked) * 1e3 for group, seconds in clocks.seconds.items()}
        rows.extend(
            {"width": width, "where": part, "ms": ms, "share": ms * len(clocked) / total / 1e3}
            for part, ms in sorted(parts.items(), key=lambda item: -item[1])
        )
        rows.append(
            {
                "width": width,
                "where": "all",
                "ms": total / len(clocked) * 1e3,
                "ms_without_clocks": sum(plain) / len(plain) * 1e3,
                "share": 1.0,
            }
        )
    return {}, rows


def _native_seconds() -> dict[str, float]:
    """Seconds so far in the parts of layers that are computed in one call."""
    kernels = new_kernels()
    return kernels.seconds() if isinstance(kernels, NativeKernels) else {}


def _start(
    bench: Workbench, core: EngineCore, width: int, count: int, grammar: Grammar | None = None
) -> list[Output]:
    """Sequences that decode, one token a step from now on, for at least `count` steps."""
    tenant = fresh_tenant()
    outputs = [Output() for _ in range(width)]
    for prompt, output in zip(bench.documents(width, CONTEXT), outputs, strict=True):
        # What is prefilled first decodes while the others are prefilled.
        one = request(prompt, max_tokens=count + 2 * width + 8, tenant=tenant, grammar=grammar)
        core.add(one, output)
    while any(output.first_at is None for output in outputs):
        run_step(core)
    return outputs


def _decode(
    bench: Workbench, core: EngineCore, width: int, count: int, clocks: Clocks | None = None
) -> list[Step]:
    """Timed decode steps of `width` sequences."""
    outputs = _start(bench, core, width, count)
    if clocks is not None:
        clocks.reset()
    before = _native_seconds()
    steps = [timed_step(core, outputs) for _ in range(count)]
    if clocks is not None:
        for group, seconds in _native_seconds().items():
            clocks.seconds[group] += seconds - before[group]
            clocks.seconds["layers"] -= seconds - before[group]
    core.cancel(lambda _: True)
    if not all(step.full for step in steps):
        raise RuntimeError("a profiled step did more than decode one token of every sequence")
    return steps


def measure_grammar(bench: Workbench) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a grammar adds to a step at width 8, and its share under the grammar of plans.

    The steps with and without alternate, on two cores of the same model.
    """
    width, count = 8, 12 if bench.quick else 60
    free, bound = bench.core("auto"), bench.core("auto")
    free_outputs = _start(bench, free, width, count)
    bound_outputs = _start(bench, bound, width, count, PROSE)
    pairs: list[tuple[Step, Step]] = []
    for number in range(count):
        if number % 2:  # Neither is always the one that comes after the other.
            under, plain = timed_step(bound, bound_outputs), timed_step(free, free_outputs)
        else:
            plain, under = timed_step(free, free_outputs), timed_step(bound, bound_outputs)
        if plain.full and under.full:
            pairs.append((plain, under))
    if len(pairs) < count // 2:
        raise RuntimeError("the grammar ended most of the text; steps cannot be compared")
    for core in (free, bound):
        core.cancel(lambda _: True)
    without = median_ms([step.seconds for step, _ in pairs])
    within = median_ms([step.seconds for _, step in pairs])
    overhead = median(under.seconds / plain.seconds for plain, under in pairs) - 1
    rows = [
        {
            "grammar": "prose",
            "width": width,
            "step_ms_without": without,
            "step_ms_with": within,
            "overhead": overhead,
            "share_in_grammar": _grammar_share(bench, PROSE, width, count),
        },
        {
            "grammar": "plan",
            "width": width,
            "share_in_grammar": _grammar_share(
                bench, outline_grammar(8, title_of_words(12)), width, count
            ),
        },
    ]
    return {"grammar_overhead": overhead}, rows


def _grammar_share(bench: Workbench, grammar: Grammar, width: int, count: int) -> float:
    """Share of the steps' time within calls of the grammar, a plan's forced tokens included."""
    core = bench.core("auto")
    outputs = _start(bench, core, width, count, grammar)
    with clocked_grammar() as clocks:
        seconds = 0.0
        for _ in range(count):
            if not core.has_work:
                break
            seconds += timed_step(core, outputs).seconds
        share = clocks.seconds["grammar"] / seconds
    core.cancel(lambda _: True)
    return share

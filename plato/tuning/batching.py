"""Which samples are learned at the same time."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from plato.tuning.examples import Example
from plato.tuning.options import TuneOptions
from plato.tuning.samples import Sample, SampleBuilder

BUCKET = 16
"""Batches; samples of similar length are batched within a bucket."""
PASS_TOKENS = 4096
"""In one pass, padding included: bounds the memory of a step."""

T = TypeVar("T")


def all_samples(
    builder: SampleBuilder, examples: Iterable[Example], noise: random.Random | None = None
) -> list[Sample]:
    """Everything that `examples` teach; for `noise` see `SampleBuilder.dependencies`."""
    return [sample for example in examples for sample in builder.samples(example, noise)]


def training_batches(
    builder: SampleBuilder, examples: Sequence[Example], options: TuneOptions
) -> Iterator[Sequence[Sample]]:
    """All samples in every epoch, in an order that depends on seed and epoch alone."""
    for epoch in range(options.epochs):
        order = random.Random(f"{options.seed}/{epoch}")
        samples = all_samples(builder, examples, order)
        order.shuffle(samples)
        batches = [
            batch
            for bucket in chunks(samples, options.batch * BUCKET)
            for batch in chunks(by_length(bucket), options.batch)
        ]
        order.shuffle(batches)
        yield from batches


def by_length(samples: Iterable[Sample]) -> list[Sample]:
    """Shortest first: neighbours need little padding."""
    return sorted(samples, key=lambda sample: len(sample.tokens))


def passes(samples: Sequence[Sample]) -> Iterator[list[Sample]]:
    """`samples` in pieces that are computed at the same time."""
    some: list[Sample] = []
    longest = 0
    for sample in samples:
        longest = max(longest, len(sample.tokens))
        if some and longest * (len(some) + 1) > PASS_TOKENS:
            yield some
            some, longest = [], len(sample.tokens)
        some.append(sample)
    if some:
        yield some


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """`items` in pieces of `size`; the last may be shorter."""
    for start in range(0, len(items), size):
        yield items[start : start + size]

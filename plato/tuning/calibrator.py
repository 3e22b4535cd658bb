"""Calibrates the decisions of a tuned model on examples, and measures them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise, product
from math import exp
from typing import Any

import torch

from plato.models.calibration import Calibration
from plato.planning.decision import DependencyDecision
from plato.prompting import Tokenizer
from plato.runs import Node, PlanGraph
from plato.tuning.examples import Example
from plato.tuning.losses import Batch
from plato.tuning.measures import measure
from plato.tuning.samples import Sample, SampleBuilder

MIN_PARALLELISM = 0.95
"""Dependencies are calibrated to leave this fraction of the true graphs' parallelism."""
EDGE_F1_TOLERANCE = 0.01
"""Smaller differences in edge F1 are noise on some hundred plans."""
FALSE_SPLIT_COST = 2.0
"""Cost of splitting an answer that must not be split; the opposite error costs 1."""
THRESHOLDS = tuple(step / 4 for step in range(-24, 25))
MARGINS = tuple(step / 4 for step in range(1, 17))

Scores = tuple[float, ...]
"""Log probabilities of the candidates of one choice."""


class Calibrator:
    """Takes decisions with one model, as a planner does."""

    def __init__(
        self,
        model: Any,
        builder: SampleBuilder,
        tokenizer: Tokenizer,
        device: torch.device,
        batch: int,
    ) -> None:
        """`batch` samples are computed at a time."""
        self._model = model
        self._builder = builder
        self._tokenizer = tokenizer
        self._device = device
        self._batch = batch

    def calibrate(self, examples: Sequence[Example]) -> Calibration:
        """The calibration that suits `examples` best.

        Some must be split and some not; dependencies keep a neutral threshold if no plan has any.
        """
        known = [example for example in examples if example.kind is not None]
        decided = self._scores([self._builder.split(example) for example in known])
        odds = [one - split for ((one, split),) in decided]
        threshold = split_threshold(odds, [bool(example.plan) for example in known])
        tuned = Calibration(1 / (1 + exp(-threshold)), 0.0, 1.0, 0.0, examples=False)
        planned = [example for example in examples if len(example.plan) > 1]
        if not any(node.dependencies for example in planned for node in example.plan):
            return tuned
        scores = self._scores([self._builder.dependencies(example) for example in planned])
        plans = [example.plan for example in planned]

        def measured(calibration: Calibration) -> dict[str, Any]:
            decision = DependencyDecision(self._tokenizer, calibration)
            graphs = [_graph(plan, of, decision) for plan, of in zip(plans, scores, strict=True)]
            return measure(list(zip(map(PlanGraph, plans), graphs, strict=True)))

        grid = [
            replace(tuned, dependency_threshold=threshold, dependency_margin=margin)
            for threshold, margin in product(THRESHOLDS, MARGINS)
        ]
        return grid[best_dependencies([measured(calibration) for calibration in grid])]

    def evaluate(self, examples: Sequence[Example], calibration: Calibration) -> dict[str, Any]:
        """How the dependencies chosen for `examples` agree with theirs, titles given."""
        planned = [example for example in examples if len(example.plan) > 1]
        graphs = self.predict(planned, calibration)
        return measure(
            [(PlanGraph(e.plan), graph) for e, graph in zip(planned, graphs, strict=True)]
        )

    def predict(self, examples: Sequence[Example], calibration: Calibration) -> list[PlanGraph]:
        """The plans of `examples` with dependencies chosen line by line, as a planner does."""
        decision = DependencyDecision(self._tokenizer, calibration)
        graphs = [PlanGraph([Node(1, example.plan[0].title)]) for example in examples]
        for count in range(1, max((len(e.plan) for e in examples), default=0)):
            open_plans = [
                (example, graph)
                for example, graph in zip(examples, graphs, strict=True)
                if len(example.plan) > count
            ]
            chosen: list[tuple[int, ...]] = [()] * len(open_plans)
            if count < decision.parts:
                samples = [
                    self._builder.undecided(e.question, tuple(graph), e.plan[count].title)
                    for e, graph in open_plans
                ]
                chosen = [decision.choose(scores) for (scores,) in self._scores(samples)]
            for (example, graph), needed in zip(open_plans, chosen, strict=True):
                graph.add(Node(count + 1, example.plan[count].title, needed))
        return graphs

    def _scores(self, samples: Sequence[Sample]) -> list[list[Scores]]:
        """For every choice of every sample."""
        found: list[list[Scores]] = []
        for start in range(0, len(samples), self._batch):
            some = samples[start : start + self._batch]
            batch = Batch.of(some, self._device)
            with torch.inference_mode():
                rows = iter(batch.scores(batch.logits(self._model)).tolist())
            found += [
                [tuple(next(rows)[: len(choice.candidates)]) for choice in sample.choices]
                for sample in some
            ]
        return found


def best_dependencies(found: Sequence[Mapping[str, float]]) -> int:
    """The index of the best of several measures of the same plans.

    Enough parallelism comes first, then the edges; where they are about equally good, recall: a
    part that misses what it depends on reads badly, one dependency too many costs a little time.
    """

    def parallelism(measures: Mapping[str, float]) -> float:
        return min(measures["parallelism_ratio"], MIN_PARALLELISM)

    enough = max(map(parallelism, found))
    candidates = [index for index, measures in enumerate(found) if parallelism(measures) == enough]
    least = max(found[index]["edge_f1"] for index in candidates) - EDGE_F1_TOLERANCE
    good = [index for index in candidates if found[index]["edge_f1"] >= least]
    return max(good, key=lambda index: found[index]["dependency_recall"])


def split_threshold(odds: Sequence[float], split: Sequence[bool]) -> float:
    """The threshold with the lowest cost, for log odds of not splitting.

    Of equally good thresholds the one nearest to even odds.
    """
    ends = sorted(odds)
    between = [(low + high) / 2 for low, high in pairwise(ends)]
    places = [0.0, ends[0] - 1, *between, ends[-1] + 1] if ends else [0.0]

    def cost(place: float) -> tuple[float, float]:
        false = sum(o <= place and not s for o, s in zip(odds, split, strict=True))
        missed = sum(o > place and s for o, s in zip(odds, split, strict=True))
        return FALSE_SPLIT_COST * false + missed, abs(place)

    return min(places, key=cost)


def _graph(
    plan: Sequence[Node], scores: Sequence[Scores], decision: DependencyDecision
) -> PlanGraph:
    """The graph that follows from scores that were taken with the right earlier lines."""
    graph = PlanGraph([Node(1, plan[0].title)])
    for place, node in enumerate(plan[1:]):
        needed = decision.choose(scores[place]) if place < len(scores) else ()
        graph.add(Node(node.number, node.title, needed))
    return graph

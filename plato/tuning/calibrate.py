"""Decisions of a tuned model on examples: thresholds that suit them, and what they are worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import torch
from torch.nn import functional

from plato.planning.calibration import Calibration
from plato.planning.decision import DependencyDecision
from plato.prompting import Tokenizer
from plato.runs import Node, PlanGraph
from plato.tuning.examples import Example
from plato.tuning.losses import Batch
from plato.tuning.measures import measure
from plato.tuning.samples import Choice, Sample, Skill, Teacher

PARALLELISM = 1.0
"""Dependencies are calibrated to leave this share of the parallelism of the true graphs."""
FALSE_SPLIT_COST = 2.0
"""Of splitting what should not be split; of the opposite: 1."""
THRESHOLDS = tuple(step / 4 for step in range(-12, 13))
MARGINS = tuple(step / 4 for step in range(1, 17))

Scorer = Callable[[Sequence[Sample]], list[list[tuple[float, ...]]]]
"""Log probabilities of the candidates of every choice of every sample."""


def scorer(model: Any, device: torch.device, batch: int) -> Scorer:
    """Scores with a model on `device`, so many samples at a time."""

    def score(samples: Sequence[Sample]) -> list[list[tuple[float, ...]]]:
        found: list[list[tuple[float, ...]]] = []
        for start in range(0, len(samples), batch):
            of = Batch.of(samples[start : start + batch], device)
            with torch.inference_mode():
                chances = functional.log_softmax(of.logits(model), -1)
            for row, sample in enumerate(of.samples):
                columns = [of.column(choice.place) for choice in sample.choices]
                found.append(
                    [
                        tuple(chances[row, column, list(choice.candidates)].tolist())
                        for column, choice in zip(columns, sample.choices, strict=True)
                    ]
                )
        return found

    return score


def calibrate(
    examples: Sequence[Example], teacher: Teacher, tokenizer: Tokenizer, score: Scorer
) -> Calibration:
    """The thresholds that suit `examples` best; without examples of a kind, those in between."""
    known = [example for example in examples if example.kind is not None]
    chances = [scores[0] for scores in score([teacher.split(example) for example in known])]
    odds = [one - split for one, split in chances]
    threshold = _split_threshold(odds, [bool(example.plan) for example in known])
    tuned = Calibration(
        split_threshold=threshold,
        dependency_threshold=0.0,
        dependency_margin=1.0,
        previous_bonus=0.0,
        examples=False,
    )
    plans = [example.plan for example in examples if len(example.plan) > 1]
    if not any(node.dependencies for plan in plans for node in plan):
        return tuned
    samples = [teacher.dependencies(example) for example in examples if len(example.plan) > 1]
    decided = list(zip(plans, score(samples), strict=True))
    return max(
        (
            replace(tuned, dependency_threshold=threshold, dependency_margin=margin)
            for threshold, margin in product(THRESHOLDS, MARGINS)
        ),
        key=lambda read: _worth(decided, DependencyDecision(tokenizer, read)),
    )


def predict(
    plans: Sequence[tuple[str, Sequence[Node]]],
    teacher: Teacher,
    decision: DependencyDecision,
    score: Scorer,
) -> list[PlanGraph]:
    """The dependencies that the model chooses for the titles of (question, plan), line by line."""
    graphs = [PlanGraph([Node(1, plan[0].title)]) for _, plan in plans]
    for count in range(1, max((len(plan) for _, plan in plans), default=0)):
        asked = [index for index, (_, plan) in enumerate(plans) if len(plan) > count]
        samples = []
        for index in asked:
            question, plan = plans[index]
            prompt = teacher.dependency_prompt(question, tuple(graphs[index]), plan[count].title)
            choice = Choice(len(prompt) - 1, decision.candidates(count), (0.0,) * (count + 1))
            samples.append(Sample(Skill.DEPENDENCIES, prompt.tokens, choices=(choice,)))
        for index, (scores,) in zip(asked, score(samples), strict=True):
            node = Node(count + 1, plans[index][1][count].title, decision.choose(scores))
            graphs[index].add(node)
    return graphs


def _worth(
    decided: Sequence[tuple[Sequence[Node], Sequence[tuple[float, ...]]]],
    decision: DependencyDecision,
) -> tuple[bool, float]:
    """How good the graphs are that follow from scores: enough parallelism first, then the edges."""
    found = measure([(PlanGraph(plan), _graph(plan, scores, decision)) for plan, scores in decided])
    worth = found["edge_f1"] + found["dependency_recall"]
    return found["parallelism_ratio"] >= PARALLELISM, worth


def _graph(
    plan: Sequence[Node], scores: Sequence[tuple[float, ...]], decision: DependencyDecision
) -> PlanGraph:
    first, *rest = plan
    nodes: Iterator[Node] = (
        Node(node.number, node.title, decision.choose(of))
        for node, of in zip(rest, scores, strict=True)
    )
    return PlanGraph([Node(1, first.title), *nodes])


def _split_threshold(odds: Sequence[float], split: Sequence[bool]) -> float:
    """The probability of not splitting below which the answer is split, at the lowest cost."""
    edges = sorted(odds)
    places = [(low + high) / 2 for low, high in pairwise(edges)] or [0.0]

    def cost(place: float) -> tuple[float, float]:
        false = sum(o <= place and not s for o, s in zip(odds, split, strict=True))
        missed = sum(o > place and s for o, s in zip(odds, split, strict=True))
        # Of equal costs the one nearest to even odds.
        return FALSE_SPLIT_COST * false + missed, abs(place)

    return float(torch.tensor(min(places, key=cost)).sigmoid())

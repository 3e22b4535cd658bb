"""Training samples: the prompts of planners and schedulers, with the right continuation.

The code that builds the prompts of requests builds these, too, so a tuned model sees the same
tokens in training and in use.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from plato.engine import Prompt, Segment
from plato.errors import InvalidRequestError, ModelError
from plato.models.calibration import Calibration
from plato.planning import wording
from plato.planning.decision import DependencyDecision, SplitDecision, dependency_lines
from plato.planning.grammar import outline_line
from plato.planning.prompt import PlanningPrompts, shown_question
from plato.prompting import ChatTemplate, NodeText, Tokenizer
from plato.prompting.transcript import TranscriptLayout
from plato.runs import Message, Node, PlanGraph
from plato.settings import Settings
from plato.tuning.examples import Example

NOISE = 0.2
"""Fraction of earlier lines with wrong dependencies, if there is noise."""


class Skill(StrEnum):
    """What a sample teaches."""

    SPLIT = "split"
    OUTLINE = "outline"
    DEPENDENCIES = "dependencies"
    PART = "part"
    ANSWER = "answer"
    """An ordinary answer or part, as the untuned model writes it."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A decision between tokens."""

    position: int
    """Index of the token after which it is taken."""
    candidates: tuple[int, ...]
    targets: tuple[float, ...]
    """Probabilities of the candidates, which sum to 1."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Tokens, and what is learned of them."""

    skill: Skill
    tokens: tuple[int, ...]
    spans: tuple[range, ...] = ()
    """Positions of the texts that are learned."""
    choices: tuple[Choice, ...] = ()

    @classmethod
    def writing(cls, skill: Skill, prompt: Sequence[int], text: Sequence[int]) -> Sample:
        """A prompt with the text that follows it, which is learned."""
        start = len(prompt)
        return cls(skill, (*prompt, *text), spans=(range(start, start + len(text)),))


class SampleBuilder:
    """Builds the samples of one model."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate, context_length: int) -> None:
        """Raises `ModelError` if the model cannot take decisions or end an answer."""
        self._tokenizer = tokenizer
        self._prompts = PlanningPrompts.of(tokenizer, template, examples=False)
        self._layout = TranscriptLayout(tokenizer, template, context_length)
        self._context_length = context_length
        self._split = SplitDecision(tokenizer, Calibration())
        self._dependency = DependencyDecision(tokenizer, Calibration())
        self._budget: int = Settings.model_fields["node_max_tokens"].default
        end = template.end_token
        if end is None:
            end = min(tokenizer.end_tokens, default=None)
        if end is None:
            raise ModelError("the tokenizer of this model has no token that ends an answer")
        self._end = (end,)

    def samples(self, example: Example, noise: random.Random | None = None) -> list[Sample]:
        """Everything that an example teaches; for `noise` see `dependencies`.

        Raises `InvalidRequestError` if a sample exceeds the model's context.
        """
        found: list[Sample] = []
        if example.kind is not None:
            found.append(self.split(example))
        if example.texts:
            found += (self.outline(example), *self.parts(example))
        if len(example.plan) > 1:
            found.append(self.dependencies(example, noise))
        longest = max((len(sample.tokens) for sample in found), default=0)
        if longest > self._context_length:
            raise InvalidRequestError(
                f"the example {example.question[:60]!r} needs {longest} tokens, and the context "
                f"of the model is {self._context_length} tokens; shorten or remove it",
                param="data",
            )
        return found

    def split(self, example: Example) -> Sample:
        """Whether the answer is split."""
        prompt = self._prompts.split.build(self._shown(example.question), "")
        targets = (0.0, 1.0) if example.plan else (1.0, 0.0)
        choice = Choice(len(prompt) - 1, self._split.candidates, targets)
        return Sample(Skill.SPLIT, prompt.tokens, choices=(choice,))

    def outline(self, example: Example) -> Sample:
        """The titles."""
        ask = wording.points(len(example.plan))
        prompt = self._prompts.outline.build(self._shown(example.question), "", ask=ask)
        lines = "".join(outline_line(node.number, node.title) for node in example.plan)
        titles = (*self._tokenizer.text(lines), *self._end)
        return Sample.writing(Skill.OUTLINE, prompt.tokens, titles)

    def dependencies(self, example: Example, noise: random.Random | None = None) -> Sample:
        """The earlier parts that each part needs, titles given.

        With `noise` some earlier lines have wrong dependencies: a planner reads its own decisions,
        and must continue well after a mistake.
        """
        plan = example.plan[: self._dependency.parts]
        shown = list(plan)
        if noise is not None:
            shown = [
                replace(node, dependencies=_mistaken(node, noise))
                if noise.random() < NOISE
                else node
                for node in plan
            ]
        choices, prompt = [], Prompt(())
        for count in range(1, len(plan)):
            needed = plan[count].dependencies
            earlier, prompt = (
                prompt,
                self.decision(example.question, shown[:count], plan[count].title),
            )
            if prompt.tokens[: len(earlier)] != earlier.tokens:
                raise ModelError(
                    "the tokenizer of this model merges the end of one line of a plan with the "
                    "start of the next, so it cannot be tuned for planning"
                )
            targets = [1 / len(needed) if n in needed else 0.0 for n in range(1, count + 1)]
            candidates = self._dependency.candidates(count)
            choices.append(Choice(len(prompt) - 1, candidates, (0.0 if needed else 1.0, *targets)))
        return Sample(Skill.DEPENDENCIES, prompt.tokens, choices=tuple(choices))

    def decision(self, question: str, earlier: Sequence[Node], title: str) -> Prompt:
        """The prompt of one decision on dependencies."""
        lines = dependency_lines(earlier, title)
        return self._prompts.dependencies.build(self._shown(question), "", lines=lines)

    def undecided(self, question: str, earlier: Sequence[Node], title: str) -> Sample:
        """One decision on dependencies whose right answer is not known."""
        prompt = self.decision(question, earlier, title)
        candidates = self._dependency.candidates(len(earlier))
        choice = Choice(len(prompt) - 1, candidates, (0.0,) * len(candidates))
        return Sample(Skill.DEPENDENCIES, prompt.tokens, choices=(choice,))

    def parts(self, example: Example) -> Iterator[Sample]:
        """Each text, after the texts that its part sees; without those it is left out.

        A part that continues the conversation of another is in the same sample.
        """
        graph = PlanGraph(example.plan)
        texts = {
            node.number: NodeText(node.number, (*self._tokenizer.text(text), *self._end), text)
            for node, text in zip(example.plan, example.texts, strict=True)
            if text is not None
        }
        conversation = self._layout.start((Message("user", example.question),), "")
        found: dict[int, Sample] = {}
        """By the last part of each sample."""
        for node in graph:
            number = node.number
            if not texts.keys() >= {number, *graph.ancestors(number)}:
                continue
            made = conversation.node_prompt(graph, number, texts, lambda _: self._budget)
            sample = Sample.writing(Skill.PART, made.prompt.tokens, texts[number].tokens)
            if number in example.contexts:
                sample = replace(sample, spans=())
            continued = found.get(made.continues or 0)
            if continued and sample.tokens[: len(continued.tokens)] == continued.tokens:
                del found[made.continues or 0]
                sample = replace(sample, spans=continued.spans + sample.spans)
            found[number] = sample
        yield from (sample for sample in found.values() if sample.spans)

    def ordinary(self, example: Example) -> Iterator[tuple[int, ...]]:
        """Prompts that the tuned model continues as before.

        They are the question, for an answer in one piece, and the parts whose titles are learned,
        but not their texts, if they see no other parts.
        """
        messages = (Message("user", example.question),)
        yield self._layout.sequential(messages, "").tokens
        if not example.texts:
            return
        conversation = self._layout.start(messages, "")
        graph = PlanGraph(example.plan)
        for node in graph:
            if node.number in example.contexts and not node.dependencies:
                made = conversation.node_prompt(graph, node.number, {}, lambda _: self._budget)
                yield made.prompt.tokens

    def _shown(self, question: str) -> Segment:
        return shown_question(self._tokenizer, (Message("user", question),))


def _mistaken(node: Node, noise: random.Random) -> tuple[int, ...]:
    """Other dependencies: none, the part before, or any earlier part."""
    if node.number == 1:
        return ()
    others = {(), (node.number - 1,), (noise.randrange(1, node.number),)} - {node.dependencies}
    return noise.choice(sorted(others)) if others else ()

"""Training samples: the prompts that a planner and a scheduler send, with what is right to answer.

They are built by the code that builds the prompts of requests, so a tuned model sees the same
tokens in training and in use.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from plato.engine import Prompt, Segment
from plato.planning import wording
from plato.planning.calibration import Calibration
from plato.planning.decision import (
    DependencyDecision,
    SplitDecision,
    dependency_answer,
    dependency_line,
)
from plato.planning.grammar import outline_line
from plato.planning.planner import PlanningPrompts
from plato.planning.prompt import shown_question
from plato.prompting import ChatTemplate, NodeText, Tokenizer
from plato.prompting.transcript import TranscriptLayout
from plato.runs import Message, Node, PlanGraph
from plato.tuning.examples import Example

NOISE = 0.2
"""Share of wrong lines, where there are any."""
PART_TOKENS = 256
"""Budget of a part in its prompt, as of `Settings.node_max_tokens`."""


class Skill(StrEnum):
    """What a sample teaches."""

    SPLIT = "split"
    OUTLINE = "outline"
    DEPENDENCIES = "dependencies"
    PART = "part"
    CHAT = "chat"
    """Nothing: ordinary answers, which are to stay as they are."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One decision within a sample."""

    place: int
    """Index of the token after which it is taken."""
    candidates: tuple[int, ...]
    shares: tuple[float, ...]
    """The probabilities that the candidates should have among each other."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Tokens, of which the last `written` are to be learned, and `choices` between tokens."""

    skill: Skill
    tokens: tuple[int, ...]
    written: int = 0
    choices: tuple[Choice, ...] = ()

    @property
    def first_place(self) -> int:
        """Index of the first token whose successor is learned."""
        places = [choice.place for choice in self.choices]
        return min([*places, len(self.tokens) - 1 - self.written])


class Teacher:
    """Makes the samples for one model."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate, context_length: int) -> None:
        """Raises `ModelError` if the model can't take decisions."""
        self._tokenizer = tokenizer
        self._prompts = PlanningPrompts.of(tokenizer, template, examples=False)
        self._layout = TranscriptLayout(tokenizer, template, context_length)
        plain = Calibration()
        self._split = SplitDecision(tokenizer, plain)
        self.dependency = DependencyDecision(tokenizer, plain)
        end = template.end_token
        self._end = (min(tokenizer.end_tokens) if end is None else end,)

    def samples(self, example: Example, noise: random.Random | None = None) -> Iterator[Sample]:
        """All that an example teaches; for `noise` see `dependencies`."""
        if example.kind is not None:
            yield self.split(example)
        if example.plan:
            if example.kind is not None:
                yield self.outline(example)
            if len(example.plan) > 1:
                yield self.dependencies(example, noise)
        if example.texts:
            yield from self.parts(example)

    def split(self, example: Example) -> Sample:
        """Whether the answer is split."""
        prompt = self._prompts.split.build(self._question(example), "")
        shares = (0.0, 1.0) if example.plan else (1.0, 0.0)
        choice = Choice(len(prompt) - 1, self._split.candidates, shares)
        return Sample(Skill.SPLIT, prompt.tokens, choices=(choice,))

    def outline(self, example: Example) -> Sample:
        """The titles."""
        plan = example.plan
        ask = wording.points(len(plan))
        prompt = self._prompts.outline.build(self._question(example), "", ask=ask)
        lines = "".join(outline_line(node.number, node.title) for node in plan)
        return self._writing(Skill.OUTLINE, prompt, self._tokenizer.text(lines))

    def dependencies(self, example: Example, noise: random.Random | None = None) -> Sample:
        """Which earlier parts each part needs, titles given.

        With `noise` some earlier lines have wrong dependencies: a planner reads its own, and is to
        go on well after a mistake.
        """
        plan, shown = example.plan, list(example.plan)
        if noise is not None:
            shown = [
                replace(node, dependencies=_wrong(node, noise)) if noise.random() < NOISE else node
                for node in shown
            ]
        choices = []
        for count in range(1, len(plan)):
            needed = plan[count].dependencies
            prompt = self.dependency_prompt(example.question, shown[:count], plan[count].title)
            shares = [1 / len(needed) if n in needed else 0.0 for n in range(1, count + 1)]
            candidates = self.dependency.candidates(count)
            choices.append(Choice(len(prompt) - 1, candidates, (0.0 if needed else 1.0, *shares)))
        return Sample(Skill.DEPENDENCIES, prompt.tokens, choices=tuple(choices))

    def dependency_prompt(self, question: str, earlier: Sequence[Node], title: str) -> Prompt:
        """The prompt of one decision on dependencies, as `Decider` builds it."""
        lines = [
            dependency_line(node.number, node.title) + dependency_answer(node.dependencies)
            for node in earlier
        ]
        lines.append(dependency_line(len(earlier) + 1, title))
        shown = shown_question(self._tokenizer, (Message("user", question),))
        return self._prompts.dependencies.build(shown, "", lines=lines)

    def parts(self, example: Example) -> Iterator[Sample]:
        """The text of each part, after those that it sees."""
        graph = PlanGraph(example.plan)
        texts = {
            node.number: NodeText(node.number, (*self._tokenizer.text(text), *self._end), text)
            for node, text in zip(example.plan, example.texts, strict=True)
        }
        conversation = self._layout.start((Message("user", example.question),), "")
        for node in graph:
            prompt = conversation.node_prompt(graph, node.number, texts, lambda _: PART_TOKENS)
            yield Sample(
                Skill.PART,
                prompt.prompt.tokens + texts[node.number].tokens,
                written=len(texts[node.number].tokens),
            )

    def chat(self, question: str, answer: Sequence[int]) -> Sample:
        """An ordinary answer, as tokens."""
        prompt = self.chat_prompt(question)
        return Sample(Skill.CHAT, (*prompt, *answer), written=len(answer))

    def chat_prompt(self, question: str) -> tuple[int, ...]:
        """What an ordinary answer follows."""
        return self._layout.sequential((Message("user", question),), "").tokens

    def _question(self, example: Example) -> Segment:
        return shown_question(self._tokenizer, (Message("user", example.question),))

    def _writing(self, skill: Skill, prompt: Prompt, text: tuple[int, ...]) -> Sample:
        return Sample(skill, (*prompt.tokens, *text, *self._end), written=len(text) + 1)


def _wrong(node: Node, noise: random.Random) -> tuple[int, ...]:
    """Dependencies that a planner might choose instead: none, the part before, any other."""
    if node.number == 1:
        return ()
    others = {(), (node.number - 1,), (noise.randrange(1, node.number),)} - {node.dependencies}
    return noise.choice(sorted(others)) if others else ()

"""Tasks with a known right answer.

Consistency: part 1 chooses a place that the question does not name, and every part that depends on
it must name the same one. Sums: every part states a number computed from the parts it needs.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.ground_truth.shapes import Shape, combinations, draw_shape
from plato.runs import Node

CONSISTENCY = "consistency"
SUMS = "sums"
PART_TOKENS = 24
"""Token budget of one part: a short sentence."""

_HEADS = (
    "baker", "clown", "doctor", "dragon", "farmer", "giant", "judge", "king", "knight", "monk",
    "nurse", "painter", "pilot", "poet", "queen", "robot", "sailor", "singer", "teacher", "wizard",
)  # fmt: skip
_RELATIVES = (
    "aunt", "brother", "cousin", "daughter", "father", "grandfather", "grandmother", "mother",
    "sister", "son", "uncle",
)  # fmt: skip
_PLACES = ("town", "village", "city")
_EVENTS = ("was born", "grew up", "went to school", "lives", "works")
_GOODS = (
    "apple", "bell", "book", "cake", "chair", "coat", "cup", "drum", "hat", "kite", "lamp", "spoon",
)  # fmt: skip

_NAME = re.compile(
    r"\b(?:in|at|of|near|called|named|from|is|was) (?:the )?"
    r"([A-Z][\w'-]*(?: [A-Z][\w'-]*)*)"
)
_NUMBER = re.compile(r"\d+")
_SENTENCE = re.compile(r"[^.!?\n]+")
_SECTION = re.compile(r"^\W*(?:Part )?(\d{1,2})[.):]\W*(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Task:
    """A question, a plan for it, and how to tell whether an answer is right."""

    name: str
    kind: str
    question: str
    plan: tuple[Node, ...]
    subjects: tuple[str, ...]
    """What each part is about: a word by which a text about it is recognised."""
    depth: int
    """Parts on the longest path of the plan."""
    expected: tuple[int, ...] = ()
    """The numbers that the parts of a sum must state."""

    @property
    def dependencies(self) -> int:
        """Edges of the plan."""
        return sum(len(node.dependencies) for node in self.plan)

    @property
    def max_tokens(self) -> int:
        """Token budget of the whole answer."""
        return sum(node.max_tokens or 0 for node in self.plan)

    def sections(self, answer: str) -> tuple[str, ...]:
        """The text of every part in an answer that was written without this plan.

        Of a part: the first line with its number, else the first sentence that names its subject.
        """
        numbered = {int(number): text for number, text in reversed(_SECTION.findall(answer))}
        sentences = _SENTENCE.findall(answer)
        return tuple(
            numbered.get(node.number)
            or next((s for s in sentences if re.search(rf"\b{subject}\b", s)), "")
            for node, subject in zip(self.plan, self.subjects, strict=True)
        )

    def values(self, texts: Sequence[str]) -> tuple[str | None, ...]:
        """What every part states, given the parts' texts; None where it states nothing.

        A place that stands in the question is no choice; "New York City" is "New York".
        """
        if self.kind == SUMS:
            return tuple(_stated_number(text) for text in texts)
        names = (_NAME.search(text) for text in texts)
        return tuple(
            found[1].removesuffix(" City") if found and found[1] not in self.question else None
            for found in names
        )

    def correct(self, values: Sequence[str | None]) -> bool:
        """Whether every part states the right value: exact match."""
        if self.kind == SUMS:
            return list(values) == [str(number) for number in self.expected]
        return None not in values and all(agreements(self.plan, values))


def agreements(plan: Sequence[Node], values: Sequence[str | None]) -> list[bool]:
    """For every dependency, whether both parts state the same value."""
    return [
        values[node.number - 1] is not None and values[node.number - 1] == values[earlier - 1]
        for node in plan
        for earlier in node.dependencies
    ]


def draw_tasks(kind: str, count: int, seed: int) -> tuple[Task, ...]:
    """`count` different tasks of a kind, spread evenly over all combinations.

    The same arguments give the same tasks.
    """
    draw = {CONSISTENCY: _draw_consistency, SUMS: _draw_sums}[kind]
    chance = random.Random(f"{kind} {seed}")
    cells = combinations()
    tasks: dict[str, Task] = {}
    while len(tasks) < count:
        dependencies, depth = cells[len(tasks) % len(cells)]
        shape = draw_shape(chance, dependencies, depth)
        task = draw(chance, f"{kind}-{len(tasks) + 1}", shape, depth)
        tasks.setdefault(task.question, task)
    return tuple(tasks.values())


def _draw_consistency(chance: random.Random, name: str, shape: Shape, depth: int) -> Task:
    head = chance.choice(_HEADS)
    place, event = chance.choice(_PLACES), chance.choice(_EVENTS)
    people = (head, *chance.sample(_RELATIVES, len(shape) - 1))
    lines = [f"The {who} {event} in which {place}?" for who in people]
    same = f"the same {place}" if any(shape) else f"a {place}"
    question = _listed(
        f"Every member of the {head}'s family {event} in {same}. In which {place}?", lines
    )
    # Of several wordings of titles, the default model answers only the lines themselves with a
    # place ("the town where the son lives" makes it describe a town without a name).
    return Task(name, CONSISTENCY, question, _plan(lines, shape), people, depth)


def _draw_sums(chance: random.Random, name: str, shape: Shape, depth: int) -> Task:
    goods = tuple(chance.sample(_GOODS, len(shape)))
    lines, expected = [], list[int]()
    for thing, needed in zip(goods, shape, strict=True):
        own = chance.randint(1, 9)
        expected.append(own + sum(expected[number - 1] for number in needed))
        others = " and ".join(f"the {goods[number - 1]}" for number in needed)
        together = " together" if len(needed) > 1 else ""
        lines.append(
            f"The {thing} costs {own} more than {others}{together}."
            if needed
            else f"The {thing} costs {own}."
        )
    question = _listed("What is the price of each thing?", lines)
    titles = [f"the price of the {thing}" for thing in goods]
    return Task(name, SUMS, question, _plan(titles, shape), goods, depth, tuple(expected))


def _listed(question: str, lines: Sequence[str]) -> str:
    return "\n".join([question, *(f"{n}. {line}" for n, line in enumerate(lines, start=1))])


def _plan(titles: Sequence[str], shape: Shape) -> tuple[Node, ...]:
    return tuple(
        Node(number, title, needed, PART_TOKENS)
        for number, (title, needed) in enumerate(zip(titles, shape, strict=True), start=1)
    )


def _stated_number(text: str) -> str | None:
    """The last number of the first sentence with a number: `4 + 3 = 7` states 7."""
    for sentence in _SENTENCE.findall(text):
        numbers = _NUMBER.findall(sentence)
        if numbers:
            return str(int(numbers[-1]))
    return None

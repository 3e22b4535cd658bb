"""What in a finished answer is not as asked, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from plato.api.answers.run_info import PlatoInfo
from plato.display.numbers import counted, listed
from plato.runs import NodeReport


def notes(info: PlatoInfo) -> RenderableType:
    """Lines with the reason of the mode, what was unavailable, ignored, and all that was cut."""
    nodes = info.graph.nodes
    lines = [info.reason] if info.reason else []
    lines += [f"no {what}" for what in info.degraded]
    if info.ignored:
        lines.append(f"ignored: {', '.join(info.ignored)}")
    lines += [*_cut_by_budget(nodes), *_cut_by_max_tokens(nodes), *_shortened(nodes)]
    return Group(*(Text(f"note: {line}", style="yellow") for line in lines))


def _cut_by_budget(nodes: Sequence[NodeReport]) -> Iterator[str]:
    cut = [node for node in nodes if node.cut == "budget"]
    for tokens in sorted({node.tokens for node in cut}):
        numbers = [node.number for node in cut if node.tokens == tokens]
        what = _parts(numbers) if len(nodes) > 1 else "the answer was"
        yield f"{what} cut at {counted(tokens, 'token')}"


def _cut_by_max_tokens(nodes: Sequence[NodeReport]) -> Iterator[str]:
    cut = [node for node in nodes if node.cut == "max_tokens"]
    missing = [node.number for node in cut if not node.answer_tokens]
    what = [
        f"part {node.number} was cut at {counted(node.answer_tokens, 'token')}"
        for node in cut
        if node.answer_tokens
    ]
    what += [f"{_parts(missing)} left out"] if missing else []
    if what:
        total = sum(node.answer_tokens for node in nodes)
        yield f"the answer reached its max_tokens of {total}: {', '.join(what)}"


def _shortened(nodes: Sequence[NodeReport]) -> Iterator[str]:
    for node in nodes:
        kept = [number for number in node.shortened if number in node.sees]
        missing = [number for number in node.shortened if number not in node.sees]
        for numbers, what in ((kept, "shortened in"), (missing, "left out of")):
            if numbers:
                yield f"{_parts(numbers)} {what} the prompt of part {node.number} to make it fit"


def _parts(numbers: Sequence[int]) -> str:
    return f"part {numbers[0]} was" if len(numbers) == 1 else f"parts {listed(numbers)} were"

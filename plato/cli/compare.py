"""`plato ask --compare`: one answer after the other, and their times."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.rule import Rule
from rich.table import Table

from plato.cli.asking import Answered, Output, ask_and_show, show_summary
from plato.cli.tables import table_of
from plato.client import Asker
from plato.client.answer import Question
from plato.runs import Mode

_FIGURES: tuple[tuple[str, str, Callable[[Answered], float | None]], ...] = (
    ("time", "{:.1f} s", lambda answered: answered.duration_s),
    ("first text", "{:.1f} s", lambda answered: answered.first_text_s),
    ("tokens", "{:.0f}", lambda answered: _tokens(answered)),
    ("tokens/s", "{:.1f}", lambda answered: _tokens(answered) / max(answered.duration_s, 1e-9)),
)


async def compare(
    client: Asker, question: Question, options: dict[str, Any], output: Output
) -> None:
    """Answer sequentially, then as `options` say, and print both and a comparison."""
    console = Console(stderr=True)
    answers = {}
    sequential = {name: value for name, value in options.items() if name != "plan"}
    sequential["mode"] = Mode.SEQUENTIAL.value
    for asked in (sequential, options):
        if output is Output.TEXT:
            console.print(Rule(asked["mode"]))
        answered = await ask_and_show(client, question, asked, output)
        if output is Output.TEXT:
            show_summary(answered)
        answers[asked["mode"]] = answered
    if output is Output.JSON:
        print(json.dumps({mode: _as_json(answered) for mode, answered in answers.items()}))
    else:
        console.print()
        console.print(_table(answers))


def _as_json(answered: Answered) -> dict[str, Any]:
    times = {"duration_s": answered.duration_s, "first_text_s": answered.first_text_s}
    return {**answered.as_json(), **times}


def _table(answers: dict[str, Answered]) -> Table:
    rows = []
    for name, form, figure in _FIGURES:
        before, after = map(figure, answers.values())
        ratio = f"{after / before:.2f}" if before and after else "-"
        rows.append((name, _shown(form, before), _shown(form, after), ratio))
    return table_of(rows, "", *answers, "ratio", right=(*answers, "ratio"))


def _shown(form: str, value: float | None) -> str:
    return "-" if value is None else form.format(value)


def _tokens(answered: Answered) -> int:
    """Tokens of the visible answer."""
    return sum(node.answer_tokens for node in answered.complete.graph.nodes)

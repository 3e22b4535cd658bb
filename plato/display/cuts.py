"""Marks where text is missing in an answer."""

from __future__ import annotations

from collections.abc import Mapping

from plato.api.answers.run_info import PlatoInfo

MARK = " […]"


def mark_cuts(answer: str, texts: Mapping[int, str], info: PlatoInfo) -> str:
    """The answer with a mark behind each part that was cut by length.

    `texts` are those of the parts by their numbers. A part whose text is not in the answer as it
    was decoded gets no mark.
    """
    marked: list[str] = []
    position = 0
    for node in info.graph.nodes:
        text = texts.get(node.number, "").strip()
        if node.cut == "max_tokens":
            # Its text ends with the answer.
            return f"{''.join(marked)}{answer[position:]}{MARK}" if answer[position:] else answer
        found = answer.find(text, position) if text else -1
        if found < 0:
            continue
        end = found + len(text)
        marked.append(answer[position:end] + (MARK if node.cut else ""))
        position = end
    return "".join(marked) + answer[position:]

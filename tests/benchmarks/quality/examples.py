"""Small answers made by hand."""

from __future__ import annotations

from benchmarks.quality.answers import Answer, Part
from benchmarks.quality.pairs import Key


def part(text: str, title: str = "", finish: str = "stop") -> Part:
    return Part(title, (), len(text.split()), finish, text)


def answer(
    question: str, mode: str, *parts: Part, tokens: int = 10, latency_s: float = 1.0
) -> Answer:
    return Answer(
        id=question,
        category="generic",
        question=f"What is {question}?",
        model="small",
        mode=mode,
        text="\n\n".join(each.text for each in parts),
        tokens=tokens,
        latency_s=latency_s,
        parts=parts,
    )


def key(
    question: str, side: int, category: str = "generic", words: int = 10, against: int = 10
) -> Key:
    return Key(
        pair=f"{question}-{side}",
        id=question,
        category=category,
        model="small",
        mode="plato",
        model_against="small",
        mode_against="sequential",
        side=1 if side == 1 else 2,
        words=words,
        words_against=against,
    )

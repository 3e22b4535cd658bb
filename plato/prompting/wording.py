"""The words around a question that make a model write one part of the answer.

Chosen by trying them on the default model, which is very small (135M). It takes "write a paragraph
only about topic 3: Religion" for a reason to list the topics or to copy the paragraph before, and
repeats phrases like "in one paragraph" or "the answer covers"; being asked to *tell more about*
something makes it write prose about that. Every node prefills these words, so they are few.
"""

from __future__ import annotations

SYSTEM = "You are a helpful expert. You answer with paragraphs."
"""Stands before the caller's system prompt, in front of everything else."""

TITLES = "\n\nTopics:\n"
"""Stands between the question and the titles."""

CUT = " [...] "
"""Stands where the middle of a quoted text was."""


def title(number: int, title: str) -> str:
    """A line of the plan."""
    return f"{number}. {title}\n"


def quote_heading(title: str) -> str:
    """Stands before the text of another part."""
    return f"\nAbout {title}:\n"


def instruction(title: str) -> str:
    """Asks for one part."""
    return f"\nTell me more about {title}."

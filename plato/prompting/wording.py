"""The wording of node prompts.

Chosen by experiments with the default model, which is very small (135M). Asked to "write a
paragraph only about topic 3: Religion", it lists the topics or copies the previous paragraph, and
it repeats phrases like "in one paragraph" or "the answer covers"; asked to *tell more about*
something it writes prose about it. Every node prefills this text, so it is short.
"""

from __future__ import annotations

SYSTEM = "You are a helpful expert. You answer with paragraphs."
"""Precedes the caller's system prompt, at the start of every prompt."""

TITLES = "\n\nTopics:\n"
"""Separates the question from the titles."""

CUT = " [...] "
"""Replaces the middle of a quoted text that was cut."""


def title(number: int, title: str) -> str:
    """A line of the plan."""
    return f"{number}. {title}\n"


def quote_heading(title: str) -> str:
    """Heading of the quoted text of another node."""
    return f"\nAbout {title}:\n"


def instruction(title: str) -> str:
    """Asks for one node."""
    return f"\nTell me more about {title}."

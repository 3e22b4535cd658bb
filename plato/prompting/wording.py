"""The wording of node prompts.

Chosen by experiments with the default model, which is very small (135M), on the 37 Vicuna questions
that people found fit for splitting, judged blind against sequential answers. The instruction alone,
in words that the model was tuned on, is the best of about fifty layouts: it wins 36 of 114
comparisons. Examples of parts, as turns of a conversation, halve the length but also the model's
fluency (4 of 36); a list of the other titles, or the heading as the start of the answer, makes it
write lists and define the words of its title.
"""

from __future__ import annotations

from plato.runs import Length

BEFORE_ASKING = "\n\n"
"""Separates the question from what is asked about it."""

CUT = " [...] "
"""Replaces the middle of a quoted text that was cut."""

SHORT_BELOW = 80
"""Tokens; a part with less is asked for as short."""

_AMOUNTS = {
    Length.SHORT: "one sentence",
    Length.MEDIUM: "one short paragraph",
    Length.LONG: "three paragraphs",
}
"""The default model writes 50, 100 and 200 tokens."""


def quote_heading(title: str) -> str:
    """Heading of the quoted text of another node."""
    return f"{title}:\n"


def instruction(title: str, length: Length) -> str:
    """Asks for one node."""
    return f"Write {_AMOUNTS[length]} about: {title}."


def fitting_length(max_tokens: int) -> Length:
    """Of a node whose plan says nothing about its length."""
    return Length.SHORT if max_tokens < SHORT_BELOW else Length.MEDIUM

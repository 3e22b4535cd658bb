"""The words of the planning prompt."""

from __future__ import annotations

INSTRUCTION = (
    "Plan the answer to the question: 3 to 6 different parts, one line each: "
    "number | numbers of the parts it needs, or - | title. End with [END].\n"
    "Write only [ONE] if the answer is a story, a speech, a letter, a program, a calculation "
    "or a short fact."
)
EXAMPLES = (("Write a poem about the sea.", "[ONE]"),)
CUT = " [...] "
HISTORY = "Conversation so far:\n"
QUESTION = "\nQuestion:\n"


def message(role: str, text: str) -> str:
    """One message of the conversation so far."""
    return f"{role.capitalize()}: {text}\n"

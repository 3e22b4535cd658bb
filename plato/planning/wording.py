"""The wording of the planning prompt.

Chosen by experiments with SmolLM2-135M-Instruct: the probability of `[ONE]` on one half of the
labelled Vicuna questions, and the plans for ten to twenty of them. Three examples of each kind, as
turns of a conversation, separate the two kinds better than one of each (AUC 0.96 against 0.82 to
0.86) or than eight examples in one message (0.63). Examples with titles of several words produce
such titles; with one-word titles, plans repeat themselves. The default of `split_threshold` depends
on this wording: recalibrate it after a change.
"""

from __future__ import annotations

INSTRUCTION = (
    "Plan the answer to the question: 3 to 6 different parts, one line each: "
    "number | numbers of the parts it needs, or - | title. End with [END].\n"
    "Write only [ONE] if the answer is a story, a speech, a letter, a program, a calculation "
    "or a short fact."
)
EXAMPLES = (
    ("Write a letter to my landlord about a broken heater.", "[ONE]"),
    (
        "How can I grow better tomatoes?",
        "1 | - | Prepare good soil\n"
        "2 | - | Water at the right time\n"
        "3 | - | Give them enough sun\n"
        "4 | - | Keep pests away\n"
        "[END]",
    ),
    ("How many pianos are there in Paris? Explain step by step.", "[ONE]"),
    (
        "Why should adults learn a second language?",
        "1 | - | Better chances at work\n"
        "2 | - | Easier travel\n"
        "3 | - | A sharper memory\n"
        "4 | - | New friends and cultures\n"
        "[END]",
    ),
    ("Write a Java class that sorts a list of names.", "[ONE]"),
    (
        "Should my village build solar or wind power?",
        "1 | - | Cost and output of solar power\n"
        "2 | - | Cost and output of wind power\n"
        "3 | 1,2 | Which one to choose\n"
        "[END]",
    ),
)
CUT = " [...] "
"""Marks where a long question or conversation was cut."""
HISTORY = "Conversation so far:\n"
QUESTION = "\nQuestion:\n"


def message(role: str, text: str) -> str:
    """One message of the conversation so far."""
    return f"{role.capitalize()}: {text}\n"

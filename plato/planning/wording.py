"""The wording of the planner's prompts.

Chosen by experiments with SmolLM2-135M-Instruct.

`points` asks for titles, without examples: with one or two, 5 % of the titles for the 80 Vicuna
questions and 60 how-to questions are about the examples' topics; with ten, most titles are as
plain as theirs ("How it works", "What you need"). Any model knows a list of points by itself.

`SPLIT`: the probability of `[ONE]` on one half of the labelled Vicuna questions. Three examples of
each kind, as turns of a conversation, separate the two kinds better than one of each (AUC 0.96
against 0.82 to 0.86) or than eight examples in one message (0.63). The default of
`split_threshold` depends on this wording: recalibrate it after a change.

`DEPENDENCIES`: with letters and "Uses nothing", the probabilities tell parts with dependencies from
others with AUC 0.82 on how-to tasks of AsyncHow and 0.85 on questions, and needed parts from others
with 0.72 and 0.64; with numbers and 0, 0.83, 0.84, 0.66 and 0.63; asked about each pair, 0.49.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wording:
    """An instruction, and examples as turns of a conversation."""

    instruction: str
    examples: tuple[tuple[str, str], ...]
    """Questions and answers."""


OUTLINE = Wording("", ())
"""The question alone; `points` follows it."""

SPLIT = Wording(
    "Plan the answer to the question: 3 to 6 different parts, one line each: "
    "number | numbers of the parts it needs, or - | title. End with [END].\n"
    "Write only [ONE] if the answer is a story, a speech, a letter, a program, a calculation "
    "or a short fact.",
    (
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
    ),
)
"""Asks for a plan or `[ONE]`; only the first token of the answer is looked at.

Plans are not decoded in this form. The threshold is calibrated on its wording.
"""

DEPENDENCIES = Wording(
    "Plan the answer: one line for each part: its title, and the letters of the earlier parts "
    "whose results it uses.",
    (
        (
            "How can I grow better tomatoes?",
            "A: Prepare good soil. Uses nothing\n"
            "B: Choose young plants. Uses nothing\n"
            "C: Set the plants into the soil. Uses A and B\n"
            "D: Water them every morning. Uses C",
        ),
        (
            "Why should adults learn a second language?",
            "A: Better chances at work. Uses nothing\n"
            "B: Easier travel. Uses nothing\n"
            "C: A sharper memory. Uses nothing\n"
            "D: New friends and cultures. Uses nothing",
        ),
        (
            "Should my village build solar or wind power?",
            "A: Cost of solar power. Uses nothing\n"
            "B: Cost of wind power. Uses nothing\n"
            "C: Which one to choose. Uses A and B",
        ),
        (
            "How do I bake bread?",
            "A: Mix the dough. Uses nothing\n"
            "B: Let the dough rise. Uses A\n"
            "C: Heat the oven. Uses nothing\n"
            "D: Bake the bread. Uses B and C",
        ),
        (
            "What caused the First World War, and what followed from it?",
            "A: Alliances in Europe. Uses nothing\n"
            "B: The murder in Sarajevo. Uses nothing\n"
            "C: How the war began. Uses A and B\n"
            "D: Treaties after the war. Uses C\n"
            "E: New borders. Uses D",
        ),
        (
            "What makes a good friend?",
            "A: Honesty. Uses nothing\n"
            "B: Time for each other. Uses nothing\n"
            "C: Shared interests. Uses nothing",
        ),
    ),
)
"""Asks for the dependencies of one line after the other; see `plato.planning.decision`."""

_IN_WORDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def points(count: int) -> str:
    """Asks for the titles of an answer, behind the question; `count` is at least 2."""
    return f"\n\nAnswer with a list of the {_in_words(count)} most important points."


def lines(count: int) -> str:
    """Asks for a plan in the plan language, behind the question; `count` is at least 2.

    For engines without grammars, so it has to say what must not be written.
    """
    return (
        f"\n\nDo not answer yet, but plan the answer: its {_in_words(count)} most important parts, "
        "one line each: number | title | numbers of the earlier parts whose text it needs, or -. "
        "Then write [END], and nothing else. For example:\n"
        "1 | Cost of solar power | -\n"
        "2 | Cost of wind power | -\n"
        "3 | The better choice | 1,2\n"
        "[END]"
    )


def json_parts(count: int) -> str:
    """Asks for a plan as JSON, behind the question; `count` is at least 2."""
    return (
        f"\n\nDo not answer yet, but plan the answer: its {_in_words(count)} most important parts, "
        "as JSON, each with a short title, and the numbers of the earlier parts whose text it "
        'needs. For example: {"parts": [{"title": "Cost of solar power", "needs": []}, '
        '{"title": "Cost of wind power", "needs": []}, '
        '{"title": "The better choice", "needs": [1, 2]}]}'
    )


def _in_words(count: int) -> str:
    return dict(enumerate(_IN_WORDS, start=2)).get(count, str(count))


CUT = " [...] "
"""Marks where a long question or conversation was cut."""
HISTORY = "Conversation so far:\n"
QUESTION = "\nQuestion:\n"


def message(role: str, text: str) -> str:
    """One message of the conversation so far."""
    return f"{role.capitalize()}: {text}\n"

"""The wording of the planner's prompts.

Chosen by experiments with SmolLM2-135M-Instruct.

`SPLIT`: the probability of `[ONE]` on one half of the labelled Vicuna questions. Three examples of
each kind, as turns of a conversation, separate the two kinds better than one of each (AUC 0.96
against 0.82 to 0.86) or than eight examples in one message (0.63). The default of
`split_threshold` depends on this wording: recalibrate it after a change.

`PLAN`: the plans for the 80 Vicuna questions and 40 how-to questions. Small models imitate the
last examples most, so the most frequent kinds of questions come last; without examples of
programs, stories and calculations, 35 to 44 % of the plans for such questions loop, with them 5 %.
Without a conditional question, plans for those restate it.

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
"""Asks for a plan or `[ONE]`; only the first token of the answer is looked at."""

PLAN = Wording(
    "Plan the answer to the question: the titles of 3 to 5 different parts, one line each: "
    "number | title. End with [END].",
    (
        (
            "Write a Java class that sorts a list of names.",
            "1 | The class and its data\n"
            "2 | The method that sorts\n"
            "3 | An example of its use\n"
            "[END]",
        ),
        (
            "How many pianos are there in Paris? Explain step by step.",
            "1 | People and households\n"
            "2 | Share of homes with a piano\n"
            "3 | Schools and concert halls\n"
            "4 | The total\n"
            "[END]",
        ),
        (
            "Write a story about a lost dog.",
            "1 | How the dog got lost\n2 | A long search\n3 | The surprise at the station\n[END]",
        ),
        (
            "How do I make a birdhouse?",
            "1 | Wood and tools\n"
            "2 | Cutting the boards\n"
            "3 | Putting the house together\n"
            "4 | Where to hang it\n"
            "[END]",
        ),
        (
            "What are the main causes of traffic jams in cities?",
            "1 | Too many cars\n2 | Poor public transport\n3 | Road works and accidents\n[END]",
        ),
        (
            "What if people had never learned to make glass?",
            "1 | Science without lenses\n"
            "2 | Houses without windows\n"
            "3 | Other materials for bottles\n"
            "4 | How trade would change\n"
            "[END]",
        ),
        (
            "Should my village build solar or wind power?",
            "1 | Cost of solar power\n"
            "2 | Cost of wind power\n"
            "3 | Effect on the landscape\n"
            "4 | Which one to choose\n"
            "[END]",
        ),
        (
            "Why should adults learn a second language, and how do they start?",
            "1 | Better chances at work\n"
            "2 | A sharper memory\n"
            "3 | Finding a course\n"
            "4 | Daily practice\n"
            "[END]",
        ),
        (
            "Explain how a refrigerator works.",
            "1 | The cooling liquid\n"
            "2 | The compressor\n"
            "3 | How heat leaves the inside\n"
            "4 | Energy use\n"
            "[END]",
        ),
        (
            "How can I grow better tomatoes?",
            "1 | Good soil\n2 | When to water\n3 | Enough sun\n4 | Protection from pests\n[END]",
        ),
    ),
)
"""Asks for titles."""

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

CUT = " [...] "
"""Marks where a long question or conversation was cut."""
HISTORY = "Conversation so far:\n"
QUESTION = "\nQuestion:\n"


def message(role: str, text: str) -> str:
    """One message of the conversation so far."""
    return f"{role.capitalize()}: {text}\n"

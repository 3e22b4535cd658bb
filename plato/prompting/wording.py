"""The wording of node prompts.

Chosen by experiments with the default model, which is very small (135M), on the 37 Vicuna questions
that people found fit for splitting. Without examples, parts have 200 tokens and a third of them
runs into its limit; asked for "one short paragraph", 107 tokens. Three examples, as turns of a
conversation, set the length (65 tokens; 98 % end by themselves) and show parts that neither
introduce nor conclude. A list of the plan's titles makes the model write about all of them, so a
node sees only its own. The heading opens the answer: that halves the phrases that several parts
have in common, and later parts of a conversation keep to their own topic.

The examples are public, so their KV is computed once per replica, unless the caller has a system
prompt.
"""

from __future__ import annotations

from plato.runs import Length

SYSTEM = "You are a helpful expert. You answer with one short paragraph."
"""Precedes the caller's system prompt, at the start of every prompt."""

EXAMPLES = (
    (
        "How can I sleep better?",
        "A regular schedule",
        "Go to bed and get up at the same time every day, also on weekends. Your body then learns "
        "when to expect sleep, and you fall asleep faster. If you need to change the schedule, "
        "move it by a quarter of an hour each day.",
    ),
    (
        "How can I sleep better?",
        "Light and darkness",
        "Bright light tells the body that it is day. Go outside in the morning, and dim the lamps "
        "in the last hour before bed. Screens shine blue light into your eyes, so put the phone "
        "away early, and keep the bedroom dark with thick curtains.",
    ),
    (
        "Should our village build solar or wind power?",
        "Cost of wind power",
        "A wind turbine costs more to build, around one and a half million euros for each "
        "megawatt, and its moving parts need regular service. In a windy place it yields two to "
        "three times as much energy as solar panels of the same power.",
    ),
)
"""Questions, titles of a part, and its text."""

BEFORE_ASKING = "\n\n"
"""Separates the question from what is asked about it."""

CUT = " [...] "
"""Replaces the middle of a quoted text that was cut."""

_IN_WORDS = {
    Length.SHORT: "in one or two sentences",
    Length.MEDIUM: "in one short paragraph",
    Length.LONG: "in two or three paragraphs",
}


def quote_heading(title: str) -> str:
    """Heading of the quoted text of another node."""
    return f"About {title}:\n"


def instruction(title: str, length: Length = Length.MEDIUM) -> str:
    """Asks for one node."""
    return f"Tell me about {title} {_IN_WORDS[length]}."


def heading(title: str) -> str:
    """Opens the text of a node."""
    return f"## {title}\n"
